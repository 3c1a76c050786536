/**
 * Tests that mostly wait, at the same time.
 *
 * @module
 */
import { IS_FULL } from "./run.ts";

/** Registers a test, as `Deno.test` does. */
type Register = (name: string, fn: (t: Deno.TestContext) => Promise<void>) => void;

/**
 * Registers one test that runs all of `cases` at the same time and tells of each how it went. At full
 * size, where some check how long an answer takes, each is a test of its own.
 */
export function together(
  name: string,
  cases: Record<string, () => Promise<void>>,
  register: Register = Deno.test,
): void {
  if (IS_FULL) {
    for (const [what, run] of Object.entries(cases)) register(what, run);
    return;
  }
  register(name, async (t) => {
    const outcomes = await Promise.allSettled(Object.values(cases).map((run) => run()));
    for (const [i, what] of Object.keys(cases).entries()) {
      const outcome = outcomes[i];
      await t.step(what, () => {
        if (outcome.status === "rejected") throw outcome.reason;
      });
    }
  });
}
