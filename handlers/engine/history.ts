/** The kept messages of one room: bounded in count, age and bytes. */
import type { Chat } from "../protocol/room_event.ts";
import type { Budget, Droppable } from "./budget.ts";
import type { RoomJournal } from "./journal.ts";
import type { RoomLimits } from "./room_rules.ts";

/** The newest messages of a room, without a gap up to `seq`. */
export class History implements Droppable {
  /** The number of the newest message; 0 before the first. */
  seq = 0;
  bytes = 0;
  /** Kept messages start at `#start`: taking from the front moves no memory until half is free. */
  #chats: Chat[] = [];
  /** The numbers of their rows, where there is a journal. */
  #rows: number[] = [];
  #start = 0;

  constructor(
    readonly limits: RoomLimits,
    readonly budget: Budget,
    readonly journal?: RoomJournal,
  ) {}

  /** Appends the message that `seq` + 1 numbers. */
  append(chat: Chat): void {
    this.seq = chat.seq;
    if (this.limits.historySize === 0) return this.journal?.putRoom(chat.seq);
    this.#push(chat, this.journal?.addChat(chat));
  }

  /** Appends a message that was kept before. Those before a gap are dropped. */
  restore(chat: Chat, row: number): void {
    if (chat.seq <= this.seq) return this.journal?.delete(row);
    if (chat.seq > this.seq + 1) this.clear();
    this.seq = chat.seq;
    this.#push(chat, row);
  }

  since(seq: number): Chat[] {
    const firstSeq = this.seq - this.#length + 1;
    return this.#chats.slice(this.#start + Math.max(0, seq + 1 - firstSeq));
  }

  expire(now: number): void {
    const keptSince = now - this.limits.historySeconds * 1_000;
    while (this.#length > 0 && this.#chats[this.#start].time < keptSince) this.dropOldest();
  }

  dropOldest(): boolean {
    if (!this.#shift()) return false;
    if (this.#length === 0) this.journal?.putRoom(this.seq);
    return true;
  }

  clear(): void {
    while (this.#shift());
  }

  #push(chat: Chat, row?: number): void {
    this.#chats.push(chat);
    if (row !== undefined) this.#rows.push(row);
    this.budget.histories.count(this, costOf(chat));
    if (this.#length > this.limits.historySize) this.dropOldest();
  }

  #shift(): boolean {
    if (this.#length === 0) return false;
    this.budget.histories.count(this, -costOf(this.#chats[this.#start]));
    this.journal?.delete(this.#rows[this.#start]);
    this.#start++;
    if (this.#start * 2 > this.#chats.length) {
      this.#chats = this.#chats.slice(this.#start);
      this.#rows = this.#rows.slice(this.#start);
      this.#start = 0;
    }
    return true;
  }

  get #length(): number {
    return this.#chats.length - this.#start;
  }
}

/** What a message is counted with: its text, in V8's wide form at worst, and its fields. */
function costOf(chat: Chat): number {
  return 2 * chat.message.length + 200;
}
