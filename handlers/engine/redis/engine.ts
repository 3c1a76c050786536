/**
 * The Redis engine: many processes and machines, one order per room. Redis numbers and keeps; each
 * node (a process) subscribes to the channels of its rooms, and reads what it missed from the log.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Span } from "../../protocol/page.ts";
import type { Cursor, Head } from "../../protocol/position.ts";
import type { Members, RoomSummary } from "../../protocol/room_event.ts";
import type { Clock } from "../../util/clock.ts";
import type { Log } from "../../util/log.ts";
import { RepeatBudget } from "../dedupe.ts";
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
import { type Entry, pack, type RedisNode, toChats, unpack } from "./room.ts";
import { RedisRooms } from "./rooms.ts";
import { LEASE_MS, MAX_NAMES } from "./scripts.ts";

const UNAVAILABLE: Refusal = { refused: "unavailable" };
/** Few reads at once: Redis drops a connection to which it has too much to send. */
const MAX_READS = 4;

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
  readonly #reads = new SharedReads((name, after) => this.#read(name, after));
  readonly #repeats: RepeatBudget;
  readonly #keepMs: string;

  constructor(
    createClient: ConstructorParameters<typeof RedisConnection>[0],
    url: string,
    prefix: string,
    readonly limits: HistoryLimits,
    readonly clock: Clock,
    log: Log,
  ) {
    this.#repeats = new RepeatBudget(limits.historyMb * 250_000);
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
      const mayRemember = this.#repeats.take(key, this.clock.now());
      args.push(key.session, key.id, key.digest ?? "", mayRemember ? "1" : "0");
    }
    this.#rooms.get(name)?.catchUp();
    return this.run("publish", this.#rooms.keysOf(name), args).then(toOutcome);
  }

  relay(name: string, bytes: Uint8Array, from: string): void {
    const sender = Buffer.from(from);
    const payload = Buffer.concat([Buffer.from(`b${sender.length} `), sender, bytes]);
    this.connection.send(["SPUBLISH", this.#rooms.keysOf(name)[0], payload]);
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

  async members(name: string): Promise<Members | Refusal> {
    const answer = await this.run("members", this.#rooms.keysOf(name), []);
    if (!answer) return UNAVAILABLE;
    const [count, ...names] = answer as [number, ...string[]];
    const sorted = names.map((name) => unpack(name).text).sort();
    return { names: sorted.slice(0, MAX_NAMES), count };
  }

  read(name: string, after?: Cursor): Promise<Span | Refusal> {
    return this.#reads.read(name, after);
  }

  rooms(after: string, limit: number): Promise<RoomSummary[]> {
    return this.#rooms.summaries(after, limit);
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

/** Reads a room after a position, or all of it. */
export type Read = (room: string, after?: Cursor) => Promise<Span | Refusal>;

/** A read that has not been sent: after the lowest position of all who share it. */
interface PendingRead extends PromiseWithResolvers<Span | Refusal> {
  after?: Cursor;
}

/** Sends a few reads at a time; reads of a room whose turn has not come yet share one. */
export class SharedReads {
  readonly #pending = new Map<string, PendingRead>();
  #sent = 0;

  constructor(readonly send: Read) {}

  /** The kept messages after `after`, as they are now or later: see the engine's `read`. */
  async read(room: string, after?: Cursor): Promise<Span | Refusal> {
    const span = await this.#enqueue(room, after);
    if (isRefusal(span) || after?.epoch !== span.epoch) return span;
    // A caller beyond the newest message gets all; a shared read may have brought less.
    if (after.seq > span.seq) return await this.#enqueue(room);
    return { ...span, chats: span.chats.filter((chat) => chat.seq > after.seq) };
  }

  #enqueue(room: string, after?: Cursor): Promise<Span | Refusal> {
    const pending = this.#pending.get(room);
    if (pending) {
      const { after: lowest } = pending;
      if (after?.epoch !== lowest?.epoch) pending.after = undefined;
      else if (after && lowest && after.seq < lowest.seq) pending.after = after;
      return pending.promise;
    }
    const read = { after, ...Promise.withResolvers<Span | Refusal>() };
    this.#pending.set(room, read);
    this.#sendNext();
    return read.promise;
  }

  async #sendNext(): Promise<void> {
    const [next] = this.#pending;
    if (!next || this.#sent === MAX_READS) return;
    const [room, { after, resolve }] = next;
    this.#pending.delete(room);
    this.#sent++;
    resolve(await this.send(room, after));
    this.#sent--;
    this.#sendNext();
  }
}
