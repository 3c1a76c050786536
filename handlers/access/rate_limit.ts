/**
 * How much a client may do: a token bucket.
 *
 * @module
 */

/** Lets `rate` units a second through, `burst` at once. A rate of 0 lets all through. */
export class TokenBucket {
  #tokens: number;
  #filledAt: number;

  /** @param now Unix ms */
  constructor(readonly rate: number, readonly burst: number, now: number) {
    this.#tokens = burst;
    this.#filledAt = now;
  }

  /**
   * Takes `units`; answers 0 if they were there, else the ms until they will be, and takes nothing.
   * More than a whole burst is let through when the bucket is full.
   */
  take(units: number, now: number): number {
    if (this.rate === 0) return 0;
    const gained = Math.max(0, now - this.#filledAt) * this.rate / 1_000;
    this.#tokens = Math.min(this.burst, this.#tokens + gained);
    this.#filledAt = now;
    const missing = Math.min(units, this.burst) - this.#tokens;
    // Sums of fractions are a little off: who waited as told is not refused again.
    if (missing > 1e-6) return Math.ceil(missing * 1_000 / this.rate);
    this.#tokens -= units;
    return 0;
  }

  /** Gives back what {@link take} took for something that was not done. */
  giveBack(units: number): void {
    this.#tokens += units;
  }
}

const MAX_BUCKETS = 10_000;

/** A {@link TokenBucket} for each key that was active lately. */
export class RateTable {
  /** The least recently used first. */
  #buckets = new Map<string, TokenBucket>();

  /** @param rate units a second, and at once; 0 lets all through */
  constructor(readonly rate: number) {}

  /** Takes one unit; answers 0, or the ms until there is one. */
  take(key: string, now: number): number {
    if (this.rate === 0) return 0;
    const bucket = this.#buckets.get(key) ?? new TokenBucket(this.rate, this.rate, now);
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > MAX_BUCKETS) {
      this.#buckets.delete(this.#buckets.keys().next().value!);
    }
    return bucket.take(1, now);
  }
}

/** Refusals that nothing interrupts for so long end the socket. */
const MAX_REFUSED_MS = 10_000;

/** Units a second, 0 for no limit; and the rooms of a connection, which it may open at once. */
export interface Rates {
  messageRate: number;
  byteRate: number;
  joinRate: number;
  maxRoomsPerConnection: number;
}

/** Three token buckets that refuse together, and since when they do. */
export class Allowance {
  readonly #messages: TokenBucket;
  readonly #bytes: TokenBucket;
  readonly #joins: TokenBucket;
  /** When the refusals began that nothing has interrupted since; 0 without. */
  #refusedSince = 0;

  /** @param now Unix ms */
  constructor(rates: Rates, now: number) {
    const { messageRate, byteRate, joinRate, maxRoomsPerConnection } = rates;
    this.#messages = new TokenBucket(messageRate, messageRate, now);
    this.#bytes = new TokenBucket(byteRate, byteRate, now);
    this.#joins = new TokenBucket(joinRate, maxRoomsPerConnection, now);
  }

  /** Whether the last message was refused. */
  get isRefusing(): boolean {
    return this.#refusedSince > 0;
  }

  /** Takes a message of so many bytes, and a join if it `opens` a room; answers the ms to wait, or 0. */
  take(size: number, opens: boolean, now: number): number {
    const forMessage = this.#messages.take(1, now);
    const forBytes = this.#bytes.take(size, now);
    const forJoin = opens ? this.#joins.take(1, now) : 0;
    const retry = Math.max(forMessage, forBytes, forJoin);
    if (retry === 0) {
      this.#refusedSince = 0;
      return 0;
    }
    // What one bucket refuses costs nothing in the others.
    if (forMessage === 0) this.#messages.giveBack(1);
    if (forBytes === 0) this.#bytes.giveBack(size);
    if (opens && forJoin === 0) this.#joins.giveBack(1);
    this.#refusedSince ||= now;
    return retry;
  }

  /** Whether refusals alone have gone on for too long. */
  isOver(now: number): boolean {
    return this.isRefusing && now - this.#refusedSince >= MAX_REFUSED_MS;
  }
}
