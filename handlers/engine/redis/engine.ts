/**
 * The Redis engine: many processes and machines, one order per room. Redis numbers and keeps; each
 * node (a process) subscribes to the channels of its rooms, and reads what it missed from the log.
 *
 * @module
 */
import { DEFAULT_MAX_KEYS, DEFAULT_MAX_STATE_BYTES } from "../state_map.ts";
import type { Span } from "../../protocol/page.ts";
import type { Cursor, Head, StateCursor } from "../../protocol/position.ts";
import type { Members, RoomSummary, StateSpan, Transient } from "../../protocol/room_event.ts";
import type { Clock } from "../../util/clock.ts";
import type { Log } from "../../util/log.ts";
import { FairShare } from "../budget.ts";
import { DEDUPE_MS } from "../dedupe.ts";
import {
  type Change,
  type Draft,
  type Engine,
  type EngineStats,
  type Host,
  type IdempotencyKey,
  isRefusal,
  type Outcome,
  type Refusal,
} from "../engine.ts";
import { type HistoryLimits, newEpoch } from "../memory.ts";
import type { ScriptName } from "./connection.ts";
import { Lease } from "./lease.ts";
import { Outbox } from "./outbox.ts";
import {
  type ChangedKey,
  encodeText,
  type Entry,
  pack,
  type RedisNode,
  type RedisRoom,
  toChats,
  toEntry,
  toPayload,
  unpack,
} from "./room.ts";
import { RedisRooms, TICK_MS } from "./rooms.ts";
import { MAX_NAMES } from "./scripts.ts";
import { parseRedisUrl, type ShardOptions, Shards } from "./shards.ts";

const UNAVAILABLE: Refusal = { refused: "unavailable" };
/** Few reads at once: Redis drops a connection to which it has too much to send. */
const MAX_READS = 4;
/** The node renews its lease every 5 s. */
const LEASE_TICKS = 25;
/** How long a list of rooms is shared, in ms. */
const LIST_MS = 1_000;

/**
 * Creates the Redis engine. Resolves when the first attempt to connect has succeeded or failed; after
 * a failure the engine keeps trying.
 *
 * @param url see {@link parseRedisUrl}
 * @throws {OptionError} if the URL is of another kind, or a rule of the limits is none
 */
export async function createRedisEngine(
  url: string,
  limits: HistoryLimits,
  clock: Clock,
  log: Log,
): Promise<Engine> {
  const parsed = parseRedisUrl(url);
  const { createClient } = await import("@redis/client");
  const engine = new RedisEngine({ createClient, url: parsed, clock, log }, limits);
  await engine.shards.firstAttempt;
  return engine;
}

class RedisEngine implements Engine, RedisNode {
  readonly name = "redis";
  /** Identifies this node among all. */
  readonly id = newEpoch() + newEpoch();
  readonly shards: Shards;
  readonly clock: Clock;
  readonly #rooms: RedisRooms;
  readonly events: string;
  readonly #outbox = new Outbox(this);
  readonly #lease: Lease;
  readonly #leaseKey: string;
  readonly #queue = new ReadQueue();
  readonly #reads = new SharedReads(this.#queue, (name, after) => this.#read(name, after));
  readonly #keys: KeyBudget;
  readonly #lists = new Map<string, { until: number; rooms: Promise<RoomSummary[]> }>();
  readonly #stopTicks: () => void;
  #tick = 0;

  constructor(
    options: Pick<ShardOptions, "createClient" | "url" | "clock" | "log">,
    readonly limits: HistoryLimits,
  ) {
    const { clock, url: { database } } = options;
    const prefix = database === 0 ? "parley" : `parley/${database}`;
    this.clock = clock;
    this.events = limits.events?.join() ?? "";
    this.#keys = new KeyBudget(limits.historyMb * 250_000);
    this.#leaseKey = `${prefix}:nodes`;
    this.#lease = new Lease(clock, () => this.run("renew", [this.#leaseKey], [this.id]));
    this.shards = new Shards({
      ...options,
      onConnect: (connection, isSameServer) => {
        if (connection === this.shards.of(this.#leaseKey)) this.#renew();
        this.#rooms.onConnect(connection, isSameServer);
      },
      onPush: (...push) => this.#rooms.push(...push),
      onTopology: () => this.#rooms.onTopology(),
      onUnsubscribed: (channel) => this.#rooms.onUnsubscribed(channel),
    });
    const { shards } = this;
    this.#rooms = new RedisRooms({ node: this, shards, prefix, limits });
    this.#stopTicks = clock.every(TICK_MS, () => this.#onTick());
  }

  get live(): Lease["live"] {
    return this.#lease.live;
  }

  async flush(room: RedisRoom): Promise<void> {
    if (this.events) await this.#outbox.flush(room);
  }

  onStale(room: RedisRoom): void {
    this.#rooms.onStale(room);
  }

  onTimed(room: RedisRoom): void {
    this.#rooms.onTimed(room);
  }

  run(
    script: ScriptName,
    keys: readonly string[],
    args: string[],
    hasTimeout?: boolean,
  ): Promise<unknown> {
    const connection = this.shards.of(keys[0]);
    if (!connection) return Promise.resolve(undefined);
    const { runId, isDurable } = connection.server;
    const keepMs = this.#rooms.keepMsOf(keys[0]);
    const all = [runId, isDurable ? "1" : "0", String(keepMs), ...args];
    return connection.run(script, keys, all, hasTimeout);
  }

  host(name: string, host: Host, address?: string): Promise<Head | Refusal> {
    const room = this.#rooms.open(name, address);
    if (!room) return Promise.resolve({ refused: "too_many_rooms" });
    room.connection?.subscribe([room.keys[0]]);
    const opened = room.open(host);
    this.#rooms.list([room]);
    return opened;
  }

  release(name: string): void {
    const room = this.#rooms.get(name);
    if (!room?.host) return;
    room.connection?.unsubscribe(room.keys[0]);
    room.close();
    if (!this.#rooms.dropIfIdle(room)) room.sync();
  }

  publish(name: string, { sender, message, key, address }: Draft): Promise<Outcome> {
    const { historySize } = this.#rooms.limitsOf(name);
    const args = [String(historySize), pack(sender) + encodeText(message)];
    this.#rooms.get(name)?.catchUp();
    return this.run("publish", this.#rooms.keysOf(name), [...this.#toArgs(key, address), ...args])
      .then(toOutcome);
  }

  async set(name: string, change: Change): Promise<StateCursor | Refusal> {
    const { id, key, sender, value, ttlSeconds = 0, member, owner } = change;
    const boundTo = member === undefined ? "" : `${this.id}/${member}`;
    const { maxKeys = DEFAULT_MAX_KEYS } = this.#rooms.limitsOf(name);
    const { maxStateBytes = DEFAULT_MAX_STATE_BYTES } = this.limits;
    const numbers = [
      change.if ?? "",
      1_000 * ttlSeconds,
      boundTo,
      Math.min(maxKeys, 1e9),
      maxStateBytes,
    ];
    const args = [key, pack(sender), encodeText(value), ...numbers.map(String)];
    this.#rooms.get(name)?.catchUp();
    const keys = this.#rooms.keysOf(name);
    const answer = await this.run("set", keys, [...this.#toArgs(id, owner), ...args]);
    if (!Array.isArray(answer)) return UNAVAILABLE;
    const [epoch, rev] = answer as [string, number];
    if (epoch === "rev_conflict") return { refused: epoch, rev };
    const isRefused = epoch === "conflict" || epoch === "too_many_keys" || epoch === "unavailable";
    return isRefused ? { refused: epoch } : { epoch, rev };
  }

  state(name: string, since?: StateCursor): Promise<StateSpan | Refusal> {
    const position = [since?.epoch ?? "", String(since?.rev ?? 0)];
    return this.#queue.share(`state ${name} ${position}`, async () => {
      const answer = await this.run("readState", this.#rooms.keysOf(name), position);
      if (answer === undefined) return UNAVAILABLE;
      if (answer === null) return { epoch: newEpoch(), rev: 0, entries: [] };
      const [epoch, rev, from, changed] = answer as [string, number, number, ChangedKey[]];
      const entries = changed.map(toEntry);
      if (from < 0) return { epoch, rev, entries: entries.sort((a, b) => a.key < b.key ? -1 : 1) };
      return { epoch, rev, since: from, entries: entries.sort((a, b) => a.rev - b.rev) };
    });
  }

  relay(name: string, event: Transient): void {
    const channel = this.#rooms.keysOf(name)[0];
    this.shards.of(channel)?.send(["SPUBLISH", channel, toPayload(event)]);
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
    return this.shards.all.some((connection) => connection.isConnected);
  }

  stats(): EngineStats {
    const rooms = this.#rooms.size;
    const isFull = rooms >= this.limits.maxRooms;
    return { rooms, historyBytes: 0, isFull, remote: this.shards.stats };
  }

  async close(): Promise<void> {
    this.#stopTicks();
    await this.#rooms.end();
    await this.shards.of(this.#leaseKey)?.send(["ZREM", this.#leaseKey, this.id]);
    await this.shards.close();
  }

  #onTick(): void {
    if (this.#lease.isLost || this.#tick++ % LEASE_TICKS === 0) this.#renew();
    this.#rooms.onTick();
    this.#outbox.retry();
  }

  /** The arguments for an id, or for none. */
  #toArgs(key?: IdempotencyKey, address?: string): string[] {
    if (!key) return ["", "", "", ""];
    const { session, id, digest = "" } = key;
    // A session's ids replace its oldest ones; keys with a digest must stay for their five minutes.
    const bytes = session.length + id.length + digest.length + 200;
    const hasSpace = digest === "" || this.#keys.tryConsume(bytes, this.clock.now(), address);
    return [encodeText(session), encodeText(id), digest, hasSpace ? "1" : "0"];
  }

  async #renew(): Promise<void> {
    const { hasEnded, isNodeGone } = await this.#lease.keep();
    if (hasEnded) this.#rooms.registerAll();
    if (isNodeGone) this.#rooms.compareAll();
    if (isNodeGone && this.events) await this.#rooms.bury();
  }

  async #read(name: string, after?: Cursor): Promise<Span | Refusal> {
    const position = [after?.epoch ?? "", String(after?.seq ?? 0)];
    const answer = await this.run("read", this.#rooms.keysOf(name), position);
    if (answer === undefined) return UNAVAILABLE;
    if (answer === null) return { epoch: newEpoch(), seq: 0, chats: [] };
    const [epoch, seq, now, entries] = answer as [string, number, number, Entry[]];
    const keptSince = now - this.#rooms.limitsOf(name).historySeconds * 1_000;
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

/**
 * Bounds the bytes of what Redis remembers for this node: of this period of 5 minutes and the last one.
 * An address may use half of what the others leave.
 */
export class KeyBudget {
  #period = 0;
  #keys: FairShare;

  constructor(readonly maxBytes: number) {
    this.#keys = new FairShare(maxBytes);
  }

  /** Counts bytes in, if there is space; returns whether there was. */
  tryConsume(bytes: number, now: number, address?: string): boolean {
    const period = Math.floor(now / DEDUPE_MS);
    if (period !== this.#period) {
      const lastBytes = period === this.#period + 1 ? this.#keys.used : 0;
      this.#keys = new FairShare(this.maxBytes - lastBytes);
      this.#period = period;
    }
    if (!this.#keys.hasSpace(bytes, address)) return false;
    this.#keys.count(bytes, address);
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
