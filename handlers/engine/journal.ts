/**
 * What the memory engine keeps, as entries of a log: how the durable engine learns of every change.
 *
 * An entry is put, replaced or deleted by its number, its row, which no other entry ever has. So a
 * batch of changes can be repeated, and the log needs no index.
 */
import type { Chat } from "../protocol/room_event.ts";
import type { IdempotencyKey } from "./engine.ts";
import type { KeptEntry } from "./room_state.ts";

/** Something that is kept. `room` is the row of the room's own entry, which comes before. */
export type Entry =
  /**
   * Messages up to `seq` are not kept, and removals of keys up to `forgottenRev`; what is kept tells
   * the room's newer numbers itself.
   */
  | [kind: "room", name: string, epoch: string, seq: number, forgottenRev?: number]
  | [kind: "chat", room: number, seq: number, time: number, sender: string, message: string]
  | [kind: "id", room: number, session: string, id: string, ...KeptId]
  /** The last change of a key; a removal has the value `null`. */
  | [kind: "key", room: number, key: string, value: string, sender: string, ...KeptChange];

type KeptId = [digest: string | null, seq: number, expiresAt: number];
type KeptChange = [
  time: number,
  rev: number,
  expiresAt: number | null,
  isBound: boolean,
  owner?: string | null,
];

/** Changes to commit together. */
export interface Changes {
  /** Entries, as JSON, by row. */
  puts: Map<number, string>;
  /** Rows that are deleted after the puts. */
  deletes: number[];
}

/** Where what is kept is written down. */
export interface Journal {
  /** The newest row's number; a new row has the next one. */
  lastRow: number;
  put(row: number, entry: Entry): void;
  /** Deletes a row, now or later: until then a reader has to know that it is over. */
  delete(row: number): void;
}

/** What one room writes down. */
export class RoomJournal {
  #seq = 0;
  #forgottenRev = 0;

  constructor(
    readonly journal: Journal,
    readonly name: string,
    readonly epoch: string,
    readonly row: number,
  ) {}

  /** Messages up to `seq` are not kept. */
  putRoom(seq: number): void {
    this.#seq = seq;
    this.journal.put(this.row, ["room", this.name, this.epoch, seq, this.#forgottenRev]);
  }

  /** Removals of keys up to `rev` are not kept. */
  putForgotten(rev: number): void {
    this.#forgottenRev = rev;
    this.putRoom(this.#seq);
  }

  restore(seq: number, forgottenRev: number): void {
    this.#seq = seq;
    this.#forgottenRev = forgottenRev;
  }

  // These three answer with the row.

  addKey({ key, value, sender, time, rev, expiresAt, member, owner }: KeptEntry): number {
    const change = [key, value, sender, time, rev, expiresAt ?? null] as const;
    return this.#add(["key", this.row, ...change, member !== undefined, owner ?? null]);
  }

  addChat({ seq, time, sender, message }: Chat): number {
    return this.#add(["chat", this.row, seq, time, sender, message]);
  }

  addId({ session, id, digest }: IdempotencyKey, seq: number, expiresAt: number): number {
    return this.#add(["id", this.row, session, id, digest ?? null, seq, expiresAt]);
  }

  delete(row: number): void {
    this.journal.delete(row);
  }

  #add(entry: Entry): number {
    const row = ++this.journal.lastRow;
    this.journal.put(row, entry);
    return row;
  }
}
