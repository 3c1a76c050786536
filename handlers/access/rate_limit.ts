/** How much a client may do: token buckets. */
import type { Limits } from "./limits.ts";

/** Lets `rate` units a second through, and `burst` at once. A rate of 0 lets everything through. */
export class TokenBucket {
  #tokens: number;
  #filledAt: number;

  /** @param now ms by {@link Clock.elapsedMs} */
  constructor(readonly rate: number, readonly burst: number, now: number) {
    this.#tokens = burst;
    this.#filledAt = now;
  }

  /**
   * Consumes `units` if there are enough. A full bucket lets more than its burst through.
   * @returns 0 if they were consumed, else the ms until they can be
   */
  tryConsume(units: number, now: number): number {
    if (this.rate === 0) return 0;
    const gained = Math.max(0, now - this.#filledAt) * this.rate / 1_000;
    this.#tokens = Math.min(this.burst, this.#tokens + gained);
    this.#filledAt = now;
    const missing = Math.min(units, this.burst) - this.#tokens;
    // Sums of fractions are slightly off: a client that waited as told is not refused again.
    if (missing > 1e-6) return Math.ceil(missing * 1_000 / this.rate);
    this.#tokens -= units;
    return 0;
  }

  /** Undoes a {@link tryConsume} whose work was not done. */
  refund(units: number): void {
    this.#tokens += units;
  }
}

const MAX_BUCKETS = 10_000;

/** A {@link TokenBucket} for each key that was active lately. */
export class RateTable {
  /** The least recently used first. */
  #buckets = new Map<string, TokenBucket>();

  /** @param rate units a second, and at once; 0 lets everything through */
  constructor(readonly rate: number) {}

  tryConsume(key: string, now: number, units = 1): number {
    if (this.rate === 0) return 0;
    const bucket = this.#buckets.get(key) ?? new TokenBucket(this.rate, this.rate, now);
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > MAX_BUCKETS) {
      this.#buckets.delete(this.#buckets.keys().next().value!);
    }
    return bucket.tryConsume(units, now);
  }
}

/** A socket whose messages have all been refused for this long is closed. */
const MAX_REFUSED_MS = 10_000;
/** One with so many refusals at once is closed, too, and they are forgotten at this rate a second. */
const MAX_REFUSALS = 1_000;
const REFUSALS_PER_SECOND = 100;

/** The three token buckets of a socket, which refuse together. */
export class Allowance {
  readonly #messages: TokenBucket;
  readonly #bytes: TokenBucket;
  readonly #joins: TokenBucket;
  /** Made at the first refusal. */
  #refusals?: TokenBucket;
  /** When the current run of refusals began; 0 without one. */
  #refusedSince = 0;
  #isFlooding = false;

  /** @param now ms by {@link Clock.elapsedMs} */
  constructor(limits: Limits, now: number) {
    const { messageRate, byteRate, joinRate, maxRoomsPerConnection } = limits;
    this.#messages = new TokenBucket(messageRate, messageRate, now);
    this.#bytes = new TokenBucket(byteRate, byteRate, now);
    this.#joins = new TokenBucket(joinRate, maxRoomsPerConnection, now);
  }

  get isRefusing(): boolean {
    return this.#refusedSince > 0;
  }

  /** Consumes a message of `size` bytes, and a join if it `opens` a room; returns 0, or the ms to wait. */
  tryConsume(size: number, opens: boolean, now: number): number {
    const forMessage = this.#messages.tryConsume(1, now);
    const forBytes = this.#bytes.tryConsume(size, now);
    const forJoin = opens ? this.#joins.tryConsume(1, now) : 0;
    const retry = Math.max(forMessage, forBytes, forJoin);
    if (retry === 0) {
      this.#refusedSince = 0;
      return 0;
    }
    // A message that one bucket refuses costs nothing in the others.
    if (forMessage === 0) this.#messages.refund(1);
    if (forBytes === 0) this.#bytes.refund(size);
    if (opens && forJoin === 0) this.#joins.refund(1);
    this.#refusedSince ||= now;
    this.refuse(now);
    return retry;
  }

  /** Counts a refusal that others may have caused: it is part of a flood, but not of {@link isRefusing}. */
  refuse(now: number): void {
    this.#refusals ??= new TokenBucket(REFUSALS_PER_SECOND, MAX_REFUSALS, now);
    this.#isFlooding ||= this.#refusals.tryConsume(1, now) > 0;
  }

  /** Whether everything has been refused for too long, or too much at once. */
  isOver(now: number): boolean {
    return this.#isFlooding || this.isRefusing && now - this.#refusedSince >= MAX_REFUSED_MS;
  }
}
