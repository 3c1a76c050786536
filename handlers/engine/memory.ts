/** The memory engine: a room's order and history in this process, all of it synchronous. */
import type { Span } from "../protocol/page.ts";
import { EVENTS_ROOM } from "../protocol/parse.ts";
import type { Cursor, Head, StateCursor } from "../protocol/position.ts";
import type { Members, RoomSummary, StateSpan, Transient } from "../protocol/room_event.ts";
import type { Clock } from "../util/clock.ts";
import type { Change, Draft, Engine, EngineStats, Host } from "./engine.ts";
import type { IdempotencyKey, Outcome, Refusal } from "./engine.ts";
import { EVENTS_SENDER, eventTexts, type MemberChange } from "./member_events.ts";
import { type MemoryRoom, newEpoch } from "./memory_room.ts";
import { MemoryRooms } from "./memory_rooms.ts";
import { Presence } from "./presence.ts";
import type { HistoryLimits } from "./room_rules.ts";
import { REMOVED, StateMap } from "./state_map.ts";

const SWEEP_MS = 5_000;
const NO_STATE = { map: new StateMap() };

/** Makes the memory engine. @throws {OptionError} if a rule of the limits is none */
export function createMemoryEngine(limits: HistoryLimits, clock: Clock): Engine {
  return new MemoryEngine(new MemoryRooms(limits, clock), clock);
}

/** The engine over rooms that may have been filled before. */
export class MemoryEngine implements Engine {
  readonly name = "memory";
  #stopSweep: () => void;

  constructor(readonly memory: MemoryRooms, readonly clock: Clock) {
    this.#stopSweep = clock.every(SWEEP_MS, () => memory.expire());
  }

  host(name: string, host: Host, address?: string): Head | Refusal {
    const room = this.memory.open(name, address);
    if (!room) return { refused: "too_many_rooms" };
    this.memory.expiry.run();
    this.memory.setHost(room, host);
    const { epoch, history: { seq }, presence, state } = room;
    return { epoch, seq, rev: state?.map.rev ?? 0, members: presence?.count ?? 0 };
  }

  release(name: string): void {
    const room = this.memory.get(name);
    if (!room) return;
    this.memory.setHost(room, undefined);
    this.memory.dropIfUnused(room);
  }

  publish(name: string, draft: Draft): Outcome {
    const { key, address, sender, message } = draft;
    const room = this.memory.open(name, address);
    if (!room) return { refused: "too_many_rooms" };
    const now = this.clock.now();
    if (key) {
      const known = room.ids.find(key, now);
      if (known) return known === "conflict" ? { refused: known } : { epoch: room.epoch, ...known };
      if (!this.#makeSpaceFor(key, room, address)) {
        this.memory.dropIfUnused(room);
        return { refused: "unavailable" };
      }
    }
    const chat = { seq: room.history.seq + 1, time: now, sender, message };
    room.history.append(chat);
    if (key) room.ids.remember(key, chat.seq, now, address);
    this.memory.makeSpace();
    if (room.host) room.host.deliver({ type: "chat", chat });
    else this.memory.shares.setEmpty(room, true);
    return { epoch: room.epoch, seq: chat.seq };
  }

  set(name: string, change: Change): StateCursor | Refusal {
    const { key, owner, value } = change;
    // A message with the same id is another thing.
    const id = change.id && { ...change.id, session: `set ${change.id.session}` };
    const { memory } = this;
    memory.expiry.run();
    const room = memory.open(name, owner);
    if (!room) return { refused: "too_many_rooms" };
    const now = this.clock.now();
    const { epoch, ids } = room;
    const known = id && ids.find(id, now);
    if (known === "conflict") return { refused: known };
    if (known) return { epoch, rev: known.seq };
    const refuse = (refusal: Refusal) => {
      memory.dropIfUnused(room);
      return refusal;
    };
    const isRemoval = value === REMOVED;
    const last = room.state?.get(key);
    if (last?.expiresAt !== undefined && last.expiresAt <= now) room.removeKeys([last]);
    const rev = room.state?.get(key)?.rev ?? 0;
    if (change.if !== undefined && change.if !== rev) {
      return refuse({ refused: "rev_conflict", rev });
    }
    const state = room.openState();
    const draft = state.draft(change, now);
    if (!state.hasSpace(draft)) return refuse({ refused: "too_many_keys" });
    // A member that has ended can't take its key along.
    const isLate = change.member !== undefined &&
      room.presence?.nameOf(change.member) === undefined;
    if (isLate || (id && !this.#makeSpaceFor(id, room, owner))) {
      return refuse({ refused: "unavailable" });
    }
    const entry = isRemoval && rev === 0 ? undefined : state.put(draft);
    if (id) ids.remember(id, state.map.rev, now, owner);
    memory.makeSpace();
    if (entry) room.host?.deliver({ type: "set", entry });
    if (!room.host) memory.shares.setEmpty(room, true);
    if (!entry && !id) memory.dropIfUnused(room);
    return { epoch, rev: state.map.rev };
  }

  state(name: string, since?: StateCursor): StateSpan {
    const room = this.memory.get(name);
    this.memory.expiry.run();
    room?.removeKeys(room.state?.overdue(this.clock.now()));
    const { epoch = newEpoch(), state: { map } = NO_STATE } = room ?? {};
    const isKnown = since?.epoch === epoch && map.knows(since.rev);
    return isKnown
      ? { epoch, rev: map.rev, since: since.rev, entries: map.since(since.rev) }
      : { epoch, rev: map.rev, entries: map.entries() };
  }

  relay(name: string, event: Transient): void {
    this.memory.get(name)?.host?.deliver(event);
  }

  join(name: string, member: string, as: string, user?: string): Refusal | undefined {
    const room = this.memory.open(name);
    if (!room) return { refused: "too_many_rooms" };
    room.presence ??= new Presence();
    const status = room.presence.join(member, as, user);
    room.host?.deliver(status);
    const isNew = status.was === undefined && status.to === undefined;
    if (isNew) this.tell({ ...status, room: name });
  }

  leave(name: string, member: string): void {
    const room = this.memory.get(name);
    if (!room?.presence) return;
    const status = room.presence.leave(member);
    if (status) room.host?.deliver(status);
    room.removeKeys(room.state?.boundTo(member));
    if (status) this.tell({ ...status, room: name });
    this.memory.dropIfUnused(room);
  }

  members(name: string): Members {
    return this.memory.get(name)?.presence?.list() ?? { members: [], count: 0 };
  }

  read(name: string, after?: Cursor, newest = Infinity): Span {
    const room = this.memory.get(name);
    if (!room) return { epoch: newEpoch(), seq: 0, chats: [] };
    const { epoch, history } = room;
    const isKnown = after?.epoch === epoch && after.seq <= history.seq;
    history.expire(this.clock.now());
    return {
      epoch,
      seq: history.seq,
      chats: history.since(isKnown ? after.seq : history.seq - newest),
    };
  }

  rooms(after: string, limit: number): RoomSummary[] {
    return this.memory.hosted(after, limit).map(({ name, presence, host, history }) => ({
      room: name,
      members: presence?.count ?? 0,
      listeners: host?.subscriberCount ?? 0,
      seq: history.seq,
    }));
  }

  isReady(): boolean {
    return true;
  }

  stats(): EngineStats {
    const { size, budget, shares: { isFull } } = this.memory;
    return { rooms: size, historyBytes: budget.bytes, isFull };
  }

  close(): Promise<void> {
    this.#stopSweep();
    this.memory.clear();
    return Promise.resolve();
  }

  /** Says in the room `_events` what EVENTS asks for of a change. */
  tell(change: MemberChange): void {
    const { events = [] } = this.memory.limits;
    const room = events.length > 0 ? this.memory.open(change.room) : undefined;
    if (!room) return;
    // Time starts it, so that a room that comes back goes on.
    room.eventNumber ||= Math.max(this.clock.now(), this.memory.lastEventNumber);
    for (const message of eventTexts(events, change, room.eventNumber + 1)) {
      room.eventNumber++;
      this.publish(EVENTS_ROOM, { sender: EVENTS_SENDER, message });
    }
  }

  /** Keeps ids to their share: the room with the most forgets its oldest, but no idempotency keys. */
  #makeSpaceFor(key: IdempotencyKey, { ids }: MemoryRoom, address?: string): boolean {
    while (!ids.hasSpace(key, address)) {
      const isPinned = key.digest !== undefined;
      if (isPinned || !this.memory.budget.tables.largest()?.dropOldest()) return false;
    }
    return true;
  }
}
