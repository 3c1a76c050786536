/** The rooms of one node: which there are, and which connection each one is on. */
import type { Buffer } from "node:buffer";
import { FairShare } from "../budget.ts";
import { type HistoryLimits, type RoomLimits, roomLimits } from "../room_rules.ts";
import { Comparison, MIN_KEEP_MS, ROUND_TICKS } from "./comparison.ts";
import type { RedisConnection } from "./connection.ts";
import { RoomList } from "./list.ts";
import { type RedisNode, RedisRoom } from "./room.ts";
import { keysOf } from "./scripts/room.ts";
import type { Shards } from "./shards.ts";

/** Few syncs at once: Redis drops a connection to which it has too much to send. */
const MAX_SYNCS = 8;

/** The rooms that a node hosts or has members in. */
export class RedisRooms {
  readonly list: RoomList;
  /** How much is kept of a room, and for how long. */
  readonly limitsOf: (room: string) => Required<RoomLimits>;
  /** Those that this node uses, by name. */
  readonly used = new Map<string, RedisRoom>();
  readonly #comparison: Comparison;
  /** Shares MAX_ROOMS out, so that no address can use up all. */
  readonly #share: FairShare;
  #tick = 0;

  /** @param prefix what all keys start with */
  constructor(
    readonly node: RedisNode,
    readonly shards: Shards,
    readonly prefix: string,
    limits: HistoryLimits,
  ) {
    this.list = new RoomList(node, shards, prefix, this.used);
    this.#share = new FairShare(limits.maxRooms);
    this.limitsOf = roomLimits(limits);
    this.#comparison = new Comparison(node, this);
  }

  keysOf(name: string): readonly string[] {
    return this.used.get(name)?.keys ?? keysOf(this.prefix, name);
  }

  /** How long a room is kept after a sign of use, in ms, by its head key. */
  keepMsOf(head: string): number {
    return Math.max(this.limitsOf(this.#nameOf(head)).historySeconds * 1_000, MIN_KEEP_MS);
  }

  /** A room, created if needed; `undefined` if MAX_ROOMS, or the address's share of them, are in use. */
  open(name: string, address?: string): RedisRoom | undefined {
    let room = this.used.get(name);
    if (!room && this.#share.hasSpace(1, address)) {
      this.#share.count(1, address);
      room = new RedisRoom(name, keysOf(this.prefix, name), this.node, address);
      room.connection = this.shards.at(room.slot);
      this.used.set(name, room);
    }
    return room;
  }

  /** Forgets a room that nobody here uses; returns whether it did. */
  dropIfIdle(room: RedisRoom): boolean {
    if (!room.isIdle || this.used.get(room.name) !== room) return false;
    this.used.delete(room.name);
    this.#share.count(-1, room.openedBy);
    this.#release(room);
    return true;
  }

  /** Takes what a channel brings, unless its room has moved to another server since. */
  push(connection: RedisConnection, payload: Buffer, channel: Buffer): void {
    const room = this.used.get(this.#nameOf(channel.toString("latin1")));
    if (room?.connection === connection) room.view?.push(payload);
  }

  /**
   * Subscribes to the channels of rooms whose connection is new, and catches up.
   * @param isSameServer whether it is the process of the connection before, which has lost nothing
   */
  async resume(
    connection: RedisConnection,
    isSameServer: boolean,
    rooms = [...this.used.values()].filter((room) => room.connection === connection),
  ): Promise<void> {
    const hosted = rooms.filter((room) => room.view);
    const heads = Map.groupBy(hosted, ({ slot }) => this.shards.isCluster && slot);
    for (const own of heads.values()) connection.subscribe(own.map(({ keys: [head] }) => head));
    for (const room of hosted) room.view!.pause();
    if (isSameServer) return this.#comparison.compare(rooms);
    this.list.add(hosted);
    await inParallel(rooms, (room) => {
      room.members.forget();
      return room.members.isRegistered ? room.catchUp() : room.sync();
    });
  }

  /** Slots may have another server than before: their rooms follow. */
  follow(rooms: Iterable<RedisRoom> = this.used.values()): void {
    const moved: RedisRoom[] = [];
    for (const room of rooms) {
      const connection = this.shards.at(room.slot);
      if (!connection || connection === room.connection) continue;
      room.connection?.unsubscribe(room.keys[0]);
      room.connection = connection;
      if (connection.isConnected) moved.push(room);
    }
    for (const [connection, own] of Map.groupBy(moved, (room) => room.connection!)) {
      this.resume(connection, false, own);
    }
  }

  /** The server does not send a channel's messages: its room needs a subscription again. */
  onUnsubscribed(channel: string): void {
    const room = this.used.get(this.#nameOf(channel));
    if (!room) return;
    room.connection = undefined;
    room.view?.pause();
    this.node.due.add(room);
  }

  /** Tells Redis the members of all rooms again, as it may have removed this node. */
  registerAll(): Promise<void> {
    return inParallel(this.used.values(), (room) => {
      room.members.forget();
      return room.sync();
    });
  }

  /** Compares the rooms that are due, tries failed syncs again, and has keys removed that have ended. */
  onTick(): void {
    const { clock, due } = this.node;
    const rooms = [...due].filter(({ view }) => view);
    due.clear();
    this.follow(rooms.filter((room) => !room.connection));
    for (const room of rooms) {
      const isDue = room.endsAt <= clock.elapsedMs() || room.view!.isStale || !room.connection;
      if (isDue && room.connection?.isConnected) room.sync();
      else if (isDue || room.endsAt < Infinity) due.add(room);
    }
    const round = this.#tick++ / ROUND_TICKS;
    if (!Number.isInteger(round)) return;
    const left = this.#comparison.roomsIn(round).filter((room) => !this.dropIfIdle(room));
    this.list.add(this.#comparison.startRound(round, left).filter(({ view }) => view));
  }

  /** Removes what dead nodes have left, also in rooms that nobody hosts any more, and publishes their events. */
  async bury(): Promise<void> {
    for await (const names of this.list.pages()) {
      const due = (await this.list.read(names ?? [], false)).filter(({ isLeft }) => isLeft);
      await inParallel(due, async ({ room: name }) => {
        const room = this.used.get(name) ?? new RedisRoom(name, this.keysOf(name), this.node);
        await room.sync();
        // Somebody may have come since.
        if (!this.used.has(name)) await this.#release(room);
      });
    }
  }

  async end(): Promise<void> {
    const rooms = [...this.used.values()];
    this.used.clear();
    await Promise.all(rooms.map(async (room) => {
      room.close();
      room.members.clear();
      if (!room.members.isRegistered) await room.sync();
      await this.#release(room);
    }));
  }

  #nameOf(head: string): string {
    return head.slice(this.prefix.length + ":{".length, -1);
  }

  async #release({ name, keys }: RedisRoom): Promise<void> {
    const historyMs = this.limitsOf(name).historySeconds * 1_000;
    const left = await this.node.run("release", keys, [this.node.id, historyMs]);
    if (left === 0) this.list.remove([name]);
  }
}

async function inParallel<T>(rooms: Iterable<T>, work: (room: T) => Promise<void>): Promise<void> {
  const rest = [...rooms].values();
  const worker = async () => {
    for (const room of rest) await work(room);
  };
  await Promise.all(Array.from({ length: MAX_SYNCS }, worker));
}
