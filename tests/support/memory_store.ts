/**
 * A store of the durable engine that a test holds back, breaks and opens again.
 *
 * @module
 */
import { type Changes, TABLE_NAMES, type Value, widthOf } from "../../handlers/engine/journal.ts";
import type { TakeRows } from "../../handlers/engine/sqlite.ts";
import type { Store } from "../../handlers/engine/store.ts";

/** Keeps what was committed; what was not is gone when it is opened again. */
export class MemoryStore implements Store {
  /** All changes that it was given, those that failed too. */
  readonly given: Changes[] = [];
  /** Why commits fail, while they do. */
  failure?: string;
  isClosed = false;
  /** Deletes may be committed late: here they never are. */
  skipsDeletes = false;
  readonly #tables = new Map(TABLE_NAMES.map((table) => [table, new Map<number, Value[]>()]));
  #gate?: PromiseWithResolvers<void>;

  /** Commits wait from now on, until {@link release}. */
  hold(): void {
    this.#gate ??= Promise.withResolvers();
  }

  release(): void {
    this.#gate?.resolve();
    this.#gate = undefined;
  }

  async commit(changes: Changes): Promise<void> {
    this.given.push(structuredClone(changes));
    await this.#gate?.promise;
    if (this.failure) throw new Error(this.failure);
    for (const [table, rows] of this.#tables) {
      const width = widthOf(table);
      const puts = changes.puts[table];
      for (let at = 0; at < puts.length; at += width) {
        rows.set(Number(puts[at]), puts.slice(at, at + width));
      }
      if (this.skipsDeletes) continue;
      for (const row of changes.deletes[table]) rows.delete(row);
    }
  }

  close(): Promise<void> {
    this.isClosed = true;
    return Promise.resolve();
  }

  /** The rows of all tables. */
  read(take: TakeRows): void {
    for (const [table, rows] of this.#tables) {
      take(table, [...rows.values()].sort(([a], [b]) => Number(a) - Number(b)));
    }
  }

  /** How many rows it has. */
  get size(): number {
    return this.#tables.values().reduce((sum, { size }) => sum + size, 0);
  }

  /** What the end of the process leaves: a store with the rows that are committed now. */
  killed(): MemoryStore {
    const left = new MemoryStore();
    for (const [table, rows] of this.#tables) left.#tables.set(table, new Map(rows));
    return left;
  }
}
