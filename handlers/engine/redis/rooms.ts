/**
 * The rooms of one node: which connection each one is on, when it is compared with Redis, and the list
 * of all hosted rooms.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { RoomSummary } from "../../protocol/room_event.ts";
import { FairShare } from "../budget.ts";
import type { HistoryLimits } from "../memory_rooms.ts";
import { type RoomLimits, roomLimits } from "../room_rules.ts";
import type { RedisConnection } from "./connection.ts";
import { type CompareAnswer, type RedisNode, RedisRoom } from "./room.ts";
import { keysOf } from "./scripts.ts";
import type { Shards } from "./shards.ts";

/** How often `onTick` is called, in ms. */
export const TICK_MS = 200;
/** How often rooms are compared with Redis, in ticks. */
const ROUND_TICKS = 5;
/** Each room is compared once in so many rounds (55 s), although nothing points to a loss. */
const COMPARE_ROUNDS = 55;
/** Within so many rounds (5 s) Redis learns how many listeners a room has. */
const REPORT_ROUNDS = 5;
/** A hosted room must outlive the time between three comparisons, in ms. */
export const MIN_KEEP_MS = 3 * COMPARE_ROUNDS * ROUND_TICKS * TICK_MS;
/** The most rooms in one command, so that none keeps Redis busy for long. */
const BATCH_ROOMS = 500;
/** Few syncs at once: Redis drops a connection to which it has too much to send. */
const MAX_SYNCS = 8;

/** What the rooms of a node need. */
export interface RedisRoomsOptions {
  node: RedisNode;
  shards: Shards;
  /** What all keys start with. */
  prefix: string;
  limits: HistoryLimits;
}

/** The rooms that a node hosts or has members in. */
export class RedisRooms {
  readonly #rooms = new Map<string, RedisRoom>();
  /** The rooms by the round in which they are compared. */
  readonly #slots = Array.from({ length: COMPARE_ROUNDS }, () => new Set<RedisRoom>());
  readonly #stale = new Set<RedisRoom>();
  /** Those in which a key of the state ends. */
  readonly #timed = new Set<RedisRoom>();
  /** The sorted set of hosted rooms; a name that no node hosts any more is removed when it is read. */
  readonly #listKey: string;
  /** What is kept of a room. */
  readonly limitsOf: (room: string) => RoomLimits;
  /** Of MAX_ROOMS, so that no address can use up all. */
  readonly #share: FairShare;
  #nextSlot = 0;
  #tick = 0;

  constructor(readonly options: RedisRoomsOptions) {
    this.#listKey = `${options.prefix}:rooms`;
    this.#share = new FairShare(options.limits.maxRooms);
    this.limitsOf = roomLimits(options.limits);
  }

  /** How many there are. */
  get size(): number {
    return this.#rooms.size;
  }

  /** A room that this node uses. */
  get(name: string): RedisRoom | undefined {
    return this.#rooms.get(name);
  }

  /** The keys of any room. */
  keysOf(name: string): readonly string[] {
    return this.#rooms.get(name)?.keys ?? keysOf(this.options.prefix, name);
  }

  /** How long a room is kept after a sign of use, in ms, by its head key. */
  keepMsOf(head: string): number {
    const name = head.slice(this.options.prefix.length + ":{".length, -1);
    return Math.max(this.limitsOf(name).historySeconds * 1_000, MIN_KEEP_MS);
  }

  /** A room, created if needed; `undefined` if MAX_ROOMS, or the address's share of them, are in use. */
  open(name: string, address?: string): RedisRoom | undefined {
    let room = this.#rooms.get(name);
    if (!room && this.#share.hasSpace(1, address)) {
      this.#share.count(1, address);
      const slot = this.#nextSlot++ % COMPARE_ROUNDS;
      room = new RedisRoom(name, keysOf(this.options.prefix, name), slot, this.options.node);
      room.connection = this.options.shards.of(room.keys[0]);
      room.openedBy = address;
      this.#rooms.set(name, room);
      this.#slots[slot].add(room);
    }
    return room;
  }

  /** Forgets a room that nobody here uses; returns whether it did. */
  dropIfIdle(room: RedisRoom): boolean {
    if (!room.isIdle || this.#rooms.get(room.name) !== room) return false;
    this.#rooms.delete(room.name);
    this.#slots[room.slot].delete(room);
    this.#timed.delete(room);
    this.#share.count(-1, room.openedBy);
    this.#release(room);
    return true;
  }

  /** A sync of this room is to be tried again. */
  onStale(room: RedisRoom): void {
    this.#stale.add(room);
  }

  /** A key of this room's state ends at `room.endsAt`. */
  onTimed(room: RedisRoom): void {
    this.#timed.add(room);
  }

  /** Takes what a channel brings, unless its room has moved to another server since. */
  push(connection: RedisConnection, payload: Buffer, channel: Buffer): void {
    const start = this.options.prefix.length + ":{".length;
    const room = this.#rooms.get(channel.toString("latin1", start, channel.length - 1));
    if (room?.connection === connection) room.push(payload);
  }

  /**
   * On a new connection: subscribes to the rooms' channels and catches up.
   *
   * @param isSameServer whether it is the process of the connection before, which has lost nothing
   */
  onConnect(connection: RedisConnection, isSameServer: boolean): Promise<void> {
    const rooms = [...this.#rooms.values()].filter((room) => room.connection === connection);
    return this.#resume(connection, rooms, isSameServer);
  }

  /** Slots may have another server than before: their rooms follow. */
  onTopology(): void {
    this.#follow(this.#rooms.values());
  }

  /** The server does not send a channel's messages: its room needs a subscription again. */
  onUnsubscribed(channel: string): void {
    const room = this.#rooms.get(channel.slice(this.options.prefix.length + 2, -1));
    if (!room) return;
    room.connection = undefined;
    room.pause();
    this.#stale.add(room);
  }

  /** Tells Redis the members of all rooms again, as it may have removed this node. */
  registerAll(): Promise<void> {
    return inParallel(this.#rooms.values(), async (room) => {
      if (room.memberCount > 0) await room.register();
      else await room.sync();
    });
  }

  /** Compares all rooms, as a node has died: those in which it was are synced. */
  compareAll(): void {
    this.#compare([...this.#rooms.values()], () => false);
  }

  /** Compares the rooms that are due, tries failed syncs again, and has keys removed that have ended. */
  onTick(): void {
    const tick = this.#tick++;
    const stale = [...this.#stale].filter((room) => this.#rooms.get(room.name) === room);
    this.#stale.clear();
    this.#follow(stale.filter((room) => !room.connection));
    for (const room of stale) {
      if (room.connection?.isConnected) room.catchUp();
      else this.#stale.add(room);
    }
    const now = this.options.node.clock.now();
    for (const room of this.#timed) {
      if (room.endsAt > now) continue;
      this.#timed.delete(room);
      room.endsAt = Infinity;
      if (room.host) room.sync();
    }
    if (tick % ROUND_TICKS > 0) return;
    const round = tick / ROUND_TICKS;
    const comparedSlot = round % COMPARE_ROUNDS;
    const due: RedisRoom[] = [];
    for (let slot = round % REPORT_ROUNDS; slot < COMPARE_ROUNDS; slot += REPORT_ROUNDS) {
      for (const room of this.#slots[slot]) {
        if (this.dropIfIdle(room)) continue;
        if (slot === comparedSlot || room.listeners !== room.reportedListeners) due.push(room);
      }
    }
    // In one of so many comparisons Redis is told to keep the room.
    const keepRound = Math.floor(round / COMPARE_ROUNDS);
    this.#compare(due, (keepMs) => keepRound % Math.floor(keepMs / MIN_KEEP_MS) === 0);
    this.list(due.filter((room) => room.host && room.slot === comparedSlot));
  }

  /** Adds rooms to the list of hosted rooms. */
  list(rooms: RedisRoom[]): void {
    for (const batch of inBatches(rooms)) {
      this.#send(["ZADD", this.#listKey, ...batch.flatMap(({ name }) => ["0", name])]);
    }
  }

  /** Hosted rooms after a name; without an answer from Redis those of this node. */
  async summaries(after: string, limit: number): Promise<RoomSummary[]> {
    const found: RoomSummary[] = [];
    for await (const names of this.#listed(after)) {
      if (!names) return this.#summariesHere(after).slice(0, limit);
      found.push(...await this.#summarize(names));
      if (found.length >= limit) break;
    }
    return found.slice(0, limit);
  }

  /** Removes what dead nodes have left in rooms that nobody hosts any more, and publishes their events. */
  async bury(): Promise<void> {
    const { node, shards } = this.options;
    for await (const names of this.#listed("")) {
      const servers = Map.groupBy(names ?? [], (name) => shards.of(this.keysOf(name)[0]));
      for (const own of servers.values()) {
        const heads = own.map((name) => this.keysOf(name)[0]);
        const args = [node.live.nodes, `${node.live.seenAt}`, ...heads];
        const answer = await node.run("abandoned", [heads[0]], args, false);
        const due = Array.isArray(answer) ? own.filter((_, i) => answer[i] === 1) : [];
        await inParallel(due, async (name) => {
          const known = this.#rooms.get(name);
          const room = known ?? new RedisRoom(name, this.keysOf(name), 0, node);
          await room.sync();
          // Somebody may have come since.
          if (!this.#rooms.has(name)) await this.#release(room);
          await node.flush(room);
        });
      }
    }
  }

  /** Removes the node from all rooms. */
  async end(): Promise<void> {
    const rooms = [...this.#rooms.values()];
    this.#rooms.clear();
    for (const slot of this.#slots) slot.clear();
    await Promise.all(rooms.map((room) => room.end()));
    await Promise.all(rooms.map((room) => this.#release(room)));
  }

  /** The list of hosted rooms, page by page; nothing for a page that Redis does not give. */
  async *#listed(after: string): AsyncGenerator<string[] | undefined> {
    const page = ["BYLEX", "LIMIT", "0", String(BATCH_ROOMS)];
    for (let last = after, count = BATCH_ROOMS; count === BATCH_ROOMS;) {
      const range = [last === "" ? "-" : `(${last}`, "+", ...page];
      const names = await this.#send(["ZRANGE", this.#listKey, ...range]);
      if (!Array.isArray(names)) return yield undefined;
      yield names;
      count = names.length;
      last = names.at(-1);
    }
  }

  #follow(rooms: Iterable<RedisRoom>): void {
    const moved: RedisRoom[] = [];
    for (const room of rooms) {
      const connection = this.options.shards.of(room.keys[0]);
      if (!connection || connection === room.connection) continue;
      room.connection?.unsubscribe(room.keys[0]);
      room.connection = connection;
      if (connection.isConnected) moved.push(room);
    }
    for (const [connection, own] of Map.groupBy(moved, (room) => room.connection!)) {
      this.#resume(connection, own, false);
    }
  }

  async #resume(
    connection: RedisConnection,
    rooms: RedisRoom[],
    isSameServer: boolean,
  ): Promise<void> {
    const hosted = rooms.filter((room) => room.host);
    connection.subscribe(hosted.map((room) => room.keys[0]));
    for (const room of hosted) room.pause();
    if (isSameServer) return this.#compare(rooms, () => true);
    this.list(hosted);
    await inParallel(rooms, async (room) => {
      await room.catchUp();
      await room.register();
    });
  }

  /** One command after the other for each server, so that many rooms hold up no message. */
  #compare(rooms: RedisRoom[], mustKeep: (keepMs: number) => boolean): void {
    for (const [connection, own] of Map.groupBy(rooms, (room) => room.connection)) {
      if (connection?.isConnected) this.#compareOn(own, mustKeep);
    }
  }

  async #compareOn(rooms: RedisRoom[], mustKeep: (keepMs: number) => boolean): Promise<void> {
    const { node } = this.options;
    const isHere = (room: RedisRoom) => this.#rooms.get(room.name) === room;
    for (const batch of inBatches(rooms)) {
      const own = batch.filter(isHere);
      if (own.length === 0) continue;
      const args = own.flatMap(({ keys: [head], listeners }) => {
        const keepMs = this.keepMsOf(head);
        return [head, `${listeners}`, mustKeep(keepMs) ? `${keepMs}` : "0"];
      });
      const onAnswers = own.map((room) => room.compare());
      const all = [node.id, node.live.nodes, `${node.live.seenAt}`, ...args];
      const answer = await node.run("compare", [own[0].keys[0]], all, false);
      const answers = Array.isArray(answer) ? answer as CompareAnswer[] : [];
      own.forEach((room, index) => isHere(room) && onAnswers[index](answers[index]));
    }
  }

  async #release(room: RedisRoom): Promise<void> {
    const { node } = this.options;
    const historyMs = this.limitsOf(room.name).historySeconds * 1_000;
    const left = await node.run("release", room.keys, [node.id, String(historyMs)]);
    if (left === 0) this.#send(["ZREM", this.#listKey, room.name]);
  }

  async #summarize(names: string[]): Promise<RoomSummary[]> {
    const { node, shards } = this.options;
    const byConnection = Map.groupBy(names, (name) => shards.of(this.keysOf(name)[0]));
    const parts = await Promise.all([...byConnection.values()].map(async (names) => {
      const heads = names.map((name) => this.keysOf(name)[0]);
      const args = [node.id, node.live.seenAt > 0 ? node.live.nodes : "", ...heads];
      const answer = await node.run("summaries", [heads[0]], args) as number[][] | undefined;
      return (answer ?? []).map((numbers, index) => ({ room: names[index], numbers }));
    }));
    const found: RoomSummary[] = [];
    const unused: string[] = [];
    for (const { room, numbers: [seq, members, hosts, listeners, isAbandoned] } of parts.flat()) {
      if (seq === undefined) continue;
      const here = this.#rooms.get(room)?.host;
      if (!here && hosts === 0) {
        if (!isAbandoned) unused.push(room);
      } else found.push({ room, members, listeners: listeners + (here?.listenerCount ?? 0), seq });
    }
    if (unused.length > 0) this.#send(["ZREM", this.#listKey, ...unused]);
    return found.sort(byName);
  }

  #summariesHere(after: string): RoomSummary[] {
    const rooms = this.#rooms.values().filter((room) => room.host && room.name > after);
    return rooms.map(({ name, memberCount, host, seq }) => ({
      room: name,
      members: memberCount,
      listeners: host?.listenerCount ?? 0,
      seq,
    })).toArray().sort(byName);
  }

  #send(command: string[]): Promise<unknown> {
    return this.options.shards.of(this.#listKey)?.send(command) ?? Promise.resolve(undefined);
  }
}

function byName(a: RoomSummary, b: RoomSummary): number {
  return a.room < b.room ? -1 : 1;
}

function inBatches<T>(items: T[]): T[][] {
  const count = Math.ceil(items.length / BATCH_ROOMS);
  return Array.from(
    { length: count },
    (_, i) => items.slice(i * BATCH_ROOMS, (i + 1) * BATCH_ROOMS),
  );
}

/** Works on a few rooms at a time. */
async function inParallel<T>(
  rooms: Iterable<T>,
  work: (room: T) => Promise<void>,
): Promise<void> {
  const rest = [...rooms].values();
  const worker = async () => {
    for (const room of rest) await work(room);
  };
  await Promise.all(Array.from({ length: MAX_SYNCS }, worker));
}
