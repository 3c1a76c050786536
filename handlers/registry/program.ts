/** A program that hears a room by `parley.subscribe`: a subscriber without a client. */
import { OPEN_RIGHTS } from "../access/grants.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { type Dialect, v1 } from "../protocol/encode.ts";
import { byteLength } from "../util/bytes.ts";
import type { Registry } from "./registry.ts";
import { type Frame, Subscriber } from "./subscriber.ts";

/** The objects of `parley.v1`, each by itself. */
const OBJECTS: Dialect = { ...v1, isMerged: false };

/** A program takes no place from clients. */
const NO_SLOT = { release() {} };

/** One subscription of a program. */
export class Program extends Subscriber {
  /** The objects that it hears, as JSON text. Cancelling it ends the subscription. */
  readonly objects: ReadableStream<string>;
  #controller!: ReadableStreamDefaultController<string>;

  constructor(registry: Registry) {
    const visitor = { remote: "program", address: "", rights: OPEN_RIGHTS };
    super(registry, { ...visitor, slot: NO_SLOT, dialect: OBJECTS });
    // There is no peer that could fail to open.
    this.release();
    this.objects = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      cancel: () => this.end({ by: "peer", code: 1000, reason: "closed" }),
    }, { highWaterMark: registry.limits.maxQueueBytes, size: (text) => byteLength(text) });
  }

  get unsentBytes(): number {
    return this.registry.limits.maxQueueBytes - (this.#controller.desiredSize ?? 0);
  }

  send(frame: Frame): void {
    if (this.hasEnded || typeof frame !== "string") return;
    this.#controller.enqueue(frame);
    if (this.#controller.desiredSize! < 0) this.close("tooSlow");
  }

  /** Ends the subscription: its reader gets what it has not read yet, and the end. */
  stop(): void {
    if (this.hasEnded) return;
    this.end({ by: "server", code: 1000, reason: "closed" });
    this.#controller.close();
  }

  protected closeTransport(why: keyof typeof CLOSE): void {
    const { reason } = CLOSE[why];
    this.#controller.error(new Error(`Cannot go on with the subscription: ${reason}`));
  }
}
