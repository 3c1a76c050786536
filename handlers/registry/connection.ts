/**
 * One socket: the only file with `Deno.upgradeWebSocket`. Bounded sends, batching, one end.
 *
 * @module
 */
import type { Socket } from "../access/handshake.ts";
import type { Slot } from "../access/slot.ts";
import { CLOSE, type Close } from "../protocol/close_codes.ts";
import { bye, type Dialect } from "../protocol/encode.ts";
import { byteLength, exceedsBytes } from "../util/bytes.ts";
import { Backlog } from "./backlog.ts";
import type { Counters } from "./counters.ts";
import type { Due, Turn } from "./flush.ts";

/** Frames of merged objects hold at most so many bytes, unless one object is longer. */
export const MAX_FRAME_BYTES = 65_536;

/** With less than a 32nd of MAX_QUEUE_BYTES unsent a peer is not behind. */
const BEHIND_SHARE = 32;

/** How a connection ended: by a close (`code`), by an error, or by the server. */
export interface End {
  by: "peer" | "error" | "server";
  code: number;
  reason: string;
}

/** What a connection needs from outside: one object for all of a registry. */
export interface ConnectionOwner {
  readonly turn: Turn;
  readonly counters: Counters;
  readonly limits: { maxQueueBytes: number; maxMessageBytes: number };
  /** Unix ms. */
  now(): number;
  /** The socket opened. */
  opened(connection: Connection): void;
  /** A message came; there only where each is logged. */
  heard?(connection: Connection, data: string | ArrayBuffer): void;
  /** It ended, on whichever came first; told once. */
  ended(connection: Connection, end: End): void;
  /** The runtime let the socket go; for a peer that never reads again this may never come. */
  gone(connection: Connection): void;
}

/** Who a connection is. */
export interface ConnectionIdentity {
  /** Unique among all connections of all processes. */
  id: string;
  /** The peer's address, for the log. */
  remote: string;
  slot: Slot;
  dialect: Dialect;
  kind: "echo" | "chat";
}

/** What a route does with its socket. */
export interface ConnectionHandler {
  /** The socket is open and counted in. */
  ready?(): void;
  text(text: string): void;
  binary(bytes: ArrayBuffer): void;
  /** The connection has ended. */
  left?(): void;
}

/** Objects that listen to events, as `addEventListener` takes them. */
const EVENTS = ["open", "message", "close", "error"] as const;

/**
 * One socket's life. Its end is told once, on whichever comes first.
 *
 * It listens to its socket itself: ten thousand idle sockets have no closures of ours.
 */
export class Connection implements Due, EventListenerObject {
  readonly id: string;
  readonly remote: string;
  readonly slot: Slot;
  readonly dialect: Dialect;
  readonly kind: "echo" | "chat";
  /** Set before the socket opens. */
  handler?: ConnectionHandler;
  /** The room of its URL, whose binary frames it gets. */
  homeRoom?: string;
  /** How many rooms it hears: with one, and nothing of its own due, it takes the room's frame as it is. */
  roomCount = 0;
  hasEnded = false;
  #socket: Socket;
  #owner: ConnectionOwner;
  #isOpen = false;
  #isGone = false;
  #knowsLimits = false;
  /** Objects due at the end of the turn, joined, and their bytes. */
  #due = "";
  #dueBytes = 0;
  /** There only while the peer is behind. */
  #backlog?: Backlog;

  constructor(
    socket: Socket,
    owner: ConnectionOwner,
    { id, remote, slot, dialect, kind }: ConnectionIdentity,
  ) {
    this.#socket = socket;
    this.#owner = owner;
    this.id = id;
    this.remote = remote;
    this.slot = slot;
    this.dialect = dialect;
    this.kind = kind;
    socket.binaryType = "arraybuffer";
    for (const type of EVENTS) socket.addEventListener(type, this);
  }

  /** Hears the socket's events. */
  handleEvent(event: Event): void {
    switch (event.type) {
      case "message":
        return this.#receive((event as MessageEvent).data);
      case "open":
        this.#isOpen = true;
        this.#socket.removeEventListener("open", this);
        return this.#owner.opened(this);
      case "close": {
        const { code, reason, wasClean } = event as CloseEvent;
        this.#end({ by: wasClean ? "peer" : "error", code, reason: reason || "closed" });
        return this.#go();
      }
      case "error":
        this.#end({ by: "error", code: 1006, reason: (event as ErrorEvent).message });
        if (!this.#isOpen) this.#go();
    }
  }

  /** What its first `welcome` says of the server's limits, and no later one. */
  untoldLimits(): { messageBytes: number } | undefined {
    if (this.#knowsLimits) return undefined;
    this.#knowsLimits = true;
    return { messageBytes: this.#owner.limits.maxMessageBytes };
  }

  /** Bytes not yet handed to the kernel, with what waits to be merged. */
  get unsentBytes(): number {
    return this.#socket.bufferedAmount + this.#dueBytes;
  }

  /** Sends a frame now; a peer that is too far behind is evicted. */
  send(frame: string | Uint8Array<ArrayBuffer> | ArrayBuffer): void {
    if (this.hasEnded) return;
    const { counters, limits } = this.#owner;
    counters.framesOut++;
    counters.bytesOut += typeof frame === "string" ? frame.length : frame.byteLength;
    try {
      this.#socket.send(frame);
    } catch (error) {
      this.#end({ by: "error", code: 1006, reason: String(error) });
      return;
    }
    const { bufferedAmount } = this.#socket;
    if (bufferedAmount < limits.maxQueueBytes / BEHIND_SHARE) this.#backlog = undefined;
    else {
      const now = this.#owner.now();
      this.#backlog ??= new Backlog(now, limits.maxQueueBytes);
      const weight = this.#backlog.weigh(bufferedAmount, frame, now);
      if (weight > limits.maxQueueBytes) this.close("tooSlow");
    }
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
    this.#owner.counters.closes[why]++;
    this.#end({ by: "server", code, reason });
    this.#socket.close(code, reason);
  }

  #merge(objects: string, bytes: number): void {
    if (this.hasEnded) return;
    if (this.#due !== "" && this.#dueBytes + 1 + bytes > MAX_FRAME_BYTES) {
      this.flush();
    }
    if (this.#due === "") {
      this.#owner.turn.addConnection(this);
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
    const { counters, limits: { maxMessageBytes } } = this.#owner;
    this.#owner.heard?.(this, data);
    if (typeof data === "string") {
      counters.bytesIn += data.length;
      if (exceedsBytes(data, maxMessageBytes)) this.close("tooBig");
      else this.handler?.text(data);
    } else {
      counters.bytesIn += data.byteLength;
      if (data.byteLength > maxMessageBytes) this.close("tooBig");
      else this.handler?.binary(data);
    }
  }

  #end(end: End): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.#due = "";
    this.#dueBytes = 0;
    this.handler?.left?.();
    this.#owner.ended(this, end);
  }

  /** Told once. The runtime's idle timer holds a dropped socket for a while: not ours with it. */
  #go(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    for (const type of EVENTS) this.#socket.removeEventListener(type, this);
    this.#owner.gone(this);
  }
}
