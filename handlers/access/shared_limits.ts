/** Limits that count over all threads of the process, whichever of them a client comes to. */
import type { Clock } from "../util/clock.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import type { Limits } from "./limits.ts";
import { RateTable } from "./rate_limit.ts";

/** Why there is no slot for a client. */
export type NoSlot = "full" | "too_many_connections";

/** The limits of the process, as one thread uses them. */
export interface SharedLimits {
  /** Counts a client in, or tells why there is no slot for it. */
  acquire(address: string): MaybePromise<NoSlot | undefined>;
  /** Counts a client out. */
  release(address: string): void;
  /** Clients of this thread by address, in the thread that counts. */
  countsHere?(): Map<string, number>;
  /** Whether MAX_CONNECTIONS clients are counted in. */
  readonly isFull: boolean;
  /** Charges a visitor for a request to publish `size` bytes; returns 0, or the ms until it may. */
  tryPublish(key: string, size: number): MaybePromise<number>;
}

/** The limits in the thread that counts for all; its answers come at once. */
export class LimitTable implements SharedLimits {
  /** How many clients there are. */
  count = 0;
  readonly #byAddress = new Map<string, number>();
  /** What other threads hold of it. */
  readonly #shares = new Set<Map<string, number>>();
  readonly #posts: RateTable;
  readonly #bytes: RateTable;

  constructor(readonly limits: Limits, readonly clock: Clock) {
    this.#posts = new RateTable(limits.postRate);
    this.#bytes = new RateTable(limits.byteRate);
  }

  get isFull(): boolean {
    return this.count >= this.limits.maxConnections;
  }

  /** How many addresses have clients. */
  get addressCount(): number {
    return this.#byAddress.size;
  }

  /** How many clients an address has, in all threads. */
  countOf(address: string): number {
    return this.#byAddress.get(address) ?? 0;
  }

  countsHere(): Map<string, number> {
    const here = new Map(this.#byAddress);
    for (const held of this.#shares) {
      for (const [address, count] of held) add(here, address, -count);
    }
    return here;
  }

  acquire(address: string): NoSlot | undefined {
    const { maxConnectionsPerIp } = this.limits;
    if (this.isFull) return "full";
    const isLimited = maxConnectionsPerIp > 0 && address !== "";
    const isOver = isLimited && this.countOf(address) >= maxConnectionsPerIp;
    if (isOver) return "too_many_connections";
    this.count++;
    add(this.#byAddress, address, 1);
  }

  release(address: string): void {
    this.count--;
    add(this.#byAddress, address, -1);
  }

  tryPublish(key: string, size: number): number {
    const now = this.clock.now();
    return this.#posts.tryConsume(key, now) || this.#bytes.tryConsume(key, now, size);
  }

  /** The same limits for another thread; `releaseAll` counts out its clients when it has died. */
  share(): Omit<SharedLimits, "countsHere" | "isFull"> & { releaseAll(): void } {
    const held = new Map<string, number>();
    this.#shares.add(held);
    return {
      acquire: (address) => {
        const noSlot = this.acquire(address);
        if (!noSlot) add(held, address, 1);
        return noSlot;
      },
      release: (address) => {
        this.release(address);
        add(held, address, -1);
      },
      tryPublish: (key, size) => this.tryPublish(key, size),
      releaseAll: () => {
        for (const [address, count] of held) for (let i = 0; i < count; i++) this.release(address);
        held.clear();
        this.#shares.delete(held);
      },
    };
  }
}

function add(counts: Map<string, number>, address: string, clients: number): void {
  const count = (counts.get(address) ?? 0) + clients;
  if (count !== 0) counts.set(address, count);
  else counts.delete(address);
}
