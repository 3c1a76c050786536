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
