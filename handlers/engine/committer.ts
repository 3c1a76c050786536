/**
 * Batches of changes on their way to a store, and what has to wait for them.
 *
 * One batch is being committed; all that comes meanwhile is the next one. So the batches grow with
 * the load, and one commit of the disk serves all who wait.
 *
 * @module
 */
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import {
  type Changes,
  type Journal,
  noChanges,
  type Table,
  TABLE_NAMES,
  type Value,
} from "./journal.ts";
import type { Store } from "./store.ts";

/** Something that happens once everything before it is committed. */
export interface Effect {
  run(): void;
  /** Instead, if the store fails: the one who waits is answered. Without it, the effect waits on. */
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
/** Rows of each table that a batch deletes beside twice as many as it puts. */
const DELETES = 500;

interface Batch {
  changes: Changes;
  putCount: number;
  effects: Effect[];
}

/** Commits what is written down, in order, and runs effects behind it. */
export class Committer implements Journal {
  /** The store has failed and is tried again: what is asked now cannot be done. */
  isFailing = false;
  /** Bytes of the effects that have not run yet. */
  waitingBytes = 0;
  /** The number of the newest row. */
  lastRow = 0;
  #store?: Store;
  #next = newBatch();
  #inFlight?: Batch;
  #deletes = { rooms: new RowQueue(), chats: new RowQueue(), ids: new RowQueue() };
  #ready: Effect[] = [];
  #isRunning = false;
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

  nextRow(): number {
    return ++this.lastRow;
  }

  put(table: Table, row: number, ...values: Value[]): void {
    this.#next.changes.puts[table].push(row, ...values);
    this.#next.putCount++;
    this.#schedule();
  }

  delete(table: Table, row: number): void {
    this.#deletes[table].push(row);
    this.#schedule();
  }

  /** Whether nothing waits: an effect would run at once. */
  get isSettled(): boolean {
    return this.waitingBytes === 0 && this.#next.putCount === 0 && !this.#inFlight?.putCount;
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

  #schedule(): void {
    if (this.#isScheduled || this.#inFlight || !this.#store) return;
    this.#isScheduled = true;
    // Behind the turn of the event loop: what it brings is one batch, and one frame a listener.
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
    let deleteCount = 0;
    for (const table of TABLE_NAMES) {
      const rows = batch.changes.deletes[table] = this.#deletes[table].take(
        2 * batch.putCount + DELETES,
      );
      deleteCount += rows.length;
    }
    if (batch.putCount === 0) this.#enqueue(batch.effects.splice(0));
    if (batch.putCount + deleteCount === 0) return;
    this.#inFlight = batch;
    this.#commit(batch);
  }

  async #commit(batch: Batch): Promise<void> {
    this.#stopTimer = this.clock.after(SLOW_MS, () => this.#fail("the disk does not answer"));
    try {
      await this.#store!.commit(batch.changes);
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
    this.#enqueue(batch.effects);
    // The disk works while effects run.
    this.#flush();
    this.#run();
  }

  #enqueue(effects: Effect[]): void {
    for (const effect of effects) this.#ready.push(effect);
  }

  /** Runs what is ready, in slices. */
  #run(isNextSlice = false): void {
    if (this.#isRunning && !isNextSlice) return;
    this.#isRunning = true;
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
    if (this.#ready.length > 0) return void setImmediate(() => this.#run(true));
    this.#isRunning = false;
    if (this.isSettled) this.#onSettled?.();
  }

  /** Answers all who wait. Events wait on: they come when the batch is committed after all. */
  #fail(reason: string): void {
    if (!this.isFailing) this.log.error(`Cannot store: ${reason}`, { event: "store_failed" });
    this.isFailing = true;
    for (const batch of [this.#inFlight, this.#next]) {
      if (!batch) continue;
      const { effects } = batch;
      batch.effects = effects.filter(({ refuse }) => !refuse);
      for (const effect of effects) {
        if (!effect.refuse) continue;
        this.waitingBytes -= effect.bytes;
        effect.refuse();
      }
    }
    this.#onSettled?.();
  }
}

function newBatch(): Batch {
  return { changes: noChanges(), putCount: 0, effects: [] };
}

/** Numbers of rows, first in, first out. */
class RowQueue {
  #rows: number[] = [];
  #start = 0;

  push(row: number): void {
    this.#rows.push(row);
  }

  take(count: number): number[] {
    const rows = this.#rows.slice(this.#start, this.#start + count);
    this.#start += rows.length;
    if (this.#start * 2 > this.#rows.length) {
      this.#rows = this.#rows.slice(this.#start);
      this.#start = 0;
    }
    return rows;
  }
}
