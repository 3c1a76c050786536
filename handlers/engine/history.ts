/**
 * The kept messages of one room: a window on its order, bounded in count, age and bytes.
 *
 * @module
 */
import type { Chat } from "./engine.ts";

/** Bytes in use by all rooms of an engine; histories and repeat tables add and take. */
export interface Budget {
  /** History and ids. */
  bytes: number;
  /** Ids alone: at most a quarter of `maxBytes`, so that ids cannot push out all history. */
  idBytes: number;
  readonly maxBytes: number;
}

/** The window on a room's order. */
export class History {
  /** The number of the newest message; 0 before the first. */
  seq = 0;
  /** Kept messages start at `#start`: taking from the front moves no memory until half is free. */
  #chats: Chat[] = [];
  #start = 0;

  constructor(
    readonly limits: { historySize: number; historySeconds: number },
    readonly budget: Budget,
  ) {}

  /** Appends the message that `seq` + 1 numbers. */
  append(chat: Chat): void {
    this.seq = chat.seq;
    if (this.limits.historySize === 0) return;
    this.#chats.push(chat);
    this.budget.bytes += cost(chat);
    if (this.#length > this.limits.historySize) this.dropOldest();
  }

  /** The kept messages behind `seq`, oldest first. */
  since(seq: number): Chat[] {
    const firstSeq = this.seq - this.#length + 1;
    return this.#chats.slice(this.#start + Math.max(0, seq + 1 - firstSeq));
  }

  /** Drops what is older than HISTORY_SECONDS. */
  expire(now: number): void {
    const keptSince = now - this.limits.historySeconds * 1_000;
    while (this.#length > 0 && this.#chats[this.#start].time < keptSince) {
      this.dropOldest();
    }
  }

  /** Drops the oldest message; tells whether there was one. */
  dropOldest(): boolean {
    if (this.#length === 0) return false;
    this.budget.bytes -= cost(this.#chats[this.#start]);
    this.#start++;
    if (this.#start * 2 > this.#chats.length) {
      this.#chats = this.#chats.slice(this.#start);
      this.#start = 0;
    }
    return true;
  }

  /** Gives all its bytes back to the budget. */
  clear(): void {
    while (this.dropOldest());
  }

  get #length(): number {
    return this.#chats.length - this.#start;
  }
}

/** What a message is counted with: its text, in V8's wide form at worst, and its fields. */
function cost(chat: Chat): number {
  return 2 * chat.message.length + 200;
}
