/**
 * The Redis engine: many processes and machines, one order a room. Redis numbers and keeps; each
 * node (a process) hears the channels of the rooms it hosts, and reads what it missed from the log.
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
import type { Draft, Engine, EngineStats, Host, Outcome, Refusal } from "../engine.ts";
import { type HistoryLimits, newEpoch } from "../memory.ts";
import { RedisConnection, type ScriptName } from "./connection.ts";
import { LEASE_MS, MAX_NAMES } from "./presence.ts";
import { SharedReads } from "./reads.ts";
import type { RedisNode } from "./room.ts";
import { RedisRooms } from "./rooms.ts";
import { type Entry, pack, toChats, unpack } from "./view.ts";

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
    // A hosted room must outlast the time between two comparisons.
    this.#keepMs = String(Math.max(limits.historySeconds * 1_000, LEASE_MS));
    this.connection = new RedisConnection(createClient, {
      url,
      clock,
      log,
      onUp: () => this.#rooms.resume(),
      onPush: (payload, channel) => this.#rooms.push(payload, channel),
      onTick: (tick) => this.#rooms.onTick(tick),
    });
    const { maxRooms } = limits;
    this.#rooms = new RedisRooms({ node: this, connection: this.connection, prefix, maxRooms });
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
    return this.connection.isUp;
  }

  stats(): EngineStats {
    return { rooms: this.#rooms.size, historyBytes: 0 };
  }

  async close(): Promise<void> {
    await this.#rooms.end();
    await this.connection.close();
  }

  async #read(name: string, after?: Cursor): Promise<Span | Refusal> {
    const place = [after?.epoch ?? "", String(after?.seq ?? 0)];
    const answer = await this.run("read", this.#rooms.keysOf(name), place);
    if (answer === undefined) return UNAVAILABLE;
    if (answer === null) return { epoch: newEpoch(), seq: 0, chats: [] };
    const [epoch, seq, now, entries] = answer as [string, number, number, Entry[]];
    const keptSince = now - this.limits.historySeconds * 1_000;
    const chats = toChats(entries).filter((chat) => chat.time >= keptSince);
    return { epoch, seq, chats };
  }
}

/** What the `publish` script answered. */
function toOutcome(answer: unknown): Outcome {
  if (answer === "conflict") return { refused: answer };
  if (typeof answer !== "string" || answer === "unavailable") return UNAVAILABLE;
  const colon = answer.indexOf(":");
  return { epoch: answer.slice(0, colon), seq: Number(answer.slice(colon + 1)) };
}
