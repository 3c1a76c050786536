/**
 * The memory engine: a room's order and history in this process, all of it synchronous.
 *
 * @module
 */
import type { Span } from "../protocol/page.ts";
import type { Cursor, Head } from "../protocol/position.ts";
import type { Members, RoomSummary } from "../protocol/room_event.ts";
import type { Clock } from "../util/clock.ts";
import { RepeatTable } from "./dedupe.ts";
import type { Draft, Engine, EngineStats, Host, Outcome, Refusal, RepeatKey } from "./engine.ts";
import { Budget, History } from "./history.ts";

/** How much the engine keeps; see the settings of the same names. */
export interface HistoryLimits {
  /** Messages a room. */
  historySize: number;
  /** How long messages, and empty rooms, are kept. */
  historySeconds: number;
  /** Megabytes for all rooms together, remembered ids included. */
  historyMb: number;
  /** Rooms, empty ones included. */
  maxRooms: number;
}

/** What the engine knows of one room. */
interface MemoryRoom {
  readonly name: string;
  readonly epoch: string;
  readonly history: History;
  readonly repeats: RepeatTable;
  readonly members: Map<string, string>;
  /** The members' names in order, until somebody comes or goes. */
  names?: string[];
  host?: Host;
  /** When the last host or message was there, where nobody hosts it. */
  emptySince: number;
}

const SWEEP_MS = 5_000;
const MAX_NAMES = 1_000;

/** Makes the memory engine. */
export function createMemoryEngine(
  limits: HistoryLimits,
  clock: Clock,
): Engine {
  return new MemoryEngine(limits, clock);
}

class MemoryEngine implements Engine {
  readonly name = "memory";
  #rooms = new Map<string, MemoryRoom>();
  /** Rooms without a host, the longest-empty first. */
  #empty = new Set<MemoryRoom>();
  /** Names of the rooms with a host, in order, until a host comes or goes. */
  #heard?: string[];
  /** Bytes of history and ids over all rooms: the rooms add and take. */
  #budget: Budget;
  #stopSweep: () => void;

  constructor(readonly limits: HistoryLimits, readonly clock: Clock) {
    this.#budget = new Budget(limits.historyMb * 1_000_000);
    this.#stopSweep = clock.every(SWEEP_MS, () => this.#sweep());
  }

  host(name: string, host: Host): Head | Refusal {
    const room = this.#open(name);
    if (!room) return { refused: "too_many_rooms" };
    room.host = host;
    this.#heard = undefined;
    this.#empty.delete(room);
    return {
      epoch: room.epoch,
      seq: room.history.seq,
      members: room.members.size,
    };
  }

  release(name: string): void {
    const room = this.#rooms.get(name);
    if (!room) return;
    room.host = undefined;
    this.#heard = undefined;
    this.#markEmpty(room);
  }

  publish(name: string, draft: Draft): Outcome {
    const room = this.#open(name);
    if (!room) return { refused: "too_many_rooms" };
    const now = this.clock.now();
    const { key } = draft;
    if (key) {
      const known = room.repeats.find(key, now);
      if (known) {
        return known === "conflict" ? { refused: known } : { epoch: room.epoch, ...known };
      }
      if (!this.#makeSpaceFor(key, room)) return { refused: "unavailable" };
    }
    const chat = {
      seq: room.history.seq + 1,
      time: now,
      sender: draft.sender,
      message: draft.message,
    };
    room.history.append(chat);
    if (key) room.repeats.remember(key, chat.seq, now);
    if (this.#budget.bytes > this.#budget.maxBytes) this.#makeSpace();
    if (room.host) room.host.deliver({ type: "chat", chat });
    else this.#markEmpty(room);
    return { epoch: room.epoch, seq: chat.seq };
  }

  relay(name: string, bytes: Uint8Array, from: string): void {
    this.#rooms.get(name)?.host?.deliver({ type: "binary", bytes, from });
  }

  join(name: string, member: string, as: string): Refusal | undefined {
    const room = this.#open(name);
    if (!room) return { refused: "too_many_rooms" };
    const was = room.members.get(member);
    room.members.set(member, as);
    room.names = undefined;
    this.#tellStatus(room, "join", as, was);
  }

  leave(name: string, member: string): void {
    const room = this.#rooms.get(name);
    const as = room?.members.get(member);
    if (!room || as === undefined) return;
    room.members.delete(member);
    room.names = undefined;
    this.#tellStatus(room, "leave", as);
  }

  members(name: string): Members {
    const room = this.#rooms.get(name);
    if (!room) return { names: [], count: 0 };
    room.names ??= [...room.members.values()].sort().slice(0, MAX_NAMES);
    return { names: room.names, count: room.members.size };
  }

  read(name: string, after?: Cursor): Span {
    const room = this.#rooms.get(name);
    if (!room) return { epoch: newEpoch(), seq: 0, chats: [] };
    const isKnown = after?.epoch === room.epoch && after.seq <= room.history.seq;
    const from = isKnown ? after.seq : 0;
    room.history.expire(this.clock.now());
    return {
      epoch: room.epoch,
      seq: room.history.seq,
      chats: room.history.since(from),
    };
  }

  rooms(after: string, limit: number): RoomSummary[] {
    this.#heard ??= [...this.#rooms.values()].filter(({ host }) => host !== undefined)
      .map(({ name }) => name).sort();
    const first = this.#heard.findIndex((name) => name > after);
    const names = first < 0 ? [] : this.#heard.slice(first, first + limit);
    return names.map((name) => this.#rooms.get(name)!).map((room) => ({
      room: room.name,
      members: room.members.size,
      listeners: room.host?.listenerCount ?? 0,
      seq: room.history.seq,
    }));
  }

  isReady(): boolean {
    return true;
  }

  stats(): EngineStats {
    return { rooms: this.#rooms.size, historyBytes: this.#budget.bytes };
  }

  close(): Promise<void> {
    this.#stopSweep();
    this.#rooms.clear();
    this.#empty.clear();
    this.#heard = undefined;
    return Promise.resolve();
  }

  /** The room, made if it must be; none if MAX_ROOMS are in use. */
  #open(name: string): MemoryRoom | undefined {
    const known = this.#rooms.get(name);
    if (known) return known;
    if (this.#rooms.size >= this.limits.maxRooms && !this.#dropLongestEmpty()) {
      return undefined;
    }
    const room: MemoryRoom = {
      name,
      epoch: newEpoch(),
      history: new History(this.limits, this.#budget),
      repeats: new RepeatTable(this.#budget),
      members: new Map(),
      emptySince: this.clock.now(),
    };
    this.#rooms.set(name, room);
    this.#empty.add(room);
    return room;
  }

  #markEmpty(room: MemoryRoom): void {
    room.emptySince = this.clock.now();
    this.#empty.delete(room);
    this.#empty.add(room);
  }

  #drop(room: MemoryRoom): void {
    room.history.clear();
    room.repeats.clear();
    this.#rooms.delete(room.name);
    this.#empty.delete(room);
  }

  /** Drops the longest-empty room but those that must know an HTTP key; tells whether there was one. */
  #dropLongestEmpty(): boolean {
    const now = this.clock.now();
    const oldest = this.#empty.values().find(({ repeats }) => repeats.keepUntil <= now);
    if (oldest) this.#drop(oldest);
    return oldest !== undefined;
  }

  /** Keeps to HISTORY_MB: the largest room gives its oldest messages, whoever publishes. */
  #makeSpace(): void {
    const budget = this.#budget;
    while (budget.bytes > budget.maxBytes && budget.histories.largest()?.dropOldest());
  }

  /** Keeps ids to their share: the room with the most forgets its oldest, but no HTTP keys. */
  #makeSpaceFor(key: RepeatKey, { repeats }: MemoryRoom): boolean {
    while (!repeats.hasSpace(key)) {
      if (!this.#budget.tables.largest()?.dropOldest()) return false;
    }
    return true;
  }

  #tellStatus(
    room: MemoryRoom,
    event: "join" | "leave",
    name: string,
    was?: string,
  ): void {
    room.host?.deliver({
      type: "status",
      event,
      name,
      was,
      members: room.members.size,
    });
  }

  #sweep(): void {
    const now = this.clock.now();
    const keptSince = now - this.limits.historySeconds * 1_000;
    for (const room of this.#empty) {
      if (room.emptySince > keptSince) break;
      if (room.repeats.knownUntil <= now) this.#drop(room);
    }
    for (const room of this.#rooms.values()) {
      room.history.expire(now);
      room.repeats.expire(now);
    }
  }
}

/** A random name for a history that starts anew. */
export function newEpoch(): string {
  return crypto.randomUUID().slice(0, 8);
}
