/**
 * One socket: the only file with `Deno.upgradeWebSocket`. Bounded sends, batching, one end.
 *
 * @module
 */
import { byteLength, exceedsBytes } from "../text.ts";
import { CLOSE, type Close } from "./close.ts";
import type { Counters } from "./counters.ts";
import { bye, type Dialect, PARLEY_V1 } from "./messages.ts";
import type { Due, Turn } from "./turn.ts";

/** What Parley needs of a `WebSocket`; tests give a fake. */
export type Socket = Pick<
  WebSocket,
  | "binaryType"
  | "bufferedAmount"
  | "send"
  | "close"
  | "onopen"
  | "onmessage"
  | "onclose"
  | "onerror"
>;

/** Upgrades a request: the socket, and the response that opens it. */
export type Upgrade = (
  request: Request,
  options: { dialect: Dialect; idleTimeoutSeconds: number },
) => { socket: Socket; response: Response };

/**
 * Upgrades by Deno. Pings after `idleTimeoutSeconds` of silence and ends a peer that does not answer.
 *
 * @throws {TypeError} if the request is no WebSocket handshake
 */
export const denoUpgrade: Upgrade = (
  request,
  { dialect, idleTimeoutSeconds },
) => {
  const { socket, response } = Deno.upgradeWebSocket(request, {
    idleTimeout: idleTimeoutSeconds,
  });
  // Deno's own `protocol` option refuses a list without a blank behind each comma.
  if (dialect === "v1") {
    response.headers.set("sec-websocket-protocol", PARLEY_V1);
  }
  return { socket, response };
};

/** Frames of merged objects hold at most so many bytes, unless one object is longer. */
export const MAX_FRAME_BYTES = 65_536;

/** How a connection ended: by a close (`code`), by an error, or by the server. */
export interface End {
  by: "peer" | "error" | "server";
  code: number;
  reason: string;
}

/** What a connection needs from outside. */
export interface ConnectionOptions {
  /** Unique among all connections of all processes. */
  id: string;
  /** The peer's address, for the log. */
  remote: string;
  dialect: Dialect;
  maxQueueBytes: number;
  maxMessageBytes: number;
  turn: Turn;
  counters: Counters;
}

/** One for all: ten thousand idle connections share it. */
const nothing = () => {};

/** One socket's life. Its end is told once, on whichever comes first. */
export class Connection implements Due {
  readonly id: string;
  readonly remote: string;
  readonly dialect: Dialect;
  /** The room of its URL, whose binary frames it gets. */
  homeRoom?: string;
  /** How many rooms it hears: with one, and nothing of its own due, it takes the room's frame as it is. */
  roomCount = 0;
  hasEnded = false;
  /** The socket opened: the registry counts it in, then its handler begins. */
  onOpen: () => void = nothing;
  onReady: () => void = nothing;
  onText: (text: string) => void = nothing;
  onBinary: (bytes: ArrayBuffer) => void = nothing;
  /** It ended: its handler leaves the rooms, the registry counts it out. */
  onLeave: () => void = nothing;
  onEnd: (end: End) => void = nothing;
  /** The runtime let the socket go; for a peer that never reads again this may never come. */
  onGone: () => void = nothing;
  #socket: Socket;
  #options: ConnectionOptions;
  /** Objects due at the end of the turn, joined, and their bytes. */
  #due = "";
  #dueBytes = 0;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.id = options.id;
    this.remote = options.remote;
    this.dialect = options.dialect;
    socket.binaryType = "arraybuffer";
    let isOpen = false;
    let isGone = false;
    const goOnce = () => {
      if (isGone) return;
      isGone = true;
      this.onGone();
      // The runtime's idle timer holds a dropped socket for a while: not all of ours with it.
      socket.onopen =
        socket.onmessage =
        socket.onclose =
        socket.onerror =
          null;
    };
    socket.onopen = () => {
      isOpen = true;
      socket.onopen = null;
      this.onOpen();
    };
    socket.onmessage = (event) => this.#receive((event as MessageEvent).data);
    socket.onclose = (event) => {
      const { code, reason, wasClean } = event as CloseEvent;
      this.#end({
        by: wasClean ? "peer" : "error",
        code,
        reason: reason || "closed",
      });
      goOnce();
    };
    socket.onerror = (event) => {
      this.#end({
        by: "error",
        code: 1006,
        reason: (event as ErrorEvent).message,
      });
      if (!isOpen) goOnce();
    };
  }

  /** Bytes not yet handed to the kernel, with what waits to be merged. */
  get unsentBytes(): number {
    return this.#socket.bufferedAmount + this.#dueBytes;
  }

  /** Sends a frame now; a peer that is too far behind is evicted. */
  send(frame: string | Uint8Array<ArrayBuffer> | ArrayBuffer): void {
    if (this.hasEnded) return;
    const { counters, maxQueueBytes } = this.#options;
    counters.framesOut++;
    counters.bytesOut += typeof frame === "string" ? frame.length : frame.byteLength;
    try {
      this.#socket.send(frame);
    } catch (error) {
      this.#end({ by: "error", code: 1006, reason: String(error) });
      return;
    }
    if (this.#socket.bufferedAmount > maxQueueBytes) this.close("tooSlow");
  }

  /** Gives an object to the peer: at once in the plain dialect, merged in `parley.v1`. */
  tell(object: string): void {
    if (this.dialect === "plain") this.send(object);
    else this.#merge(object, byteLength(object));
  }

  /** Says when to come back; the plain dialect has no word for it. */
  farewell(retryMs: number): void {
    if (this.dialect === "v1") this.tell(bye(retryMs));
  }

  /** Takes a room's frame of merged objects. */
  take(frame: string, bytes: number): void {
    if (this.#due === "" && this.roomCount < 2) this.send(frame);
    else this.#merge(frame, bytes);
  }

  /** Sends what is due. */
  flush(): void {
    if (this.#due === "") return;
    const frame = this.#due;
    this.#due = "";
    this.#dueBytes = 0;
    this.send(frame);
  }

  /** Closes with a code of the table. The connection has ended when this returns, whatever the peer does. */
  close(why: keyof typeof CLOSE): void {
    if (why !== "tooSlow") this.flush();
    // It had ended before, or the flush evicted it.
    if (this.hasEnded) return;
    const { code, reason }: Close = CLOSE[why];
    this.#options.counters.closes[why]++;
    this.#end({ by: "server", code, reason });
    this.#socket.close(code, reason);
  }

  #merge(objects: string, bytes: number): void {
    if (this.hasEnded) return;
    if (this.#due !== "" && this.#dueBytes + 1 + bytes > MAX_FRAME_BYTES) {
      this.flush();
    }
    if (this.#due === "") {
      this.#options.turn.addConnection(this);
      this.#due = objects;
      this.#dueBytes = bytes;
    } else {
      this.#due += "\n" + objects;
      this.#dueBytes += 1 + bytes;
    }
  }

  #receive(data: string | ArrayBuffer): void {
    // The runtime still hands out what came before it saw our close.
    if (this.hasEnded) return;
    const { counters, maxMessageBytes } = this.#options;
    counters.sampleFanOut();
    if (typeof data === "string") {
      counters.bytesIn += data.length;
      if (exceedsBytes(data, maxMessageBytes)) this.close("tooBig");
      else this.onText(data);
    } else {
      counters.bytesIn += data.byteLength;
      if (data.byteLength > maxMessageBytes) this.close("tooBig");
      else this.onBinary(data);
    }
  }

  #end(end: End): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.#due = "";
    this.#dueBytes = 0;
    this.onEnd(end);
  }
}
