/** The list of hosted rooms in Redis, and what Redis tells of them. */
import type { RoomSummary } from "../../protocol/room_event.ts";
import { type Refusal, UNAVAILABLE } from "../engine.ts";
import type { RedisNode, RedisRoom } from "./room.ts";
import { keysOf } from "./scripts/room.ts";
import type { Shards } from "./shards.ts";

/** The most rooms in one command, so that none keeps Redis busy for long. */
const BATCH_ROOMS = 500;

/** `hosts`: how many other nodes host the room; `isLeft`: whether dead nodes have left something there. */
type Listed = RoomSummary & { hosts: number; isLeft: boolean };

/** The sorted set of hosted rooms; a name that no node hosts any more is removed when it is read. */
export class RoomList {
  readonly #key: string;

  /** @param rooms those of this node */
  constructor(
    readonly node: RedisNode,
    readonly shards: Shards,
    readonly prefix: string,
    readonly rooms: ReadonlyMap<string, RedisRoom>,
  ) {
    this.#key = `${prefix}:rooms`;
  }

  add(rooms: RedisRoom[]): void {
    for (const batch of inBatches(rooms)) {
      this.#send(["ZADD", this.#key, ...batch.flatMap(({ name }) => ["0", name])]);
    }
  }

  remove(names: string[]): void {
    if (names.length > 0) this.#send(["ZREM", this.#key, ...names]);
  }

  /** All names after one, page by page, `first` in the first; `undefined` for a page that Redis does not give. */
  async *pages(after = "", first = BATCH_ROOMS): AsyncGenerator<string[] | undefined> {
    let last = after;
    for (let size = first, isLast = false; !isLast; size = BATCH_ROOMS) {
      const range = [last === "" ? "-" : `(${last}`, "+", "BYLEX", "LIMIT", "0", `${size}`];
      const names = await this.#send(["ZRANGE", this.#key, ...range]);
      if (!Array.isArray(names)) return yield undefined;
      yield names;
      isLast = names.length < size;
      last = names.at(-1);
    }
  }

  /** What Redis has of rooms, those of each server in one command; none of a server that is away. */
  async read(names: string[], hasTimeout?: boolean): Promise<Listed[]> {
    const { id, live } = this.node;
    const headOf = (name: string) => keysOf(this.prefix, name)[0];
    const servers = Map.groupBy(names, (name) => this.shards.of(headOf(name)));
    const parts = await Promise.all(
      servers.values().map(async (own) => {
        const heads = own.map(headOf);
        const args = [id, live.nodes, live.seenAt, ...heads];
        const answer = await this.node.run("summaries", [heads[0]], args, hasTimeout);
        const rooms = (answer ?? []) as number[][];
        return rooms.map(([seq, members, hosts, listeners, isLeft], index) => {
          const isAbandoned = isLeft === 1 || (hosts === 0 && members > 0);
          return { room: own[index], seq, members, hosts, listeners, isLeft: isAbandoned };
        });
      }),
    );
    return parts.flat().filter(({ seq }) => seq !== undefined);
  }

  async summaries(after: string, limit: number): Promise<RoomSummary[] | Refusal> {
    const found: RoomSummary[] = [];
    for await (const names of this.pages(after, Math.min(limit, BATCH_ROOMS))) {
      if (!names) return UNAVAILABLE;
      const unused: string[] = [];
      for (const { room, seq, members, hosts, listeners, isLeft } of await this.read(names)) {
        const host = this.rooms.get(room)?.view?.host;
        if (host || hosts > 0) {
          found.push({ room, members, listeners: listeners + (host?.subscriberCount ?? 0), seq });
        } else if (!isLeft) unused.push(room);
      }
      this.remove(unused);
      if (found.length >= limit) break;
    }
    return found.sort((a, b) => a.room < b.room ? -1 : 1).slice(0, limit);
  }

  #send(command: string[]): Promise<unknown> {
    return this.shards.of(this.#key)?.send(command) ?? Promise.resolve(undefined);
  }
}

/** Rooms in parts that one command can take. */
export function* inBatches<T>(items: T[]): Generator<T[]> {
  for (let i = 0; i < items.length; i += BATCH_ROOMS) yield items.slice(i, i + BATCH_ROOMS);
}
