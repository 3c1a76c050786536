/**
 * A store of the durable engine that a test holds back, breaks and opens again.
 *
 * @module
 */
import type { Changes } from "../../handlers/engine/journal.ts";
import type { TakeEntry } from "../../handlers/engine/sqlite.ts";
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
  #log = new Map<number, string>();
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
    for (const [row, entry] of changes.puts) this.#log.set(row, entry);
    if (this.skipsDeletes) return;
    for (const row of changes.deletes) this.#log.delete(row);
  }

  close(): Promise<void> {
    this.isClosed = true;
    return Promise.resolve();
  }

  read(take: TakeEntry): void {
    const rows = [...this.#log].sort(([a], [b]) => a - b);
    for (const [row, entry] of rows) take(row, JSON.parse(entry));
  }

  /** How many rows it has. */
  get size(): number {
    return this.#log.size;
  }

  /** What the end of the process leaves: a store with the rows that are committed now. */
  killed(): MemoryStore {
    const left = new MemoryStore();
    left.#log = new Map(this.#log);
    return left;
  }
}
