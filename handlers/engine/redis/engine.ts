/**
 * The Redis engine: many processes and machines, one order per room. Redis numbers and keeps; each
 * node (a process) subscribes to the channels of its rooms, and reads what it missed from the log.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { Span } from "../../protocol/page.ts";
import type { Cursor, Head } from "../../protocol/position.ts";
import type { Members, RoomSummary, Transient } from "../../protocol/room_event.ts";
import type { Clock } from "../../util/clock.ts";
import type { Log } from "../../util/log.ts";
import { DEDUPE_MS } from "../dedupe.ts";
import {
  type Draft,
  type Engine,
  type EngineStats,
  type Host,
  isRefusal,
  type Outcome,
  type Refusal,
} from "../engine.ts";
import { type HistoryLimits, newEpoch } from "../memory.ts";
import { RedisConnection, type ScriptName } from "./connection.ts";
import { type Entry, pack, type RedisNode, toChats, toPayload, unpack } from "./room.ts";
import { RedisRooms } from "./rooms.ts";
import { LEASE_MS, MAX_NAMES } from "./scripts.ts";

const UNAVAILABLE: Refusal = { refused: "unavailable" };
/** Few reads at once: Redis drops a connection to which it has too much to send. */
const MAX_READS = 4;
/** How long a list of rooms is shared, in ms. */
const LIST_MS = 1_000;

/**
 * Creates the Redis engine. Resolves when the first attempt to connect has succeeded or failed; after
 * a failure the engine keeps trying.
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
  const { protocol = "", pathname = "" } = URL.parse(url) ?? {};
  if (!/^rediss?:$/.test(protocol) || !/^(\/\d*)?$/.test(pathname)) {
    throw new TypeError("Cannot use REDIS_URL: it is not redis://… or rediss://…[/database]");
  }
  const database = Number(pathname.slice(1));
  const { createClient } = await import("@redis/client");
  const prefix = database === 0 ? "parley" : `parley/${database}`;
  const engine = new RedisEngine(createClient, url, prefix, limits, clock, log);
  await engine.connection.firstAttempt;
  return engine;
}

class RedisEngine implements Engine, RedisNode {
  readonly name = "redis";
  /** Identifies this node among all. */
  readonly id = newEpoch() + newEpoch();
  readonly connection: RedisConnection;
  readonly #rooms: RedisRooms;
  readonly #queue = new ReadQueue();
  readonly #reads = new SharedReads(this.#queue, (name, after) => this.#read(name, after));
  readonly #keys: KeyBudget;
  readonly #lists = new Map<string, { until: number; rooms: Promise<RoomSummary[]> }>();
  readonly #keepMs: string;

  constructor(
    createClient: ConstructorParameters<typeof RedisConnection>[0],
    url: string,
    prefix: string,
    readonly limits: HistoryLimits,
    readonly clock: Clock,
    log: Log,
  ) {
    this.#keys = new KeyBudget(limits.historyMb * 250_000);
    // A hosted room must outlive the time between two comparisons.
    this.#keepMs = String(Math.max(limits.historySeconds * 1_000, LEASE_MS));
    this.connection = new RedisConnection(createClient, {
      url,
      clock,
      log,
      onConnect: () => this.#rooms.resume(),
      onPush: (payload, channel) => this.#rooms.push(payload, channel),
      onTick: (tick) => this.#rooms.onTick(tick),
    });
    const { maxRooms } = limits;
    this.#rooms = new RedisRooms({ node: this, connection: this.connection, prefix, maxRooms });
  }

  get canRemoveNodes(): boolean {
    return this.clock.now() - this.connection.connectedAt > LEASE_MS;
  }

  run(
    script: ScriptName,
    keys: readonly string[],
    args: string[],
    hasTimeout?: boolean,
  ): Promise<unknown> {
    const { runId, isDurable } = this.connection.server;
    const all = [runId, isDurable ? "1" : "0", this.#keepMs, ...args];
    return this.connection.run(script, keys, all, hasTimeout);
  }

  host(name: string, host: Host): Promise<Head | Refusal> {
    const room = this.#rooms.open(name);
    if (!room) return Promise.resolve({ refused: "too_many_rooms" });
    this.connection.subscribe([room.keys[0]]);
    const opened = room.open(host);
    this.#rooms.list([name]);
    return opened;
  }

  release(name: string): void {
    const room = this.#rooms.get(name);
    if (!room?.host) return;
    this.connection.unsubscribe(room.keys[0]);
    room.close();
    if (!this.#rooms.dropIfIdle(room)) room.sync();
  }

  publish(name: string, { sender, message, key }: Draft): Promise<Outcome> {
    const args = [String(this.limits.historySize), pack(sender) + message];
    if (key) {
      const { session, id, digest = "" } = key;
      // A session's ids replace its oldest ones; keys with a digest must stay for their five minutes.
      const bytes = session.length + id.length + digest.length + 200;
      const hasSpace = digest === "" || this.#keys.tryConsume(bytes, this.clock.now());
      args.push(session, id, digest, hasSpace ? "1" : "0");
    }
    this.#rooms.get(name)?.catchUp();
    return this.run("publish", this.#rooms.keysOf(name), args).then(toOutcome);
  }

  relay(name: string, event: Transient): void {
    this.connection.send(["SPUBLISH", this.#rooms.keysOf(name)[0], toPayload(event)]);
  }

  join(name: string, member: string, as: string): Promise<Refusal | undefined> {
    const room = this.#rooms.open(name);
    if (!room) return Promise.resolve({ refused: "too_many_rooms" });
    return room.join(member, as);
  }

  leave(name: string, member: string): void {
    const room = this.#rooms.get(name);
    room?.leave(member).then(() => this.#rooms.dropIfIdle(room));
  }

  members(name: string): Promise<Members | Refusal> {
    return this.#queue.share(`members ${name}`, async () => {
      const answer = await this.run("members", this.#rooms.keysOf(name), []);
      if (!answer) return UNAVAILABLE;
      const [count, ...names] = answer as [number, ...string[]];
      const sorted = names.map((name) => unpack(name).text).sort();
      return { names: sorted.slice(0, MAX_NAMES), count };
    });
  }

  read(name: string, after?: Cursor): Promise<Span | Refusal> {
    return this.#reads.read(name, after);
  }

  /** A list is shared for a second: it costs Redis much, and is never quite up to date anyway. */
  rooms(after: string, limit: number): Promise<RoomSummary[]> {
    const now = this.clock.now();
    for (const [key, { until }] of this.#lists) if (until <= now) this.#lists.delete(key);
    const key = `rooms ${limit} ${after}`;
    let list = this.#lists.get(key);
    if (!list) {
      const rooms = this.#queue.share(key, () => this.#rooms.summaries(after, limit));
      list = { until: now + LIST_MS, rooms };
      this.#lists.set(key, list);
    }
    return list.rooms;
  }

  isReady(): boolean {
    return this.connection.isConnected;
  }

  stats(): EngineStats {
    return { rooms: this.#rooms.size, historyBytes: 0 };
  }

  async close(): Promise<void> {
    await this.#rooms.end();
    await this.connection.close();
  }

  async #read(name: string, after?: Cursor): Promise<Span | Refusal> {
    const position = [after?.epoch ?? "", String(after?.seq ?? 0)];
    const answer = await this.run("read", this.#rooms.keysOf(name), position);
    if (answer === undefined) return UNAVAILABLE;
    if (answer === null) return { epoch: newEpoch(), seq: 0, chats: [] };
    const [epoch, seq, now, entries] = answer as [string, number, number, Entry[]];
    const keptSince = now - this.limits.historySeconds * 1_000;
    const chats = toChats(entries).filter((chat) => chat.time >= keptSince);
    return { epoch, seq, chats };
  }
}

/** Reads the answer of the `publish` script. */
function toOutcome(answer: unknown): Outcome {
  if (answer === "conflict") return { refused: answer };
  if (typeof answer !== "string" || answer === "unavailable") return UNAVAILABLE;
  const colon = answer.indexOf(":");
  return { epoch: answer.slice(0, colon), seq: Number(answer.slice(colon + 1)) };
}

/** Bounds the bytes of what Redis remembers for this node: of this period of 5 minutes and the last one. */
export class KeyBudget {
  #period = 0;
  #bytes = 0;
  #lastBytes = 0;

  constructor(readonly maxBytes: number) {}

  /** Counts bytes in, if there is space; returns whether there was. */
  tryConsume(bytes: number, now: number): boolean {
    const period = Math.floor(now / DEDUPE_MS);
    if (period !== this.#period) {
      this.#lastBytes = period === this.#period + 1 ? this.#bytes : 0;
      this.#bytes = 0;
      this.#period = period;
    }
    if (this.#bytes + this.#lastBytes + bytes > this.maxBytes) return false;
    this.#bytes += bytes;
    return true;
  }
}

/** Runs few reads at a time, in the order of the calls, so that reads never crowd out messages. */
export class ReadQueue {
  readonly #waiting = new Map<string, () => void>();
  readonly #shared = new Map<string, Promise<unknown>>();
  #running = 0;

  /** Runs a read when its turn comes. Calls with the same key share one until it starts. */
  share<T>(key: string, read: () => Promise<T>): Promise<T> {
    const shared = this.#shared.get(key);
    if (shared) return shared as Promise<T>;
    const { promise, resolve } = Promise.withResolvers<T>();
    this.#shared.set(key, promise);
    this.#waiting.set(key, async () => {
      this.#shared.delete(key);
      this.#running++;
      resolve(await read());
      this.#running--;
      this.#next();
    });
    this.#next();
    return promise;
  }

  #next(): void {
    const [first] = this.#waiting;
    if (!first || this.#running === MAX_READS) return;
    this.#waiting.delete(first[0]);
    first[1]();
  }
}

/** Reads a room after a position, or all of it. */
export type Read = (room: string, after?: Cursor) => Promise<Span | Refusal>;

/** Reads of logs; those of a room whose turn has not come yet share one, from the lowest position. */
export class SharedReads {
  readonly #lowest = new Map<string, { after?: Cursor }>();

  constructor(readonly queue: ReadQueue, readonly send: Read) {}

  /** The kept messages after `after`, as they are now or later: see the engine's `read`. */
  async read(room: string, after?: Cursor): Promise<Span | Refusal> {
    const span = await this.#enqueue(room, after);
    if (isRefusal(span) || after?.epoch !== span.epoch) return span;
    // A caller beyond the newest message gets all; a shared read may have brought less.
    if (after.seq > span.seq) return await this.#enqueue(room);
    return { ...span, chats: span.chats.filter((chat) => chat.seq > after.seq) };
  }

  #enqueue(room: string, after?: Cursor): Promise<Span | Refusal> {
    const lowest = this.#lowest.get(room);
    if (!lowest) this.#lowest.set(room, { after });
    else if (after?.epoch !== lowest.after?.epoch) lowest.after = undefined;
    else if (after && lowest.after && after.seq < lowest.after.seq) lowest.after = after;
    return this.queue.share(`read ${room}`, () => {
      const { after } = this.#lowest.get(room)!;
      this.#lowest.delete(room);
      return this.send(room, after);
    });
  }
}
