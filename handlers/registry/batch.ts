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

  /** Nothing is pending. */
  flush(): void {}
}

/**
 * Subscribers that are written to in one turn. What comes while the rest of a large room waits still
 * gets into their frames: fewer writes a message. Of 4 to 128 this was fastest (`deno task bench`).
 */
export const BATCH_SIZE = 24;

/** Merges what a turn brings into frames, and writes a large room's in several turns. */
export class MergedFanOut implements PendingRoom {
  #batches: Batch[] = [];
  #batchOf = new Map<Subscriber, Batch>();
  /** The batch that is written to next. */
  #next = 0;
  #isScheduled = false;

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
    for (const batch of this.#batches) batch.push(object, bytes);
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
      batches[at].flush();
      this.#next = at + 1;
    }
    return this.#isScheduled = batches.some(({ isPending }) => isPending);
  }
}

/** Some subscribers, and the text that is pending for all of them. */
class Batch {
  #subscribers = new Set<Subscriber>();
  #pending = new PendingFrame();
  /** Subscribers that came while something was pending, with the offset at which their part begins. */
  #late = new Map<Subscriber, number>();
  #isFlushing = false;

  constructor(readonly options: FanOutOptions) {}

  get size(): number {
    return this.#subscribers.size;
  }

  get isPending(): boolean {
    return this.#pending.count > 0;
  }

  /** Adds a subscriber: what is pending already is not for it. */
  add(subscriber: Subscriber): void {
    this.#subscribers.add(subscriber);
    if (this.isPending) this.#late.set(subscriber, this.#pending.text.length + 1);
  }

  /** Takes a subscriber out: it gets its part of what is pending, unless it has ended. */
  delete(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    const { text, bytes } = this.#pending;
    if (this.isPending && !subscriber.hasEnded) {
      this.#give(subscriber, text, bytes, this.#late.get(subscriber));
    }
    this.#late.delete(subscriber);
  }

  push(object: string, bytes: number): void {
    // While it flushes, an eviction's status may not overtake the frame.
    if (!this.#isFlushing && !this.#pending.fits(bytes)) this.flush();
    this.#pending.add(object, bytes);
  }

  /** Gives all of them the frame, or their part of it. */
  flush(): void {
    if (!this.isPending) return;
    const { counters } = this.options;
    const { text, bytes, count } = this.#pending;
    counters.batchSizes.add(count);
    counters.deliveries += count * this.size;
    const late = this.#late;
    if (late.size > 0) this.#late = new Map();
    this.#pending.clear();
    this.#isFlushing = true;
    for (const subscriber of this.#subscribers) {
      const from = late.size === 0 ? undefined : late.get(subscriber);
      this.#give(subscriber, text, bytes, from);
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
