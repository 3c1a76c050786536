/**
 * What a store has, made rooms again.
 *
 * @module
 */
import type { Journal, Table, Value } from "./journal.ts";
import type { MemoryRoom, MemoryRooms } from "./memory_rooms.ts";

/** Takes a store's rows, each table in order and `rooms` first, and fills the rooms of a memory engine. */
export class Restorer {
  /** The highest number of a row that the store has or refers to. */
  lastRow = 0;
  #rooms = new Map<number, { room: MemoryRoom; seq: number; lastRow: number }>();

  constructor(readonly rooms: MemoryRooms, readonly journal: Journal, readonly now: number) {}

  /** Takes whole rows, each with its number first. */
  take(table: Table, rows: Value[][]): void {
    const take = this.#takers[table];
    for (const values of rows) {
      const row = Number(values[0]);
      const room = table === "rooms" ? 0 : Number(values[1]);
      this.lastRow = Math.max(this.lastRow, row, room);
      if (!take(row, values)) this.journal.delete(table, row);
    }
    this.rooms.makeSpace();
  }

  /** Ends it: from now on the rooms may be used. */
  end(): void {
    const restored = [...this.#rooms.values()].sort((a, b) => a.lastRow - b.lastRow);
    for (const { room, seq } of restored) {
      room.history.restoreSeq(seq);
      this.rooms.touch(room);
    }
    this.rooms.restored();
  }

  /** How a row of each table is taken; they tell whether it is still of use. */
  readonly #takers: Record<Table, (row: number, values: Value[]) => boolean> = {
    rooms: (row, [, name, epoch, seq]) => {
      // An older room of the same name was dropped, which the store has not done yet.
      const older = this.rooms.get(String(name))?.journal?.row;
      if (older !== undefined) this.#rooms.delete(older);
      const room = this.rooms.restore(String(name), String(epoch), row);
      this.#rooms.set(row, { room, seq: Number(seq), lastRow: row });
      return true;
    },
    chats: (row, [, owner, seq, time, sender, message]) => {
      const found = this.#rooms.get(Number(owner));
      if (!found) return false;
      found.lastRow = row;
      found.room.history.restore({
        seq: Number(seq),
        time: Number(time),
        sender: String(sender),
        message: String(message),
      }, row);
      return true;
    },
    ids: (row, [, owner, session, id, digest, seq, expiresAt]) => {
      const found = this.#rooms.get(Number(owner));
      if (!found || Number(expiresAt) <= this.now) return false;
      const key = { session: String(session), id: String(id) };
      found.room.ids.restore(
        digest === null ? key : { ...key, digest: String(digest) },
        Number(seq),
        Number(expiresAt),
        row,
      );
      return true;
    },
  };
}
