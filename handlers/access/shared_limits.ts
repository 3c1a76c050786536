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
  release(address: string, user?: string): void;
  /** Clients of this thread by the keys of {@link keysOf}, in the thread that counts. */
  countsHere?(): ReadonlyMap<string, number>;
  /** Whether MAX_CONNECTIONS clients are counted in. */
  readonly isFull: boolean;
  /** Charges a user for a message; returns 0, or the ms until it may be sent. */
  trySend(user: string): MaybePromise<number>;
  /** Charges a visitor for a request to publish `size` bytes; returns 0, or the ms until it may. */
  tryPublish(key: string, size: number): MaybePromise<number>;
}

interface Process {
  /** Each with its own clients. */
  threads: Set<LimitTable>;
  messages: RateTable;
  posts: RateTable;
  bytes: RateTable;
}

/** The limits of one thread, in the thread that counts for all; its answers come at once. */
export class LimitTable implements SharedLimits {
  /** Clients of this thread, and by the keys of {@link keysOf}. */
  #clients = 0;
  readonly #counts = new Map<string, number>();
  readonly #process: Process;

  /** @param first a thread of the same process */
  constructor(readonly limits: Limits, readonly clock: Clock, first?: LimitTable) {
    this.#process = first ? first.#process : {
      threads: new Set(),
      messages: new RateTable(limits.messageRatePerUser),
      posts: new RateTable(limits.postRate),
      bytes: new RateTable(limits.byteRate),
    };
    this.#process.threads.add(this);
  }

  get count(): number {
    return this.#sum((thread) => thread.#clients);
  }

  countOf(key: string): number {
    return this.#sum((thread) => thread.#counts.get(key) ?? 0);
  }

  get isFull(): boolean {
    return this.count >= this.limits.maxConnections;
  }

  countsHere(): ReadonlyMap<string, number> {
    return this.#counts;
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
    return this.#process.messages.tryConsume(user, this.clock.elapsedMs());
  }

  tryPublish(key: string, size: number): number {
    const { posts, bytes } = this.#process;
    const now = this.clock.elapsedMs();
    return posts.tryConsume(key, now) || bytes.tryConsume(key, now, size);
  }

  /** Counts out all clients of this thread: it has died. */
  releaseAll(): void {
    this.#process.threads.delete(this);
  }

  #sum(countOf: (thread: LimitTable) => number): number {
    return this.#process.threads.values().reduce((sum, thread) => sum + countOf(thread), 0);
  }

  #add(clients: number, address: string, user?: string): void {
    this.#clients += clients;
    for (const key of keysOf(address, user)) {
      const count = (this.#counts.get(key) ?? 0) + clients;
      if (count !== 0) this.#counts.set(key, count);
      else this.#counts.delete(key);
    }
  }
}

/** What a client is counted by: its address, and its user with a prefix that no address has. */
export function keysOf(address: string, user?: string): string[] {
  return user === undefined ? [address] : [address, userKey(user)];
}

function userKey(user: string): string {
  return `user ${user}`;
}
