/** What a store has, made rooms again. */
import type { Journal } from "./journal.ts";
import type { MemoryRoom } from "./memory_room.ts";
import { LOST_MEMBER, type MemoryRooms } from "./memory_rooms.ts";
import { encodedBytes, type KeptEntry } from "./room_state.ts";
import type { TakeEntry } from "./sqlite.ts";

/** Fills the rooms of a memory engine; what is of no use any more is deleted. */
export function restoreInto(rooms: MemoryRooms, journal: Journal): TakeEntry {
  const byRow = new Map<number, MemoryRoom>();
  return (row, entry) => {
    journal.lastRow = row;
    if (entry[0] === "room") {
      const [, name, epoch, seq, forgottenRev] = entry;
      byRow.set(row, rooms.restore(name, epoch, seq, row, forgottenRev));
      return;
    }
    const room = byRow.get(entry[1]);
    if (!room) return journal.delete(row);
    if (entry[0] === "chat") {
      const [, , seq, time, sender, message] = entry;
      room.history.restore({ seq, time, sender, message }, row);
      rooms.shares.setEmpty(room, true);
      rooms.makeSpace();
    } else if (entry[0] === "key") {
      const [, , key, value, sender, time, rev, expiresAt, isBound, owner] = entry;
      const bytes = encodedBytes(key, value, sender);
      const kept: KeptEntry = { key, value, sender, time, rev, row, bytes };
      if (expiresAt !== null) kept.expiresAt = expiresAt;
      if (isBound) kept.member = LOST_MEMBER;
      if (typeof owner === "string") kept.owner = owner;
      room.openState().put(kept);
      rooms.shares.setEmpty(room, true);
    } else {
      const [, , session, id, digest, seq, expiresAt] = entry;
      room.ids.restore({ session, id, digest: digest ?? undefined }, seq, expiresAt, row);
    }
  };
}
