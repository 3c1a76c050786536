/**
 * The Redis engine: many processes and machines, one order per room. Redis numbers and keeps; each
 * node (a process) subscribes to the channels of its rooms, and reads what it missed from the log.
 */
import type { Span } from "../../protocol/page.ts";
import type { Cursor, Head, StateCursor } from "../../protocol/position.ts";
import type { Members, RoomSummary, StateSpan, Transient } from "../../protocol/room_event.ts";
import type { Clock } from "../../util/clock.ts";
import type { Log } from "../../util/log.ts";
import type { Change, Draft, Engine, EngineStats, Host, Outcome, Refusal } from "../engine.ts";
import { UNAVAILABLE } from "../engine.ts";
import { newEpoch } from "../memory_room.ts";
import { firstByName } from "../presence.ts";
import type { HistoryLimits } from "../room_rules.ts";
import type { ChangedKey, Entry } from "./encoding.ts";
import { encodeText, pack, toChats, toEntry, toPayload, toPerson } from "./encoding.ts";
import { KeyBudget } from "./key_budget.ts";
import { LocalNode } from "./local_node.ts";
import { ReadQueue } from "./reads.ts";
import type { RedisRooms } from "./rooms.ts";
import type { ScriptName } from "./run_script.ts";
import type { ShardOptions } from "./shards.ts";
import { parseRedisUrl } from "./url.ts";

/** How long a list of rooms is shared, in ms. */
const LIST_MS = 1_000;

/**
 * Creates the Redis engine. Resolves when the first attempt to connect has succeeded or failed; after
 * a failure the engine keeps trying.
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
  await engine.node.shards.firstAttempt;
  return engine;
}

type StateAnswer = [epoch: string, rev: number, from: number, changed: ChangedKey[]];
type LogAnswer = [epoch: string, seq: number, now: number, entries: Entry[]];

class RedisEngine implements Engine {
  readonly name = "redis";
  readonly node: LocalNode;
  readonly #rooms: RedisRooms;
  readonly #queue = new ReadQueue();
  readonly #keys: KeyBudget;
  readonly #lists = new Map<string, { until: number; rooms: Promise<RoomSummary[] | Refusal> }>();

  constructor(
    options: Pick<ShardOptions, "createClient" | "url" | "clock" | "log">,
    readonly limits: HistoryLimits,
  ) {
    this.node = new LocalNode(options, limits, (room, draft) => this.publish(room, draft));
    this.#rooms = this.node.rooms;
    this.#keys = new KeyBudget(limits.historyMb * 250_000);
  }

  host(name: string, host: Host, address?: string): Promise<Head | Refusal> {
    const room = this.#rooms.open(name, address);
    if (!room) return Promise.resolve({ refused: "too_many_rooms" });
    room.connection?.subscribe([room.keys[0]]);
    const opened = room.open(host);
    this.#rooms.list.add([room]);
    return opened;
  }

  release(name: string): void {
    const room = this.#rooms.used.get(name);
    if (!room?.view) return;
    room.connection?.unsubscribe(room.keys[0]);
    room.close();
    if (!this.#rooms.dropIfIdle(room)) room.sync();
  }

  publish(name: string, { sender, message, key, address }: Draft): Promise<Outcome> {
    const { historySize } = this.#rooms.limitsOf(name);
    const id = this.#keys.toArgs(this.node.clock, key, address);
    const args = [...id, historySize, pack(sender) + encodeText(message)];
    this.#rooms.used.get(name)?.catchUp();
    return this.#run("publish", name, args).then((answer) => toPlace(answer, "seq"));
  }

  async set(name: string, change: Change): Promise<StateCursor | Refusal> {
    const { id, key, sender, value, ttlSeconds = 0, member, owner } = change;
    const boundTo = member === undefined ? "" : `${this.node.id}/${member}`;
    const { maxKeys, maxStateBytes } = this.#rooms.limitsOf(name);
    const what = [key, pack(sender), encodeText(value), change.if ?? "", 1_000 * ttlSeconds];
    this.#rooms.used.get(name)?.catchUp();
    const ids = this.#keys.toArgs(this.node.clock, id, owner);
    const args = [...ids, ...what, boundTo, maxKeys, maxStateBytes];
    return toPlace(await this.#run("set", name, args), "rev");
  }

  state(name: string, since?: StateCursor): Promise<StateSpan | Refusal> {
    const position = [since?.epoch ?? "", since?.rev ?? 0];
    return this.#read("readState", name, position, (answer) => {
      const [epoch, rev, from, changed] = (answer ?? [newEpoch(), 0, -1, []]) as StateAnswer;
      const entries = changed.map(toEntry);
      if (from < 0) return { epoch, rev, entries: entries.sort((a, b) => a.key < b.key ? -1 : 1) };
      return { epoch, rev, since: from, entries: entries.sort((a, b) => a.rev - b.rev) };
    });
  }

  relay(name: string, event: Transient): void {
    const channel = this.#rooms.keysOf(name)[0];
    this.node.shards.of(channel)?.send(["SPUBLISH", channel, toPayload(event)]);
  }

  join(name: string, member: string, as: string, user?: string): Promise<Refusal | undefined> {
    const room = this.#rooms.open(name);
    if (!room) return Promise.resolve({ refused: "too_many_rooms" });
    return room.members.join(member, as, user);
  }

  leave(name: string, member: string): void {
    const room = this.#rooms.used.get(name);
    room?.members.leave(member).then(() => this.#rooms.dropIfIdle(room));
  }

  members(name: string): Promise<Members | Refusal> {
    return this.#read("members", name, [], (answer) => {
      const [count, ...people] = answer as [number, ...string[]];
      return { members: firstByName(people.map(toPerson)), count };
    });
  }

  read(name: string, after?: Cursor): Promise<Span | Refusal> {
    const position = [after?.epoch ?? "", after?.seq ?? 0];
    return this.#read("read", name, position, (answer) => {
      const [epoch, seq, now, entries] = (answer ?? [newEpoch(), 0, 0, []]) as LogAnswer;
      const keptSince = now - this.#rooms.limitsOf(name).historySeconds * 1_000;
      return { epoch, seq, chats: toChats(entries).filter((chat) => chat.time >= keptSince) };
    });
  }

  /** A list is shared for a second: it costs Redis much, and is never quite up to date anyway. */
  rooms(after: string, limit: number): Promise<RoomSummary[] | Refusal> {
    const now = this.node.clock.elapsedMs();
    for (const [key, { until }] of this.#lists) if (until <= now) this.#lists.delete(key);
    const key = `rooms ${limit} ${after}`;
    const read = () => this.#queue.share(key, () => this.#rooms.list.summaries(after, limit));
    const list = this.#lists.get(key) ?? { until: now + LIST_MS, rooms: read() };
    this.#lists.set(key, list);
    return list.rooms;
  }

  isReady(): boolean {
    return this.node.shards.all.some((connection) => connection.isConnected);
  }

  stats(): EngineStats {
    const rooms = this.#rooms.used.size;
    const isFull = rooms >= this.limits.maxRooms;
    return { rooms, historyBytes: 0, isFull, remote: this.node.shards.stats };
  }

  close(): Promise<void> {
    return this.node.close();
  }

  #run(script: ScriptName, room: string, args: (string | number)[]): Promise<unknown> {
    return this.node.run(script, this.#rooms.keysOf(room), args);
  }

  /** A read, shared by all who wait for the same. The answer is `null` if Redis does not have the room. */
  #read<T>(
    script: ScriptName,
    room: string,
    args: (string | number)[],
    toResult: (answer: unknown) => T,
  ): Promise<T | Refusal> {
    return this.#queue.share(`${script} ${room} ${args}`, async () => {
      const answer = await this.#run(script, room, args);
      return answer === undefined ? UNAVAILABLE : toResult(answer);
    });
  }
}

/** The place that `publish` and `set` answer with, or the refusal. */
function toPlace<Name extends "seq" | "rev">(
  answer: unknown,
  name: Name,
): { epoch: string } & Record<Name, number> | Refusal {
  if (typeof answer !== "string") return UNAVAILABLE;
  const colon = answer.indexOf(":");
  if (colon < 0) return { refused: answer as Refusal["refused"] };
  const [epoch, number] = [answer.slice(0, colon), Number(answer.slice(colon + 1))];
  if (epoch === "rev_conflict") return { refused: epoch, rev: number };
  return { epoch, [name]: number } as { epoch: string } & Record<Name, number>;
}
