/** A subscriber over a WebSocket: bounded sends, merged frames, one end. */
import type { Socket } from "../access/handshake.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { byteLength, exceedsBytes } from "../util/bytes.ts";
import { Backlog } from "./backlog.ts";
import { PendingFrame } from "./pending_frame.ts";
import type { Registry } from "./registry.ts";
import { type End, type Frame, Subscriber, type SubscriberOptions } from "./subscriber.ts";

/** With less than a 32nd of MAX_QUEUE_BYTES unsent a peer is not behind. */
const BEHIND_SHARE = 32;

const EVENTS = ["message", "close", "error"] as const;

/** One socket, a class a route. It listens to the socket's events itself: an idle socket has no closures of ours. */
export abstract class Connection extends Subscriber implements EventListenerObject {
  readonly #socket: Socket;
  /** Objects that go out when the turn ends; there only once something was. */
  #pending?: PendingFrame;
  #knowsLimits = false;
  /** There only while the peer is behind. */
  #backlog?: Backlog;

  constructor(socket: Socket, registry: Registry, options: SubscriberOptions) {
    super(registry, options);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    for (const type of ["open", ...EVENTS]) socket.addEventListener(type, this);
  }

  protected abstract text(text: string): void;
  protected abstract binary(bytes: ArrayBuffer): void;
  /** The socket is open and counted in. */
  protected ready(): void {}

  handleEvent(event: Event): void {
    switch (event.type) {
      case "message":
        return this.#receive((event as MessageEvent).data);
      case "open":
        this.#socket.removeEventListener("open", this);
        // It took too long: its slot was given back.
        if (this.hasEnded) return this.closeTransport("goingAway");
        if (this.open()) this.ready();
        return;
      case "close": {
        const { code, reason, wasClean } = event as CloseEvent;
        this.end({ by: wasClean ? "peer" : "error", code, reason: reason || "closed" });
        return this.release();
      }
      case "error":
        this.end({ by: "error", code: 1006, reason: (event as ErrorEvent).message });
        // No close follows an error before the opening.
        if (!this.isOpen) this.release();
    }
  }

  get unsentBytes(): number {
    return this.#socket.bufferedAmount + (this.#pending?.bytes ?? 0);
  }

  send(frame: Frame): void {
    if (this.hasEnded) return;
    const { clock, counters, queueLimit } = this.registry;
    counters.framesOut++;
    counters.bytesOut += typeof frame === "string" ? frame.length : frame.byteLength;
    this.mayBeUnsent = true;
    try {
      this.#socket.send(frame);
    } catch (error) {
      return this.end({ by: "error", code: 1006, reason: String(error) });
    }
    const { bufferedAmount } = this.#socket;
    if (bufferedAmount < queueLimit / BEHIND_SHARE) {
      this.#backlog = undefined;
      return;
    }
    const now = clock.elapsedMs();
    this.#backlog ??= new Backlog(now, queueLimit);
    if (this.#backlog.weigh(bufferedAmount, frame, now) > queueLimit) this.close("tooSlow");
  }

  override firstLimits(): { messageBytes: number } | undefined {
    if (this.#knowsLimits) return undefined;
    this.#knowsLimits = true;
    return { messageBytes: this.registry.limits.maxMessageBytes };
  }

  override notify(object: string): void {
    if (this.dialect.isMerged) this.#merge(object, byteLength(object));
    else this.send(object);
  }

  override enqueue(objects: string, bytes: number): void {
    // With one room and no object of its own pending it takes the room's frame as it is.
    if (this.rooms.size < 2 && !this.#pending?.count) this.send(objects);
    else this.#merge(objects, bytes);
  }

  override flush(): void {
    if (!this.#pending?.count) return;
    const { text } = this.#pending;
    this.#pending.clear();
    this.send(text);
  }

  protected override end(end: End): void {
    this.#pending = undefined;
    super.end(end);
  }

  protected closeTransport(why: keyof typeof CLOSE): void {
    this.#socket.close(CLOSE[why].code, CLOSE[why].reason);
  }

  protected override release(): void {
    // The runtime's idle timer holds a dropped socket for a while: us with it no longer.
    for (const type of EVENTS) this.#socket.removeEventListener(type, this);
    super.release();
  }

  #merge(objects: string, bytes: number): void {
    if (this.hasEnded) return;
    if (this.#pending && !this.#pending.fits(bytes)) this.flush();
    if (this.hasEnded) return;
    this.#pending ??= new PendingFrame();
    if (this.#pending.count === 0) this.registry.turn.addConnection(this);
    this.#pending.add(objects, bytes);
  }

  #receive(data: string | ArrayBuffer): void {
    // The runtime still hands out what came before it saw our close.
    if (this.hasEnded) return;
    const { counters, log, limits: { maxMessageBytes } } = this.registry;
    if (log.debug) this.#logMessage(data);
    const isText = typeof data === "string";
    counters.bytesIn += isText ? data.length : data.byteLength;
    const isTooBig = isText
      ? exceedsBytes(data, maxMessageBytes)
      : data.byteLength > maxMessageBytes;
    if (isTooBig) this.close("tooBig");
    else if (isText) this.text(data);
    else this.binary(data);
  }

  #logMessage(data: string | ArrayBuffer): void {
    const { remote, registry } = this;
    const isText = typeof data === "string";
    const size = isText ? byteLength(data) : data.byteLength;
    const text = `Client sent: ${remote}: ${isText ? "text" : "binary"} of ${size} bytes`;
    registry.log.debug?.(text, { event: "message", remote, isText, size });
  }
}
