/**
 * The rooms of the memory engine: which there are, who opened them, and which have to go.
 *
 * @module
 */
import { isServerRoom, isSharedRoom } from "../protocol/parse.ts";
import type { Clock } from "../util/clock.ts";
import { Budget } from "./budget.ts";
import { DedupeTable } from "./dedupe.ts";
import type { Host } from "./engine.ts";
import { History } from "./history.ts";
import { type Journal, RoomJournal } from "./journal.ts";
import type { MemberEvent } from "./member_events.ts";
import type { Presence } from "./presence.ts";
import { type RoomLimits, roomLimits, type RoomRules } from "./room_rules.ts";
import { Expiry } from "./expiry.ts";
import { type ExpiringKey, type KeptEntry, RoomState } from "./room_state.ts";
import { DEFAULT_MAX_KEYS, DEFAULT_MAX_STATE_BYTES } from "./state_map.ts";

/** How much an engine keeps; see the settings of the same names. */
export interface HistoryLimits extends RoomLimits {
  /** What is kept of some rooms in place of that. */
  roomRules?: RoomRules;
  /** What the room `_events` says of members; nothing if missing. */
  events?: readonly MemberEvent[];
  /** Megabytes for all rooms together, remembered ids and state included. */
  historyMb: number;
  /** Rooms, empty ones included. */
  maxRooms: number;
}

/** To whom restored keys are bound: the members themselves are not kept. */
export const LOST_MEMBER = "";

/** What the engine knows of one room. */
export interface MemoryRoom {
  readonly name: string;
  readonly limits: RoomLimits;
  readonly epoch: string;
  readonly journal?: RoomJournal;
  readonly history: History;
  readonly ids: DedupeTable;
  /** There only once a key was set. */
  state?: RoomState;
  /** Who has joined; there only once somebody has. */
  presence?: Presence;
  host?: Host;
  /** The number of the last event of its members; 0 before the first. */
  eventNumber: number;
  /** Since when nobody hosts it, or when the last message came after that, by {@link Clock.elapsedMs}. */
  emptySince: number;
  readonly opener?: Opener;
}

/** Who opened rooms. */
interface Opener {
  address: string;
  /** How many of them there are. */
  count: number;
  /** Those without a host, the longest-empty first. */
  readonly empty: Set<MemoryRoom>;
}

/** All rooms, within MAX_ROOMS. */
export class MemoryRooms {
  /** Bytes of messages and ids over all rooms. */
  readonly budget: Budget;
  /**
   * The epoch of rooms that are added. It changes when a room with messages goes, so that none
   * returns under its old epoch; a room that went unused does, without a gap for its clients.
   */
  #nextEpoch = newEpoch();
  #rooms = new Map<string, MemoryRoom>();
  /** Rooms without a host, the longest-empty first. */
  #empty = new Set<MemoryRoom>();
  #openers = new Map<string, Opener>();
  /** The rooms with a host, by name, until a host comes or goes. */
  #hosted?: MemoryRoom[];
  /** Keys of all rooms that go by themselves. */
  readonly expiry: Expiry<ExpiringKey>;
  /** The highest {@link MemoryRoom.eventNumber} of those that are gone. */
  lastEventNumber = 0;
  readonly #limitsOf: (room: string) => RoomLimits;

  /**
   * @param journal where changes are written down; the memory engine alone has none
   * @throws {OptionError} if a rule of the limits is none
   */
  constructor(
    readonly limits: HistoryLimits,
    readonly clock: Clock,
    readonly journal?: Journal,
  ) {
    this.budget = new Budget(limits.historyMb * 1_000_000);
    this.#limitsOf = roomLimits(limits);
    this.expiry = new Expiry(clock, ({ state, entry }) => {
      const room = this.#rooms.get(state.name);
      if (room?.state === state && state.map.get(entry.key) === entry) {
        this.removeKeys(room, [entry]);
      }
    });
  }

  get size(): number {
    return this.#rooms.size;
  }

  /** Whether no room can be added until a host goes. */
  get isFull(): boolean {
    return this.size >= this.limits.maxRooms && !this.#findDroppable(this.#empty);
  }

  get(name: string): MemoryRoom | undefined {
    return this.#rooms.get(name);
  }

  /** The room, added if nobody knows it; none if MAX_ROOMS, or the address's share of them, are in use. */
  open(name: string, address?: string): MemoryRoom | undefined {
    const known = this.#rooms.get(name);
    if (known) return known;
    if (!isSharedRoom(name) && !this.#makeSpace(address)) return undefined;
    const row = this.journal && ++this.journal.lastRow;
    const room = this.#add(name, this.#nextEpoch, row, address);
    room.journal?.putRoom(0);
    return room;
  }

  /** Adds a room that was kept before; an older one of this name is dropped. */
  restore(
    name: string,
    epoch: string,
    seq: number,
    row: number,
    forgottenRev = 0,
  ): MemoryRoom {
    const older = this.#rooms.get(name);
    if (older) this.#drop(older);
    const room = this.#add(name, epoch, row);
    room.history.seq = seq;
    room.journal?.restore(seq, forgottenRev);
    if (forgottenRev > 0) this.stateOf(room).map.forgottenRev = forgottenRev;
    return room;
  }

  /** Ends what {@link restore} began: drops what is too much or too old by the limits of now. */
  restored(): void {
    while (this.size > this.limits.maxRooms && this.#dropOneOf(this.#empty));
    for (const room of this.#rooms.values()) {
      if (room.state) this.removeKeys(room, room.state.boundTo(LOST_MEMBER));
    }
    this.makeSpace();
    this.expire();
  }

  /** Gives a room its host, or takes it. */
  setHost(room: MemoryRoom, host: Host | undefined): void {
    room.host = host;
    this.#hosted = undefined;
    if (host) this.#setEmpty(room, false);
    else this.touch(room);
  }

  /** Makes a room without a host the one that was empty for the shortest time. */
  touch(room: MemoryRoom): void {
    room.emptySince = this.clock.elapsedMs();
    this.#setEmpty(room, false);
    this.#setEmpty(room, true);
  }

  /** Drops a room that nobody uses and that never had a message, a key or an id. */
  dropIfUnused(room: MemoryRoom): void {
    const isUsed = room.host || room.presence?.count || room.ids.knownUntil > this.clock.now();
    if (!isUsed && !hasBegun(room)) this.#drop(room);
  }

  /** The room's state, there from now on. */
  stateOf(room: MemoryRoom): RoomState {
    const { maxKeys = DEFAULT_MAX_KEYS, maxStateBytes = DEFAULT_MAX_STATE_BYTES } = room.limits;
    return room.state ??= new RoomState(
      room.name,
      { maxKeys, maxStateBytes },
      this.budget,
      this.expiry,
      room.journal,
    );
  }

  /** Removes keys that go by themselves, and tells the host. */
  removeKeys(room: MemoryRoom, entries: KeptEntry[]): void {
    for (const entry of entries) {
      const removal = room.state!.remove(entry, this.clock.now());
      room.host?.deliver({ type: "set", entry: removal });
    }
  }

  /** Rooms with a host, by name, those behind `after`, at most `limit`. */
  hosted(after: string, limit: number): MemoryRoom[] {
    this.#hosted ??= [...this.#rooms.values()].filter(({ host }) => host !== undefined)
      .sort((a, b) => a.name < b.name ? -1 : 1);
    const first = this.#hosted.findIndex(({ name }) => name > after);
    return first < 0 ? [] : this.#hosted.slice(first, first + limit);
  }

  /** Drops what is older than its room's seconds: messages, ids, and rooms that are empty for so long. */
  expire(): void {
    const now = this.clock.now();
    const elapsedMs = this.clock.elapsedMs();
    for (const room of this.#empty) {
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

  /** Forgets all, without a word to the journal. */
  clear(): void {
    this.expiry.clear();
    this.#rooms.clear();
    this.#empty.clear();
    this.#openers.clear();
    this.#hosted = undefined;
  }

  #add(name: string, epoch: string, row?: number, address?: string): MemoryRoom {
    const { budget, clock } = this;
    const limits = this.#limitsOf(name);
    const journal = row === undefined
      ? undefined
      : new RoomJournal(this.journal!, name, epoch, row);
    const opener = address === undefined
      ? undefined
      : this.#openers.get(address) ?? { address, count: 0, empty: new Set() };
    const room: MemoryRoom = {
      name,
      limits,
      epoch,
      journal,
      history: new History(limits, budget, journal),
      ids: new DedupeTable(budget, journal),
      eventNumber: 0,
      emptySince: clock.elapsedMs(),
      opener,
    };
    this.#rooms.set(name, room);
    if (opener) {
      opener.count++;
      this.#openers.set(opener.address, opener);
    }
    this.#setEmpty(room, true);
    return room;
  }

  /** Drops an empty room if there must be one; tells whether one more room may be added. */
  #makeSpace(address?: string): boolean {
    const opener = address === undefined ? undefined : this.#openers.get(address);
    if (opener && opener.count >= this.#shareOf(opener)) return this.#dropOneOf(opener.empty);
    return this.size < this.limits.maxRooms || this.#dropOneOf(this.#empty);
  }

  /** How many rooms an address may have opened: half of those that no other address has hosts in. */
  #shareOf({ count, empty }: Opener): number {
    const hostedByOthers = this.size - this.#empty.size - (count - empty.size);
    return Math.ceil((this.limits.maxRooms - hostedByOthers) / 2);
  }

  #dropOneOf(empty: Set<MemoryRoom>): boolean {
    const room = this.#findDroppable(empty);
    if (room) this.#drop(room);
    return room !== undefined;
  }

  /** The longest-empty room, but none that must know an idempotency key, and none of the server's own. */
  #findDroppable(empty: Set<MemoryRoom>): MemoryRoom | undefined {
    const now = this.clock.now();
    return empty.values().find(({ ids, name }) => ids.pinnedUntil <= now && !isServerRoom(name));
  }

  #drop(room: MemoryRoom): void {
    if (hasBegun(room)) this.#nextEpoch = newEpoch();
    room.state?.clear();
    room.history.clear();
    room.ids.clear();
    room.journal?.delete(room.journal.row);
    this.#rooms.delete(room.name);
    this.lastEventNumber = Math.max(this.lastEventNumber, room.eventNumber);
    this.#setEmpty(room, false);
    const { opener } = room;
    if (opener && --opener.count === 0) this.#openers.delete(opener.address);
  }

  #setEmpty(room: MemoryRoom, isEmpty: boolean): void {
    for (const empty of [this.#empty, room.opener?.empty]) {
      if (isEmpty) empty?.add(room);
      else empty?.delete(room);
    }
  }
}

/** Whether a room has numbered anything in its epoch. */
function hasBegun({ history, state }: MemoryRoom): boolean {
  return history.seq > 0 || (state?.map.rev ?? 0) > 0;
}

/** A random name for a history that starts anew. */
export function newEpoch(): string {
  return crypto.randomUUID().slice(0, 8);
}
