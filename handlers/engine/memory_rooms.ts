/** The rooms of the memory engine: which there are, and how long they and their messages stay. */
import { isSharedRoom } from "../protocol/parse.ts";
import type { Clock } from "../util/clock.ts";
import { Budget } from "./budget.ts";
import type { Host } from "./engine.ts";
import { Expiry } from "./expiry.ts";
import { type Journal, RoomJournal } from "./journal.ts";
import { MemoryRoom, newEpoch } from "./memory_room.ts";
import { type HistoryLimits, type RoomLimits, roomLimits } from "./room_rules.ts";
import { byName, placeOf } from "../util/sorted.ts";
import { RoomShares } from "./room_shares.ts";
import type { ExpiringKey } from "./room_state.ts";

/** To whom restored keys are bound: the members themselves are not kept. */
export const LOST_MEMBER = "";

/** All rooms, within MAX_ROOMS. */
export class MemoryRooms {
  /** Bytes of messages, ids and state over all rooms. */
  readonly budget: Budget;
  /** Keys of all rooms that go by themselves. */
  readonly expiry: Expiry<ExpiringKey>;
  /** The highest {@link MemoryRoom.eventNumber} of those that are gone. */
  lastEventNumber = 0;
  /**
   * The epoch of rooms that are added. It changes when a room with messages goes, so that none
   * returns under its old epoch; a room that went unused does, without a gap for its clients.
   */
  #nextEpoch = newEpoch();
  readonly #rooms = new Map<string, MemoryRoom>();
  readonly shares: RoomShares;
  /** The rooms with a host, by name, but for those whose host has come or gone since. */
  #hosted: MemoryRoom[] = [];
  readonly #changed = new Set<MemoryRoom>();
  readonly #limitsOf: (room: string) => Required<RoomLimits>;

  /**
   * @param journal where changes are written down; the memory engine alone has none
   * @throws {OptionError} if a rule of the limits is none
   */
  constructor(readonly limits: HistoryLimits, readonly clock: Clock, readonly journal?: Journal) {
    this.budget = new Budget(limits.historyMb * 1_000_000);
    this.#limitsOf = roomLimits(limits);
    this.shares = new RoomShares(limits.maxRooms, clock, (room) => this.#drop(room));
    this.expiry = new Expiry(clock, ({ state, entry }) => {
      const room = this.#rooms.get(state.name);
      if (room?.state === state && state.map.get(entry.key) === entry) room.removeKeys([entry]);
    });
  }

  get size(): number {
    return this.#rooms.size;
  }

  get(name: string): MemoryRoom | undefined {
    return this.#rooms.get(name);
  }

  /** The room, added if nobody knows it; none if MAX_ROOMS, or the address's share of them, are in use. */
  open(name: string, address?: string): MemoryRoom | undefined {
    const known = this.#rooms.get(name);
    if (known) return known;
    if (!isSharedRoom(name) && !this.shares.makeSpace(address)) return undefined;
    const row = this.journal && ++this.journal.lastRow;
    const room = this.#add(name, this.#nextEpoch, row, address);
    room.journal?.putRoom(0);
    return room;
  }

  /** Adds a room that was kept before; an older one of this name is dropped. */
  restore(name: string, epoch: string, seq: number, row: number, forgottenRev = 0): MemoryRoom {
    const older = this.#rooms.get(name);
    if (older) this.#drop(older);
    const room = this.#add(name, epoch, row);
    room.history.seq = seq;
    room.journal?.restore(seq, forgottenRev);
    if (forgottenRev > 0) room.openState().map.forgottenRev = forgottenRev;
    return room;
  }

  /** Ends what {@link restore} began: drops what is too much or too old by the limits of now. */
  restored(): void {
    this.shares.trim();
    for (const room of this.#rooms.values()) room.removeKeys(room.state?.boundTo(LOST_MEMBER));
    this.makeSpace();
    this.expire();
  }

  setHost(room: MemoryRoom, host: Host | undefined): void {
    room.host = host;
    this.#changed.add(room);
    // Where nobody asks for the list, rooms that are gone must not stay in here.
    if (this.#changed.size > 1_000) this.#sortHosted();
    this.shares.setEmpty(room, !host);
  }

  /** Drops a room that nobody uses and that never had a message, a key or an id. */
  dropIfUnused(room: MemoryRoom): void {
    const isUsed = room.host || room.presence?.count || room.ids.knownUntil > this.clock.now();
    if (!isUsed && !room.hasBegun) this.#drop(room);
  }

  /** Rooms with a host, by name, those behind `after`, at most `limit`. */
  hosted(after: string, limit: number): MemoryRoom[] {
    this.#sortHosted();
    const at = placeOf(this.#hosted, after);
    const first = this.#hosted[at]?.name === after ? at + 1 : at;
    return this.#hosted.slice(first, first + limit);
  }

  #sortHosted(): void {
    const [hosted, changed] = [this.#hosted, this.#changed];
    if (changed.size < 100) {
      for (const room of changed) {
        const at = placeOf(hosted, room.name);
        const isListed = hosted[at] === room;
        if (isListed !== (room.host !== undefined)) {
          hosted.splice(at, +isListed, ...isListed ? [] : [room]);
        }
      }
    } else {
      const known = hosted.filter((room) => !changed.has(room));
      const added = [...changed].filter(({ host }) => host).sort(byName);
      // Two runs that are sorted are merged, which is far faster than sorting all.
      this.#hosted = [...known, ...added].sort(byName);
    }
    changed.clear();
  }

  /** Drops what is older than its room's seconds: messages, ids, and rooms that are empty for so long. */
  expire(): void {
    const now = this.clock.now();
    const elapsedMs = this.clock.elapsedMs();
    for (const room of this.shares.empty) {
      const isOver = room.emptySince <= elapsedMs - room.limits.historySeconds * 1_000;
      if (isOver && room.ids.knownUntil <= now) this.#drop(room);
    }
    for (const { history, ids } of this.#rooms.values()) {
      history.expire(now);
      ids.expire(now);
    }
  }

  /** Keeps to HISTORY_MB: the largest room drops its oldest messages, whoever publishes. */
  makeSpace(): void {
    const { budget } = this;
    while (budget.isOver && budget.histories.largest()?.dropOldest());
  }

  clear(): void {
    this.expiry.clear();
    this.#rooms.clear();
    this.shares.clear();
    this.#hosted = [];
    this.#changed.clear();
  }

  #add(name: string, epoch: string, row?: number, address?: string): MemoryRoom {
    const { budget, expiry } = this;
    const journal = row === undefined ? row : new RoomJournal(this.journal!, name, epoch, row);
    const limits = this.#limitsOf(name);
    const opener = this.shares.openedBy(address);
    const room = new MemoryRoom(name, epoch, limits, budget, expiry, journal, opener);
    this.#rooms.set(name, room);
    this.shares.add(room);
    return room;
  }

  #drop(room: MemoryRoom): void {
    if (room.hasBegun) this.#nextEpoch = newEpoch();
    room.clear();
    this.#rooms.delete(room.name);
    this.lastEventNumber = Math.max(this.lastEventNumber, room.eventNumber);
    this.shares.remove(room);
  }
}
