/** How a room's frames reach its subscribers of one dialect: each at once, or merged in batches. */
import { byteLength } from "../util/bytes.ts";
import type { PendingRoom } from "./flush.ts";
import { PendingFrame } from "./pending_frame.ts";
import type { Registry } from "./registry.ts";
import type { Subscriber } from "./subscriber.ts";

/** What reaches a room's subscribers of one dialect. */
export type FanOut = DirectFanOut | MergedFanOut;

/** What a {@link FanOut} works with. `fail` is called with what a subscriber threw: the others get their frame all the same. */
export type FanOutOptions = Pick<Registry, "counters" | "turn" | "fail">;

/** Subscribers that get each object as a frame of its own, at once. */
export class DirectFanOut extends Set<Subscriber> {
  constructor(readonly options: FanOutOptions) {
    super();
  }

  /** Gives all of them an object in their dialect. */
  push(object: string): void {
    this.options.counters.deliveries += this.size;
    for (const subscriber of this) {
      try {
        subscriber.send(object);
      } catch (error) {
        this.options.fail(subscriber, error);
      }
    }
  }

  flush(): void {}
}

/**
 * Subscribers that are written to in one turn. What comes while the rest of a large room waits still
 * gets into their frames: fewer writes a message. Of 4 to 128 this was fastest (`deno task bench`).
 */
export const BATCH_SIZE = 24;

/** In a large room so many full frames wait for their turn. */
const MAX_FULL_FRAMES = 4;

/** Merges what a turn brings into frames, and writes a large room's in several turns. */
export class MergedFanOut implements PendingRoom {
  #batches: Batch[] = [];
  #batchOf = new Map<Subscriber, Batch>();
  #next = 0;
  #isScheduled = false;
  #lastObject = 0;

  constructor(readonly options: FanOutOptions) {}

  get size(): number {
    return this.#batchOf.size;
  }

  add(subscriber: Subscriber): void {
    let batch = this.#batches.find(({ size }) => size < BATCH_SIZE);
    if (!batch) this.#batches.push(batch = new Batch(this.options));
    batch.add(subscriber);
    this.#batchOf.set(subscriber, batch);
  }

  delete(subscriber: Subscriber): void {
    const batch = this.#batchOf.get(subscriber);
    if (!batch) return;
    this.#batchOf.delete(subscriber);
    batch.delete(subscriber);
    if (batch.size === 0) this.#batches = this.#batches.filter((other) => other !== batch);
  }

  push(object: string): void {
    const bytes = byteLength(object);
    // All of a large room at once would fill the memory before the system takes any of it.
    const maxFull = this.#batches.length > 1 ? MAX_FULL_FRAMES : 0;
    this.#lastObject++;
    let fresh: BatchFrame | undefined;
    for (const batch of this.#batches) {
      const { last } = batch;
      if (last?.lastObject === this.#lastObject) continue;
      if (last?.fits(bytes)) last.append(object, bytes, this.#lastObject);
      else {
        if (!fresh) (fresh = new BatchFrame()).append(object, bytes, this.#lastObject);
        batch.push(fresh, maxFull);
      }
    }
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.options.turn.addRoom(this);
  }

  flush(): void {
    for (const batch of this.#batches) batch.flush();
  }

  /** Flushes one full batch, or several small ones; returns whether more is pending. */
  flushSome(): boolean {
    const batches = this.#batches;
    const first = this.#next;
    let count = 0;
    for (let i = 0; i < batches.length && count < BATCH_SIZE; i++) {
      const at = (first + i) % batches.length;
      if (!batches[at].isPending) continue;
      count += batches[at].size;
      batches[at].flushFrame();
      this.#next = at + 1;
    }
    // Meanwhile others may have come.
    return this.#isScheduled = this.#batches.some(({ isPending }) => isPending);
  }
}

/** A frame that is pending, the same one for all batches that had nothing pending when it began. */
class BatchFrame extends PendingFrame {
  /** Subscribers that came in its middle, with the offset at which their part begins. */
  readonly late = new Map<Subscriber, number>();
  /** The number of its last object. */
  lastObject = 0;

  append(object: string, bytes: number, number: number): void {
    this.add(object, bytes);
    this.lastObject = number;
  }
}

/** Some subscribers, and the frames that are pending for all of them. */
class Batch {
  #subscribers = new Set<Subscriber>();
  /** Oldest first; the last may still be added to. */
  #frames: BatchFrame[] = [];
  #isFlushing = false;

  constructor(readonly options: FanOutOptions) {}

  get size(): number {
    return this.#subscribers.size;
  }

  get isPending(): boolean {
    return this.#frames.length > 0;
  }

  get last(): BatchFrame | undefined {
    return this.#frames.at(-1);
  }

  /** Adds a subscriber: what is pending already is not for it. */
  add(subscriber: Subscriber): void {
    this.#subscribers.add(subscriber);
    for (const { late, text } of this.#frames) late.set(subscriber, text.length + 1);
  }

  /** Takes a subscriber out: it gets its part of what is pending, unless it has ended. */
  delete(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    for (const { text, bytes, late } of this.#frames) {
      if (!subscriber.hasEnded) this.#give(subscriber, text, bytes, late.get(subscriber));
      late.delete(subscriber);
    }
  }

  /** Begins another frame. Of those before, `maxFull` wait for their turn; one more goes out at once. */
  push(frame: BatchFrame, maxFull: number): void {
    // While it flushes, an eviction's status may not overtake the frame.
    if (!this.#isFlushing && this.#frames.length > maxFull) this.flushFrame();
    this.#frames.push(frame);
  }

  flush(): void {
    for (let count = this.#frames.length; count > 0; count--) this.flushFrame();
  }

  /** Gives all of them the oldest frame, or their part of it. */
  flushFrame(): void {
    const frame = this.#frames.shift();
    if (!frame) return;
    const { counters } = this.options;
    // Other batches may still add to it.
    const { text, bytes, count, late } = frame;
    counters.batchSizes.add(count);
    counters.deliveries += count * this.size;
    this.#isFlushing = true;
    for (const subscriber of this.#subscribers) {
      this.#give(subscriber, text, bytes, late.size === 0 ? undefined : late.get(subscriber));
    }
    this.#isFlushing = false;
  }

  #give(subscriber: Subscriber, text: string, bytes: number, from?: number): void {
    const part = from === undefined ? text : text.slice(from);
    if (part === "") return;
    try {
      subscriber.enqueue(part, from === undefined ? bytes : byteLength(part));
    } catch (error) {
      this.options.fail(subscriber, error);
    }
  }
}
