/**
 * Batches of changes on their way to a store, and what has to wait for them.
 *
 * One batch is being committed; all that comes meanwhile is the next one. So the batches grow with
 * the load, and one commit of the disk serves all who wait.
 */
import { setImmediate } from "node:timers";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import type { Changes, Entry, Journal } from "./journal.ts";
import type { Store } from "./store.ts";

/** Something that happens once everything before it is committed. */
export interface Effect {
  run(): void;
  /** Instead, if the store fails. Without it, the effect waits on. */
  refuse?(): void;
  /** What it is counted with while it waits. */
  bytes: number;
}

/** How long until a batch that failed is tried again. */
const RETRY_MS = 1_000;
/** A store that takes longer for a batch counts as failed, until it answers. */
const SLOW_MS = 5_000;
/** How long effects may run before timers and sockets get their turn. */
const SLICE_MS = 10;
/** Rows that a batch deletes beside twice as many as it puts. */
const DELETES = 500;

interface Batch extends Changes {
  effects: Effect[];
}

/** Commits what is written down, in order, and runs effects behind it. */
export class Committer implements Journal {
  /** The store has failed and is tried again: what is asked now cannot be done. */
  isFailing = false;
  /** Bytes of the effects that have not run yet. */
  waitingBytes = 0;
  lastRow = 0;
  #store?: Store;
  #next = newBatch();
  #inFlight?: Batch;
  /** Rows to delete, the oldest first. */
  #deletes: number[] = [];
  #ready: Effect[] = [];
  #isScheduled = false;
  #isClosed = false;
  #stopTimer = () => {};
  #onSettled?: () => void;

  constructor(readonly clock: Clock, readonly log: Log) {}

  /** Begins to commit; what was written down before comes first. */
  start(store: Store): void {
    this.#store = store;
    this.#schedule();
  }

  put(row: number, entry: Entry): void {
    this.#next.puts.set(row, JSON.stringify(entry));
    this.#schedule();
  }

  delete(row: number): void {
    this.#deletes.push(row);
    this.#schedule();
  }

  /** Whether nothing waits: an effect would run at once. */
  get isSettled(): boolean {
    return this.waitingBytes === 0 && this.#next.puts.size === 0 && !this.#inFlight?.puts.size;
  }

  /** Runs an effect behind everything that was written down before. */
  after(effect: Effect): void {
    if (this.isSettled) return effect.run();
    this.waitingBytes += effect.bytes;
    this.#next.effects.push(effect);
    this.#schedule();
  }

  /** Commits what is left, if the store is well, and closes it. */
  async close(): Promise<void> {
    if (!this.isSettled && !this.isFailing) {
      await new Promise<void>((resolve) => this.#onSettled = resolve);
    }
    this.#isClosed = true;
    this.#stopTimer();
    await this.#store?.close().catch(() => {});
  }

  /** Goes on behind the turn of the event loop: what it brings is one batch, and one frame a listener. */
  #schedule(): void {
    if (this.#isScheduled || !this.#store) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#flush();
      this.#run();
    });
  }

  #flush(): void {
    if (this.#inFlight || this.#isClosed) return;
    const batch = this.#next;
    this.#next = newBatch();
    batch.deletes = this.#deletes.splice(0, 2 * batch.puts.size + DELETES);
    if (batch.puts.size === 0) this.#enqueueEffects(batch);
    if (batch.puts.size + batch.deletes.length > 0) this.#commit(batch);
  }

  async #commit(batch: Batch): Promise<void> {
    this.#inFlight = batch;
    const { puts, deletes } = batch;
    this.#stopTimer = this.clock.after(SLOW_MS, () => this.#fail("the disk does not answer"));
    try {
      await this.#store!.commit({ puts, deletes });
    } catch (error) {
      this.#stopTimer();
      this.#fail((error as Error).message);
      if (!this.#isClosed) this.#stopTimer = this.clock.after(RETRY_MS, () => this.#commit(batch));
      return;
    }
    this.#stopTimer();
    if (this.isFailing) this.log.info("The store works again", { event: "store_recovered" });
    this.isFailing = false;
    this.#inFlight = undefined;
    this.#enqueueEffects(batch);
    // The disk works while effects run.
    this.#flush();
    this.#run();
  }

  #enqueueEffects(batch: Batch): void {
    this.#ready = this.#ready.concat(batch.effects);
    batch.effects = [];
  }

  #run(): void {
    const end = performance.now() + SLICE_MS;
    let count = 0;
    while (count < this.#ready.length && performance.now() < end) {
      const effect = this.#ready[count++];
      try {
        effect.run();
      } catch (error) {
        this.log.error(`Cannot deliver: ${error}`, { event: "broken" });
      }
      this.waitingBytes -= effect.bytes;
    }
    this.#ready = this.#ready.slice(count);
    if (this.#ready.length > 0) this.#schedule();
    else if (this.isSettled) this.#onSettled?.();
  }

  /** Answers all who wait. Events wait on: they come when the batch is committed after all. */
  #fail(reason: string): void {
    if (!this.isFailing) this.log.error(`Cannot store: ${reason}`, { event: "store_failed" });
    this.isFailing = true;
    for (const batch of [this.#inFlight!, this.#next]) {
      const refused = batch.effects.filter(({ refuse }) => refuse);
      batch.effects = batch.effects.filter(({ refuse }) => !refuse);
      for (const effect of refused) {
        this.waitingBytes -= effect.bytes;
        effect.refuse!();
      }
    }
    this.#onSettled?.();
  }
}

function newBatch(): Batch {
  return { puts: new Map(), deletes: [], effects: [] };
}
