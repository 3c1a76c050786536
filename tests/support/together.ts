/**
 * Tests that mostly wait for programs of their own, at the same time.
 *
 * @module
 */

import { sized } from "./run.ts";

/** Enough to use the cores while others wait; at full size each has the machine for itself. */
const AT_ONCE = sized(6, 1);

/** A test among others that run at the same time. */
export interface Step {
  name: string;
  ignore?: boolean;
  fn: (t: Deno.TestContext) => void | Promise<void>;
}

/** Adds a test, as `Deno.test` does. */
export type AddStep = (name: string, fn: Step["fn"], ignore?: boolean) => void;

/** Adds a test that runs alone. */
export const alone: AddStep = (name, fn, ignore) => Deno.test({ name, fn, ignore });

/**
 * Registers one test, and gives what adds steps to it. They run at the same time, so they must share
 * nothing that one of them changes. What they leave open is seen at the end of the whole test.
 *
 * @param limit how many run at the same time
 */
export function together(name: string, limit = AT_ONCE): AddStep {
  const steps: Step[] = [];
  Deno.test(name, (t) => runTogether(t, steps, limit));
  return (name, fn, ignore = false) => void steps.push({ name, fn, ignore });
}

/** Runs steps of a test, `limit` of them at the same time. */
export async function runTogether(
  t: Deno.TestContext,
  steps: Iterable<Step>,
  limit = AT_ONCE,
): Promise<void> {
  // Only steps without sanitizers of their own may overlap.
  const unwatched = { sanitizeOps: false, sanitizeResources: false, sanitizeExit: false };
  const waiting = [...steps].values();
  await Promise.all(Array.from({ length: limit }, async () => {
    for (const step of waiting) await t.step({ ...step, ...unwatched });
  }));
}
