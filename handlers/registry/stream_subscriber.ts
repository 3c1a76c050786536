/** Subscribers that read their frames from a bounded stream: event streams, and programs. */
import { setImmediate } from "node:timers";
import { OPEN_RIGHTS } from "../access/grants.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { type Dialect, v1 } from "../protocol/encode.ts";
import type { RoomObject } from "../protocol/room_event.ts";
import { byteLength } from "../util/bytes.ts";
import { OversizedFrames } from "./backlog.ts";
import type { Registry } from "./registry.ts";
import { type End, type Frame, Subscriber, type SubscriberOptions } from "./subscriber.ts";

/** What a stream is made of: its frames as they are, or encoded. */
type Chunk = string | Uint8Array<ArrayBuffer>;

/** A subscriber whose transport is a stream. */
export abstract class StreamSubscriber<T extends Chunk> extends Subscriber {
  /** Its frames. Cancelling the stream ends the subscriber. */
  readonly frames: ReadableStream<T>;
  protected controller!: ReadableStreamDefaultController<T>;
  /** There since it fell behind. */
  #oversized?: OversizedFrames;

  constructor(registry: Registry, options: SubscriberOptions) {
    super(registry, options);
    this.frames = new ReadableStream<T>({
      start: (controller) => {
        this.controller = controller;
      },
      cancel: () => this.cancel(),
    }, { highWaterMark: registry.limits.maxQueueBytes, size: sizeOf });
  }

  /** A frame as its reader takes it. */
  protected abstract encode(frame: string): T;

  get unsentBytes(): number {
    return this.registry.limits.maxQueueBytes - (this.controller.desiredSize ?? 0);
  }

  /** Its reader has gone, or there is nothing to give it. */
  cancel(): void {
    this.end({ by: "peer", code: 1000, reason: "closed" });
  }

  /** Ends it; its reader gets what it has not read yet, and the end. */
  stop(): void {
    if (this.hasEnded) return;
    this.cancel();
    this.controller.close();
  }

  send(frame: Frame): void {
    if (this.hasEnded || typeof frame !== "string") return;
    this.mayBeUnsent = true;
    this.controller.enqueue(this.encode(frame));
    const { unsentBytes, registry: { queueLimit, clock } } = this;
    if (unsentBytes <= queueLimit) {
      this.#oversized = undefined;
      return;
    }
    this.#oversized ??= new OversizedFrames();
    const bytes = byteLength(frame);
    const counted = this.#oversized.leaveOut(unsentBytes, bytes, queueLimit, clock.elapsedMs());
    if (counted > queueLimit) this.close("tooSlow");
  }

  protected closeTransport(why: keyof typeof CLOSE): void {
    // An error drops what is queued; a close would keep it for a client that never reads.
    if (why === "tooSlow") this.controller.error(new Error(CLOSE.tooSlow.reason));
    else this.controller.close();
  }
}

function sizeOf(chunk: Chunk): number {
  return typeof chunk === "string" ? byteLength(chunk) : chunk.byteLength;
}

const ONE_BY_ONE: Dialect = {
  ...v1,
  isMerged: false,
  stateful: {
    ...v1.stateful,
    isMerged: false,
    withheld: { ...v1.stateful.withheld, isMerged: false },
  },
};

/** What a program reads before all others have their turn. */
const READS_PER_TURN = 100;

/** A program that subscribes by `parley.subscribe`: it takes no slot, and hears the objects of `parley.v1` one by one. */
export class Program extends StreamSubscriber<string> {
  /** @param onEnd called when it ends, whether its frames were read or not */
  constructor(registry: Registry, readonly onEnd: () => void) {
    const visitor = { remote: "program", address: "", rights: OPEN_RIGHTS };
    super(registry, { ...visitor, slot: { release() {} }, dialect: ONE_BY_ONE });
    // There is no peer that could fail to open.
    this.release();
  }

  protected encode(frame: string): string {
    return frame;
  }

  /** Ends the subscription with an error for its reader, if there is one. */
  fail(error: unknown): void {
    if (this.hasEnded) return;
    this.cancel();
    this.controller.error(error);
  }

  /** What it hears. Unlike a generator this ends while somebody waits for it, and before it has begun. */
  objects(): AsyncIterableIterator<RoomObject> {
    const reader = this.frames.getReader();
    let count = 0;
    const end = () => ({ value: undefined, done: true as const });
    return {
      async next() {
        // A program that answers whatever it hears, itself too, lets the others run all the same.
        if (++count % READS_PER_TURN === 0) await new Promise<void>((go) => setImmediate(go));
        const { value, done } = await reader.read();
        return done ? end() : { value: JSON.parse(value) };
      },
      return: () => reader.cancel().then(end, end),
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  protected override end(end: End): void {
    super.end(end);
    this.onEnd();
  }

  protected override closeTransport(why: keyof typeof CLOSE): void {
    const { reason } = CLOSE[why];
    this.controller.error(new Error(`Cannot go on with the subscription: ${reason}`));
  }
}
