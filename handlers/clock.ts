/**
 * Time, passed in: a test turns its hands itself.
 *
 * @module
 */

/** What Parley asks of time. */
export interface Clock {
  /** Unix time in ms. */
  now(): number;
  /** Runs `task` once after `ms`; the answer cancels it. */
  after(ms: number, task: () => void): () => void;
  /** Runs `task` each `ms`; the answer ends it. */
  every(ms: number, task: () => void): () => void;
}

/** The machine's clock. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  now: Date.now,
  after(ms, task) {
    const timer = setTimeout(task, ms);
    Deno.unrefTimer(timer);
    return () => clearTimeout(timer);
  },
  every(ms, task) {
    const timer = setInterval(task, ms);
    Deno.unrefTimer(timer);
    return () => clearInterval(timer);
  },
};
