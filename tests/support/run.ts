/**
 * How a run of the tests is set: its size, and its seed.
 *
 * @module
 */

/** `deno task attack`, `faults` and `pages` run the same tests at full size. */
export const IS_FULL: boolean = Deno.env.get("FULL_SIZE") === "1";

/** The size in `deno test`, or the full one. */
export function sized(small: number, full: number): number {
  return IS_FULL ? full : small;
}

/** The seed of this run: SEED, or 1. */
export const SEED: number = Number(Deno.env.get("SEED") ?? 1);
