/**
 * The Redis engine: many processes and machines, one order a room. Redis numbers and keeps; each
 * node (a process) hears the channels of the rooms it hosts, and reads what it missed from the log.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type {
  Cursor,
  Draft,
  Engine,
  EngineStats,
  Head,
  Host,
  Members,
  Outcome,
  Refusal,
  RoomSummary,
  Span,
} from "./engine.ts";
import { type HistoryLimits, newEpoch } from "./memory.ts";
import { RedisConnection } from "./redis_connection.ts";
import { type RedisNode, RedisRoom } from "./redis_room.ts";
import { keysOf, LEASE_MS, MAX_NAMES, type ScriptName } from "./redis_script.ts";
import { type Entry, pack, toChats, unpack } from "./redis_view.ts";
import { RepeatBudget } from "./repeats.ts";

/** Each room is compared with Redis once in so many ticks: 5 s. */
const SYNC_TICKS = 25;
const ROOMS_A_PAGE = 500;
const UNAVAILABLE: Refusal = { refused: "unavailable" };

/**
 * Makes the Redis engine. It answers when the first attempt to connect has ended; where that failed
 * it goes on trying.
 *
 * @param url `redis://` or `rediss://`, with `user:password@` and `/database` where needed
 * @throws {TypeError} if the URL is of another kind
 */
export async function createRedisEngine(
  url: string,
  limits: HistoryLimits,
  clock: Clock,
  log: Log,
): Promise<Engine> {
  const path = /^rediss?:$/.test(URL.parse(url)?.protocol ?? "") && URL.parse(url)?.pathname;
  if (path === false || !/^(\/\d*)?$/.test(path ?? "")) {
    throw new TypeError("Cannot use REDIS_URL: it is not redis://… or rediss://…[/database]");
  }
  const { createClient } = await import("@redis/client");
  const prefix = `parley${path === "/" ? "" : path}`;
  const engine = new RedisEngine(createClient, url, prefix, limits, clock, log);
  await engine.connection.tried;
  return engine;
}

class RedisEngine implements Engine, RedisNode {
  readonly name = "redis";
  /** Names this node among all. */
  readonly id = newEpoch() + newEpoch();
  readonly connection: RedisConnection;
  readonly #rooms = new Map<string, RedisRoom>();
  readonly #repeats: RepeatBudget;
  readonly #keepMs: string;
  #nextSlot = 0;

  constructor(
    createClient: ConstructorParameters<typeof RedisConnection>[0],
    url: string,
    readonly prefix: string,
    readonly limits: HistoryLimits,
    readonly clock: Clock,
    log: Log,
  ) {
    this.#repeats = new RepeatBudget(limits.historyMb * 250_000);
    // A hosted room must outlast the time between two syncs.
    this.#keepMs = String(Math.max(limits.historySeconds * 1_000, LEASE_MS));
    const channelStart = `${prefix}:{`.length;
    this.connection = new RedisConnection(createClient, {
      url,
      clock,
      log,
      onUp: () => this.#resume(),
      onPush: (payload, channel) =>
        this.#rooms.get(channel.toString("latin1", channelStart, channel.length - 1))
          ?.push(payload),
      onTick: (tick) => this.#onTick(tick),
    });
  }

  get mayBury(): boolean {
    return this.clock.now() - this.connection.upSince > LEASE_MS;
  }

  run(
    script: ScriptName,
    keys: readonly string[],
    args: string[],
    isPatient?: boolean,
  ): Promise<unknown> {
    const { runId, isDurable } = this.connection.server;
    const all = [runId, isDurable ? "1" : "0", this.#keepMs, ...args];
    return this.connection.run(script, keys, all, isPatient);
  }

  host(name: string, host: Host): Promise<Head | Refusal> {
    const room = this.#open(name);
    if (!room) return Promise.resolve({ refused: "too_many_rooms" });
    this.connection.subscribe([room.keys[0]]);
    const opened = room.open(host);
    this.#index([name]);
    return opened;
  }

  release(name: string): void {
    const room = this.#rooms.get(name);
    if (!room?.host) return;
    this.connection.unsubscribe(room.keys[0]);
    room.close();
    if (!this.#dropIfIdle(room)) room.sync();
  }

  publish(name: string, { sender, message, key }: Draft): Promise<Outcome> {
    const args = [String(this.limits.historySize), pack(sender) + message];
    if (key) {
      const mayRemember = this.#repeats.take(key, this.clock.now());
      args.push(key.session, key.id, key.digest ?? "", mayRemember ? "1" : "0");
    }
    return this.run("publish", this.#keys(name), args).then(toOutcome);
  }

  relay(name: string, bytes: Uint8Array, from: string): void {
    const sender = Buffer.from(from);
    const payload = Buffer.concat([Buffer.from(`b${sender.length} `), sender, bytes]);
    this.connection.send(["SPUBLISH", this.#keys(name)[0], payload]);
  }

  join(name: string, member: string, as: string): Promise<Refusal | undefined> {
    const room = this.#open(name);
    if (!room) return Promise.resolve({ refused: "too_many_rooms" });
    return room.join(member, as);
  }

  leave(name: string, member: string): void {
    const room = this.#rooms.get(name);
    room?.leave(member).then(() => this.#dropIfIdle(room));
  }

  async members(name: string): Promise<Members | Refusal> {
    const answer = await this.run("members", this.#keys(name), []);
    if (!answer) return UNAVAILABLE;
    const [count, ...names] = answer as [number, ...string[]];
    const sorted = names.map((name) => unpack(name).text).sort();
    return { names: sorted.slice(0, MAX_NAMES), count };
  }

  async read(name: string, after?: Cursor): Promise<Span | Refusal> {
    const place = [after?.epoch ?? "", String(after?.seq ?? 0)];
    const answer = await this.run("read", this.#keys(name), place);
    if (answer === undefined) return UNAVAILABLE;
    if (answer === null) return { epoch: newEpoch(), seq: 0, chats: [] };
    const [epoch, seq, now, entries] = answer as [string, number, number, Entry[]];
    const keptSince = now - this.limits.historySeconds * 1_000;
    const chats = toChats(entries).filter((chat) => chat.time >= keptSince);
    return { epoch, seq, chats };
  }

  async rooms(after: string, limit: number): Promise<RoomSummary[]> {
    const found: RoomSummary[] = [];
    for (let last = after; found.length < limit;) {
      const range = [last === "" ? "-" : `(${last}`, "+", "BYLEX", "LIMIT", "0", `${ROOMS_A_PAGE}`];
      const names = await this.connection.send(["ZRANGE", this.#indexKey, ...range]) as string[];
      if (names === undefined) return this.#roomsHere(after, limit);
      if (names.length === 0) break;
      const page = await Promise.all(names.map((name) => this.#summarize(name)));
      found.push(...page.filter((summary) => summary !== undefined));
      last = names.at(-1)!;
    }
    return found.slice(0, limit);
  }

  isReady(): boolean {
    return this.connection.isUp;
  }

  stats(): EngineStats {
    return { rooms: this.#rooms.size, historyBytes: 0 };
  }

  async close(): Promise<void> {
    const rooms = [...this.#rooms.values()];
    this.#rooms.clear();
    await Promise.all(rooms.map((room) => room.end()));
    await this.connection.close();
  }

  get #indexKey(): string {
    return `${this.prefix}:rooms`;
  }

  #keys(name: string): readonly string[] {
    return this.#rooms.get(name)?.keys ?? keysOf(this.prefix, name);
  }

  /** The room's record; none if MAX_ROOMS are in use here. */
  #open(name: string): RedisRoom | undefined {
    let room = this.#rooms.get(name);
    if (!room && this.#rooms.size < this.limits.maxRooms) {
      const slot = this.#nextSlot++ % SYNC_TICKS;
      room = new RedisRoom(name, keysOf(this.prefix, name), slot, this);
      this.#rooms.set(name, room);
    }
    return room;
  }

  /** Lets go of a room that nobody here has to do with; tells whether it did. */
  #dropIfIdle(room: RedisRoom): boolean {
    if (!room.isIdle || this.#rooms.get(room.name) !== room) return false;
    this.#rooms.delete(room.name);
    this.run("release", room.keys, [this.id]).then((nodesLeft) => {
      if (nodesLeft === 0) this.connection.send(["ZREM", this.#indexKey, room.name]);
    });
    return true;
  }

  /** The connection is new: hear every hosted room, then catch up, then tell who is here. */
  #resume(): void {
    const rooms = [...this.#rooms.values()];
    const hosted = rooms.filter((room) => room.host);
    if (hosted.length > 0) this.connection.subscribe(hosted.map((room) => room.keys[0]));
    for (const room of rooms) room.sync(true);
    for (const room of rooms) room.register();
    this.#index(hosted.map((room) => room.name));
  }

  #onTick(tick: number): void {
    if (!this.connection.isUp) return;
    const slot = tick % SYNC_TICKS;
    for (const room of this.#rooms.values()) {
      if (room.slot === slot && !this.#dropIfIdle(room)) room.sync();
    }
    if (slot > 0) return;
    const hosted = this.#rooms.values().filter((room) => room.host).map((room) => room.name);
    this.#index([...hosted]);
  }

  /** Keeps names in the list of rooms with listeners. */
  #index(names: string[]): void {
    if (names.length === 0) return;
    this.connection.send(["ZADD", this.#indexKey, ...names.flatMap((name) => ["0", name])]);
  }

  async #summarize(name: string): Promise<RoomSummary | undefined> {
    const answer = await this.run("summary", this.#keys(name), [this.id]);
    if (!answer) return;
    const [seq, members, hosts, listeners] = answer as number[];
    const here = this.#rooms.get(name)?.host;
    if (hosts > 0 || here) {
      return { room: name, members, listeners: listeners + (here?.listenerCount ?? 0), seq };
    }
    this.connection.send(["ZREM", this.#indexKey, name]);
  }

  /** What this node knows of the rooms while Redis is away. */
  #roomsHere(after: string, limit: number): RoomSummary[] {
    return this.#rooms.values().filter((room) => room.host && room.name > after).toArray()
      .sort((a, b) => a.name < b.name ? -1 : 1).slice(0, limit)
      .map(({ name, host, seq, memberCount }) => ({
        room: name,
        members: memberCount,
        listeners: host?.listenerCount ?? 0,
        seq,
      }));
  }
}

/** What the `publish` script answered. */
function toOutcome(answer: unknown): Outcome {
  if (answer === "conflict") return { refused: answer };
  if (typeof answer !== "string" || answer === "unavailable") return UNAVAILABLE;
  const colon = answer.indexOf(":");
  return { epoch: answer.slice(0, colon), seq: Number(answer.slice(colon + 1)) };
}
