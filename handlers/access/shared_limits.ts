/** Limits that count over all threads of the process, whichever of them a client comes to. */
import type { Clock } from "../util/clock.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import type { Limits } from "./limits.ts";
import { RateTable } from "./rate_limit.ts";

/** Why there is no slot for a client. */
export type NoSlot = "full" | "too_many_connections" | "too_many_connections_of_user";

/** The limits of the process, as one thread uses them. */
export interface SharedLimits {
  /** Counts a client in, or tells why there is no slot for it. */
  acquire(address: string, user?: string): MaybePromise<NoSlot | undefined>;
  /** Counts a client out. */
  release(address: string, user?: string): void;
  /** Clients of this thread by the keys of {@link keysOf}, in the thread that counts. */
  countsHere?(): Map<string, number>;
  /** Whether MAX_CONNECTIONS clients are counted in. */
  readonly isFull: boolean;
  /** Charges a user for a message; returns 0, or the ms until it may be sent. */
  trySend(user: string): MaybePromise<number>;
  /** Charges a visitor for a request to publish `size` bytes; returns 0, or the ms until it may. */
  tryPublish(key: string, size: number): MaybePromise<number>;
}

/** The limits in the thread that counts for all; its answers come at once. */
export class LimitTable implements SharedLimits {
  /** How many clients there are. */
  count = 0;
  /** Clients by the keys of {@link keysOf}. */
  readonly #counts = new Map<string, number>();
  /** What other threads hold of that. */
  readonly #elsewhere = new Map<string, number>();
  readonly #messages: RateTable;
  readonly #posts: RateTable;
  readonly #bytes: RateTable;

  constructor(readonly limits: Limits, readonly clock: Clock) {
    this.#messages = new RateTable(limits.messageRatePerUser);
    this.#posts = new RateTable(limits.postRate);
    this.#bytes = new RateTable(limits.byteRate);
  }

  get isFull(): boolean {
    return this.count >= this.limits.maxConnections;
  }

  /** How many addresses and users have clients. */
  get keyCount(): number {
    return this.#counts.size;
  }

  /** How many clients a key of {@link keysOf} has, in all threads. */
  countOf(key: string): number {
    return this.#counts.get(key) ?? 0;
  }

  countsHere(): Map<string, number> {
    const here = new Map(this.#counts);
    for (const [key, count] of this.#elsewhere) add(here, key, -count);
    return here;
  }

  acquire(address: string, user?: string): NoSlot | undefined {
    const { maxConnectionsPerIp, maxConnectionsPerUser } = this.limits;
    if (this.isFull) return "full";
    const isOver = (key: string, limit: number) => limit > 0 && this.countOf(key) >= limit;
    if (address !== "" && isOver(address, maxConnectionsPerIp)) return "too_many_connections";
    const isOverByUser = user !== undefined && isOver(userKey(user), maxConnectionsPerUser);
    if (isOverByUser) return "too_many_connections_of_user";
    this.#add(1, address, user);
  }

  release(address: string, user?: string): void {
    this.#add(-1, address, user);
  }

  trySend(user: string): number {
    return this.#messages.tryConsume(user, this.clock.elapsedMs());
  }

  tryPublish(key: string, size: number): number {
    const now = this.clock.elapsedMs();
    return this.#posts.tryConsume(key, now) || this.#bytes.tryConsume(key, now, size);
  }

  /** The same limits for another thread; `releaseAll` counts out its clients when it has died. */
  share(): Omit<SharedLimits, "countsHere" | "isFull"> & { releaseAll(): void } {
    /** By address and user, as JSON. */
    const held = new Map<string, number>();
    const hold = (clients: number, client: Client) => {
      add(held, JSON.stringify(client), clients);
      for (const key of keysOf(...client)) add(this.#elsewhere, key, clients);
    };
    return {
      acquire: (...client) => {
        const noSlot = this.acquire(...client);
        if (!noSlot) hold(1, client);
        return noSlot;
      },
      release: (...client) => {
        this.release(...client);
        hold(-1, client);
      },
      trySend: (user) => this.trySend(user),
      tryPublish: (key, size) => this.tryPublish(key, size),
      releaseAll: () => {
        for (const [text, count] of [...held]) {
          const [address, user] = JSON.parse(text);
          const client: Client = [address, user ?? undefined];
          this.#add(-count, ...client);
          hold(-count, client);
        }
        held.clear();
      },
    };
  }

  #add(clients: number, ...client: Client): void {
    this.count += clients;
    for (const key of keysOf(...client)) add(this.#counts, key, clients);
  }
}

type Client = [address: string, user?: string];

/** What a client is counted by: its address, and its user with a prefix that no address has. */
export function keysOf(...[address, user]: Client): string[] {
  return user === undefined ? [address] : [address, userKey(user)];
}

function userKey(user: string): string {
  return `user ${user}`;
}

function add(counts: Map<string, number>, address: string, clients: number): void {
  const count = (counts.get(address) ?? 0) + clients;
  if (count !== 0) counts.set(address, count);
  else counts.delete(address);
}
