/** This process as one of the nodes: its connections, its rooms and its lease, and what it does each tick. */
import type { Clock } from "../../util/clock.ts";
import type { Engine } from "../engine.ts";
import { newEpoch } from "../memory_room.ts";
import type { HistoryLimits } from "../room_rules.ts";
import { TICK_MS } from "./comparison.ts";
import { Lease } from "./lease.ts";
import { Outbox } from "./outbox.ts";
import type { RedisNode, RedisRoom } from "./room.ts";
import { RedisRooms } from "./rooms.ts";
import type { RunScript } from "./run_script.ts";
import { type ShardOptions, Shards } from "./shards.ts";

/** The node renews its lease every 5 s. */
const LEASE_TICKS = 25;

/** Keeps what this process has in Redis alive. */
export class LocalNode implements RedisNode {
  readonly id = newEpoch() + newEpoch();
  readonly clock: Clock;
  readonly events: string;
  readonly live: Lease["live"];
  readonly due = new Set<RedisRoom>();
  readonly shards: Shards;
  readonly rooms: RedisRooms;
  readonly #outbox: Outbox;
  readonly #lease: Lease;
  readonly #leaseKey: string;
  readonly #stopTicks: () => void;
  #tick = 0;

  /** @param publish publishes what the outboxes of rooms have */
  constructor(
    options: Pick<ShardOptions, "createClient" | "url" | "clock" | "log">,
    limits: HistoryLimits,
    publish: Engine["publish"],
  ) {
    const { clock, url: { database } } = options;
    const prefix = database === 0 ? "parley" : `parley/${database}`;
    this.clock = clock;
    this.events = limits.events?.join() ?? "";
    this.#outbox = new Outbox(this, publish);
    this.#leaseKey = `${prefix}:nodes`;
    this.#lease = new Lease(clock, () => this.run("renew", [this.#leaseKey], [this.id]));
    this.live = this.#lease.live;
    this.shards = new Shards({
      ...options,
      onConnect: (connection, isSameServer) => {
        if (connection === this.shards.of(this.#leaseKey)) this.#renew();
        this.rooms.resume(connection, isSameServer);
      },
      onPush: (...push) => this.rooms.push(...push),
      onTopology: () => this.rooms.follow(),
      onUnsubscribed: (channel) => this.rooms.onUnsubscribed(channel),
    });
    this.rooms = new RedisRooms(this, this.shards, prefix, limits);
    this.#stopTicks = clock.every(TICK_MS, () => this.#onTick());
  }

  readonly run: RunScript = (script, keys, args, hasTimeout) => {
    const all = [this.rooms.keepMsOf(keys[0]), ...args];
    return this.shards.of(keys[0])?.run(script, keys, all, hasTimeout) ??
      Promise.resolve(undefined);
  };

  async flush(room: RedisRoom): Promise<void> {
    if (this.events) await this.#outbox.flush(room);
  }

  /** Leaves all rooms, and Redis. */
  async close(): Promise<void> {
    this.#stopTicks();
    await this.rooms.end();
    await this.shards.of(this.#leaseKey)?.send(["ZREM", this.#leaseKey, this.id]);
    await this.shards.close();
  }

  #onTick(): void {
    if (this.#lease.isLost || this.#tick++ % LEASE_TICKS === 0) this.#renew();
    this.shards.onTick();
    this.rooms.onTick();
    this.#outbox.retry();
  }

  async #renew(): Promise<void> {
    const { hasEnded, isNodeGone } = await this.#lease.keep();
    if (hasEnded) this.rooms.registerAll();
    if (isNodeGone) await this.rooms.bury();
  }
}
