/** Latencies, counted in buckets of 1 µs below 100 ms and of 1 ms above. */

const FINE = 100_000;

/** What a {@linkcode Histogram} says, in milliseconds. */
export interface Percentiles {
  p50: number;
  p99: number;
  p999: number;
  max: number;
}

/** Counts durations and tells their percentiles. */
export class Histogram {
  readonly #fine = new Uint32Array(FINE);
  readonly #coarse = new Uint32Array(FINE);
  #count = 0;
  #max = 0;

  /** Counts one duration of `milliseconds`. */
  add(milliseconds: number): void {
    const micros = milliseconds * 1000;
    this.#count++;
    if (milliseconds > this.#max) this.#max = milliseconds;
    if (micros < FINE) this.#fine[micros < 0 ? 0 : micros | 0]++;
    else this.#coarse[Math.min(milliseconds, FINE - 1) | 0]++;
  }

  /** The percentiles of all that was counted. */
  percentiles(): Percentiles {
    return {
      p50: this.#at(0.5),
      p99: this.#at(0.99),
      p999: this.#at(0.999),
      max: this.#max,
    };
  }

  #at(share: number): number {
    let rest = Math.ceil(this.#count * share);
    for (let i = 0; i < FINE; i++) {
      rest -= this.#fine[i];
      if (rest <= 0) return Math.min((i + 1) / 1000, this.#max);
    }
    for (let i = 0; i < FINE; i++) {
      rest -= this.#coarse[i];
      if (rest <= 0) return Math.min(i + 1, this.#max);
    }
    return this.#max;
  }
}
