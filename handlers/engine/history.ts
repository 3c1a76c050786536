/**
 * The kept messages of one room: a window on its order, bounded in count, age and bytes.
 *
 * @module
 */
import type { Chat } from "../protocol/room_event.ts";
import type { Budget, Droppable } from "./budget.ts";

/** The newest messages of a room, without a gap up to `seq`. */
export class History implements Droppable {
  /** The number of the newest message; 0 before the first. */
  seq = 0;
  /** Kept messages start at `#start`: taking from the front moves no memory until half is free. */
  #chats: Chat[] = [];
  #start = 0;
  #bytes = 0;

  constructor(
    readonly limits: { historySize: number; historySeconds: number },
    readonly budget: Budget,
  ) {}

  /** Appends the message that `seq` + 1 numbers. */
  append(chat: Chat): void {
    this.seq = chat.seq;
    if (this.limits.historySize === 0) return;
    this.#chats.push(chat);
    this.#count(cost(chat));
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
    this.#count(-cost(this.#chats[this.#start]));
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

  #count(bytes: number): void {
    const from = this.#bytes;
    this.#bytes += bytes;
    this.budget.bytes += bytes;
    this.budget.histories.move(this, from, this.#bytes);
  }

  get #length(): number {
    return this.#chats.length - this.#start;
  }
}

/** What a message is counted with: its text, in V8's wide form at worst, and its fields. */
function cost(chat: Chat): number {
  return 2 * chat.message.length + 200;
}
