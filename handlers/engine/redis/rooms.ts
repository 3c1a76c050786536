/**
 * The rooms of one node, each compared with Redis every 5 s, and the list of all hosted rooms.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { RoomSummary } from "../../protocol/room_event.ts";
import type { RedisConnection } from "./connection.ts";
import { type RedisNode, RedisRoom } from "./room.ts";
import { keysOf } from "./scripts.ts";

/** A room is compared with Redis once in 25 ticks of 200 ms. */
const SYNC_TICKS = 25;
const PAGE_ROOMS = 500;
/** Few rooms catch up at once: Redis drops a connection to which it has too much to send. */
const MAX_CATCHING_UP = 8;

/** What the rooms of a node need. */
export interface RedisRoomsOptions {
  node: RedisNode;
  connection: RedisConnection;
  /** What all keys start with. */
  prefix: string;
  maxRooms: number;
}

/** The rooms that a node hosts or has members in. */
export class RedisRooms {
  readonly #rooms = new Map<string, RedisRoom>();
  /** The sorted set of hosted rooms; a name that no node hosts any more is removed when it is read. */
  readonly #listKey: string;
  #nextSlot = 0;

  constructor(readonly options: RedisRoomsOptions) {
    this.#listKey = `${options.prefix}:rooms`;
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

  /** A room, created if needed; `undefined` if MAX_ROOMS are in use here. */
  open(name: string): RedisRoom | undefined {
    let room = this.#rooms.get(name);
    if (!room && this.#rooms.size < this.options.maxRooms) {
      const keys = keysOf(this.options.prefix, name);
      room = new RedisRoom(name, keys, this.#nextSlot++ % SYNC_TICKS, this.options.node);
      this.#rooms.set(name, room);
    }
    return room;
  }

  /** Forgets a room that nobody here uses; returns whether it did. */
  dropIfIdle(room: RedisRoom): boolean {
    if (!room.isIdle || this.#rooms.get(room.name) !== room) return false;
    this.#rooms.delete(room.name);
    const { node, connection } = this.options;
    node.run("release", room.keys, [node.id]).then((nodesLeft) => {
      if (nodesLeft === 0) connection.send(["ZREM", this.#listKey, room.name]);
    });
    return true;
  }

  /** Takes what a channel brings. */
  push(payload: Buffer, channel: Buffer): void {
    const start = this.options.prefix.length + ":{".length;
    this.#rooms.get(channel.toString("latin1", start, channel.length - 1))?.push(payload);
  }

  /** On a new connection: subscribes to every hosted room, catches up, and registers the members. */
  async resume(): Promise<void> {
    const rooms = [...this.#rooms.values()];
    const hosted = rooms.filter((room) => room.host);
    if (hosted.length > 0) this.options.connection.subscribe(hosted.map((room) => room.keys[0]));
    for (const room of hosted) room.pause();
    this.#listHosted();
    const rest = rooms.values();
    const work = async () => {
      for (const room of rest) {
        await room.catchUp();
        await room.register();
      }
    };
    await Promise.all(Array.from({ length: MAX_CATCHING_UP }, work));
  }

  /** Compares with Redis the rooms whose slot this tick is. */
  onTick(tick: number): void {
    const slot = tick % SYNC_TICKS;
    for (const room of this.#rooms.values()) {
      if (room.slot === slot && !this.dropIfIdle(room)) room.sync();
    }
    if (slot === 0) this.#listHosted();
  }

  /** Adds rooms to the list of hosted rooms. */
  list(names: string[]): void {
    const entries = names.flatMap((name) => ["0", name]);
    if (names.length > 0) this.options.connection.send(["ZADD", this.#listKey, ...entries]);
  }

  /** Hosted rooms after a name; without an answer from Redis those of this node. */
  async summaries(after: string, limit: number): Promise<RoomSummary[]> {
    const found: RoomSummary[] = [];
    const page = ["BYLEX", "LIMIT", "0", String(PAGE_ROOMS)];
    for (let last = after; found.length < limit;) {
      const range = [last === "" ? "-" : `(${last}`, "+", ...page];
      const names = await this.options.connection.send(["ZRANGE", this.#listKey, ...range]);
      if (!Array.isArray(names)) return this.#summariesHere(after).slice(0, limit);
      found.push(...await this.#summarize(names));
      if (names.length < PAGE_ROOMS) break;
      last = names.at(-1);
    }
    return found.slice(0, limit);
  }

  /** Removes the node from all rooms. */
  async end(): Promise<void> {
    const rooms = [...this.#rooms.values()];
    this.#rooms.clear();
    await Promise.all(rooms.map((room) => room.end()));
  }

  #listHosted(): void {
    const hosted = this.#rooms.values().filter((room) => room.host).map((room) => room.name);
    this.list([...hosted]);
  }

  async #summarize(names: string[]): Promise<RoomSummary[]> {
    if (names.length === 0) return [];
    const { node, connection } = this.options;
    const heads = names.map((name) => this.keysOf(name)[0]);
    const answer = await node.run("summaries", [heads[0]], [node.id, ...heads]) as number[][];
    const found: RoomSummary[] = [];
    const unused: string[] = [];
    for (const [index, [seq, members, hosts, listeners]] of (answer ?? []).entries()) {
      const room = names[index];
      const here = this.#rooms.get(room)?.host;
      if (!here && hosts === 0) unused.push(room);
      else found.push({ room, members, listeners: listeners + (here?.listenerCount ?? 0), seq });
    }
    if (unused.length > 0) connection.send(["ZREM", this.#listKey, ...unused]);
    return found;
  }

  #summariesHere(after: string): RoomSummary[] {
    const rooms = this.#rooms.values().filter((room) => room.host && room.name > after);
    return rooms.map(({ name, memberCount, host, seq }) => ({
      room: name,
      members: memberCount,
      listeners: host?.listenerCount ?? 0,
      seq,
    })).toArray().sort((a, b) => a.room < b.room ? -1 : 1);
  }
}
