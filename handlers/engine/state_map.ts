/** The state of one room: what each key is, and what changed since when. */
import type { Entry } from "../protocol/room_event.ts";

/** Keys of a room's state, where nothing else is set. */
export const DEFAULT_MAX_KEYS = 1_000;
/** Bytes of a room's keys, encoded, where nothing else is set. */
export const DEFAULT_MAX_STATE_BYTES = 262_144;
/** How many removals a room knows: behind them a subscriber gets the whole state. */
export const MAX_REMOVALS = 1_000;
/** The value of a removed key. */
export const REMOVED = "null";

/** Keys with their last change. An engine has one a room, and so has a process that subscribes to the state. */
export class StateMap {
  /** The number of the newest change. */
  rev = 0;
  #live = new Map<string, Entry>();
  /** The oldest removal first. */
  #removed = new Map<string, Entry>();
  /** In the order of the changes; what a later change of its key replaced is still in it for a while. */
  #order: Entry[] = [];
  /** Removals up to this rev may be forgotten. */
  forgottenRev = 0;

  get size(): number {
    return this.#live.size;
  }

  get(key: string): Entry | undefined {
    return this.#live.get(key);
  }

  /** Takes a change; `rev` is its number from now on. The answer is what it replaced. */
  apply(entry: Entry): Entry | undefined {
    const { key, value, rev } = entry;
    const live = this.#live.get(key);
    const known = live ?? this.#removed.get(key);
    this.rev = rev;
    if (known && !live) this.#removed.delete(key);
    if (value !== REMOVED) this.#live.set(key, entry);
    else {
      this.#live.delete(key);
      this.#removed.set(key, entry);
    }
    this.#order.push(entry);
    if (this.#order.length > 2 * (this.#live.size + this.#removed.size) + 100) {
      this.#order = this.#order.filter((entry) => this.#isLast(entry));
    }
    return known;
  }

  trim(): Entry | undefined {
    if (this.#removed.size <= MAX_REMOVALS) return;
    const [oldest] = this.#removed.values();
    this.#removed.delete(oldest.key);
    this.forgottenRev = oldest.rev;
    return oldest;
  }

  /** Takes a whole state, as another place tells it: of what went before it nothing is known. */
  reset(rev: number, entries: Entry[]): void {
    this.#live = new Map(entries.map((entry) => [entry.key, entry]));
    this.#removed.clear();
    this.#order = entries.toSorted((a, b) => a.rev - b.rev);
    this.forgottenRev = this.rev = rev;
  }

  /** Whether everything that changed behind `rev` is known. */
  knows(rev: number): boolean {
    return rev <= this.rev && rev >= this.forgottenRev;
  }

  /** The last change of each key that changed behind `rev`, which is {@link knows known}, in their order. */
  since(rev: number): Entry[] {
    let first = this.#order.length;
    while (first > 0 && this.#order[first - 1].rev > rev) first--;
    return this.#order.slice(first).filter((entry) => this.#isLast(entry));
  }

  entries(): Entry[] {
    return [...this.#live.values()].sort((a, b) => a.key < b.key ? -1 : 1);
  }

  known(): Entry[] {
    return [...this.#live.values(), ...this.#removed.values()];
  }

  #isLast(entry: Entry): boolean {
    return (this.#live.get(entry.key) ?? this.#removed.get(entry.key)) === entry;
  }
}
