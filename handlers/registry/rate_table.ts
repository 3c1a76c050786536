/**
 * Token buckets by address, bounded: many addresses grow nothing without end.
 *
 * @module
 */
import { TokenBucket } from "./rate_limit.ts";

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
