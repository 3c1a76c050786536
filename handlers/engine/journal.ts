/**
 * What the memory engine keeps, as rows: how the durable engine learns of every change.
 *
 * A row is written, replaced or deleted by its number, which no other row ever has. So a batch of
 * changes can be repeated, and no table needs an index.
 *
 * @module
 */

/** What a column holds. */
export type Value = string | number | null;

/** The columns of each table behind the row's number. `room` is the number of a row in `rooms`. */
export const TABLES = {
  /** `seq` counts where no kept message tells a higher one. */
  rooms: { name: "TEXT", epoch: "TEXT", seq: "INTEGER" },
  chats: { room: "INTEGER", seq: "INTEGER", time: "INTEGER", sender: "TEXT", message: "TEXT" },
  ids: {
    room: "INTEGER",
    session: "TEXT",
    id: "TEXT",
    digest: "TEXT",
    seq: "INTEGER",
    expires_at: "INTEGER",
  },
} as const;

/** The name of a table. */
export type Table = keyof typeof TABLES;

/** The tables' names; a table comes behind those that it refers to. */
export const TABLE_NAMES = Object.keys(TABLES) as Table[];

/** How many values a row has, its number included. */
export function widthOf(table: Table): number {
  return Object.keys(TABLES[table]).length + 1;
}

/** Changes to commit together: whole rows one behind the other, each with its number first. */
export interface Changes {
  puts: Record<Table, Value[]>;
  /** Numbers of rows. They are deleted after the puts. */
  deletes: Record<Table, number[]>;
}

/** No changes. */
export function noChanges(): Changes {
  return { puts: { rooms: [], chats: [], ids: [] }, deletes: { rooms: [], chats: [], ids: [] } };
}

/** Writes down what is kept. */
export interface Journal {
  /** A number for a new row. */
  nextRow(): number;
  /** Writes a row, or replaces it. */
  put(table: Table, row: number, ...values: Value[]): void;
  /** Deletes a row, now or later: until then the reader has to know that it is over. */
  delete(table: Table, row: number): void;
}

/** What one room writes down. */
export class RoomJournal {
  /** @param row the number of the room's own row */
  constructor(
    readonly journal: Journal,
    readonly row: number,
    readonly name: string,
    readonly epoch: string,
  ) {}

  /** Writes the room's own row: `seq` is its newest number, where no kept message has it. */
  putRoom(seq: number): void {
    this.journal.put("rooms", this.row, this.name, this.epoch, seq);
  }

  /** Adds a row of the room to a table; gives its number. */
  add(table: Exclude<Table, "rooms">, ...values: Value[]): number {
    const row = this.journal.nextRow();
    this.journal.put(table, row, this.row, ...values);
    return row;
  }

  delete(table: Table, row: number): void {
    this.journal.delete(table, row);
  }
}
