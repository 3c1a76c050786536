/**
 * What the scenarios measure.
 *
 * @module
 */

/** Milliseconds as people read them: `20 figures: p50 0.4 ms, p99 2.1 ms`. */
export function describeMs(figures: number[]): string {
  const sorted = figures.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.ceil(sorted.length * share) - 1].toFixed(1);
  return `${sorted.length} figures: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`;
}
