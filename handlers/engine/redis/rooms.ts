/**
 * The rooms of one node, each compared with Redis every 5 s, and the list of all that are heard.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { RoomSummary } from "../../protocol/room_event.ts";
import type { RedisConnection } from "./connection.ts";
import { type RedisNode, RedisRoom } from "./room.ts";
import { keysOf } from "./scripts.ts";

/** Each room is compared with Redis once in so many ticks. */
const SYNC_TICKS = 25;
const ROOMS_A_PAGE = 500;
/** Rooms that catch up at the same time: Redis drops a connection that leaves it too much to send. */
const CATCH_UP_AT_ONCE = 8;

/** What the rooms need from outside. */
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
  /** Names of rooms that some node hosts, in order; names that none does are taken out when met. */
  readonly #listKey: string;
  #nextSlot = 0;

  constructor(readonly options: RedisRoomsOptions) {
    this.#listKey = `${options.prefix}:rooms`;
  }

  /** How many there are. */
  get size(): number {
    return this.#rooms.size;
  }

  /** A room, if the node has to do with it. */
  get(name: string): RedisRoom | undefined {
    return this.#rooms.get(name);
  }

  /** The keys of any room. */
  keysOf(name: string): readonly string[] {
    return this.#rooms.get(name)?.keys ?? keysOf(this.options.prefix, name);
  }

  /** A room, made if it must be; none if MAX_ROOMS are in use here. */
  open(name: string): RedisRoom | undefined {
    let room = this.#rooms.get(name);
    if (!room && this.#rooms.size < this.options.maxRooms) {
      const keys = keysOf(this.options.prefix, name);
      room = new RedisRoom(name, keys, this.#nextSlot++ % SYNC_TICKS, this.options.node);
      this.#rooms.set(name, room);
    }
    return room;
  }

  /** Lets go of a room that nobody here has to do with; tells whether it did. */
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

  /** On a new connection: hear every hosted room, catch up, and tell who is here. */
  async resume(): Promise<void> {
    const rooms = [...this.#rooms.values()];
    const hosted = rooms.filter((room) => room.host);
    if (hosted.length > 0) this.options.connection.subscribe(hosted.map((room) => room.keys[0]));
    for (const room of hosted) room.hold();
    this.#listHosted();
    const waiting = rooms.values();
    const work = async () => {
      for (const room of waiting) {
        await room.catchUp();
        await room.register();
      }
    };
    await Promise.all(Array.from({ length: CATCH_UP_AT_ONCE }, work));
  }

  /** Compares the rooms whose turn it is with Redis. */
  onTick(tick: number): void {
    const slot = tick % SYNC_TICKS;
    for (const room of this.#rooms.values()) {
      if (room.slot === slot && !this.dropIfIdle(room)) room.sync();
    }
    if (slot === 0) this.#listHosted();
  }

  /** Adds rooms to the list of those that some node hosts. */
  list(names: string[]): void {
    const entries = names.flatMap((name) => ["0", name]);
    if (names.length > 0) this.options.connection.send(["ZADD", this.#listKey, ...entries]);
  }

  /** Rooms that some node hosts, behind a name; those of this node where Redis is away. */
  async summaries(after: string, limit: number): Promise<RoomSummary[]> {
    const found: RoomSummary[] = [];
    const page = ["BYLEX", "LIMIT", "0", String(ROOMS_A_PAGE)];
    for (let last = after; found.length < limit;) {
      const range = [last === "" ? "-" : `(${last}`, "+", ...page];
      const names = await this.options.connection.send(["ZRANGE", this.#listKey, ...range]);
      if (!Array.isArray(names)) return this.#summariesHere(after).slice(0, limit);
      if (names.length === 0) break;
      const summaries = await Promise.all(names.map((name) => this.#summarize(name)));
      found.push(...summaries.filter((summary) => summary !== undefined));
      last = names.at(-1);
    }
    return found.slice(0, limit);
  }

  /** The node goes. */
  async end(): Promise<void> {
    const rooms = [...this.#rooms.values()];
    this.#rooms.clear();
    await Promise.all(rooms.map((room) => room.end()));
  }

  #listHosted(): void {
    const hosted = this.#rooms.values().filter((room) => room.host).map((room) => room.name);
    this.list([...hosted]);
  }

  async #summarize(name: string): Promise<RoomSummary | undefined> {
    const { node, connection } = this.options;
    const answer = await node.run("summary", this.keysOf(name), [node.id]);
    if (!answer) return;
    const [seq, members, hosts, listeners] = answer as number[];
    const here = this.#rooms.get(name)?.host;
    if (hosts > 0 || here) {
      return { room: name, members, listeners: listeners + (here?.listenerCount ?? 0), seq };
    }
    connection.send(["ZREM", this.#listKey, name]);
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
