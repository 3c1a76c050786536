/** What Parley asks of time, passed in: a test turns its hands itself. */
export interface Clock {
  /** Unix time in ms. */
  now(): number;
  /** Ms since some moment, for durations: nobody can set this clock. */
  elapsedMs(): number;
  /** Runs `task` once after `ms`; the answer cancels it. */
  after(ms: number, task: () => void): () => void;
  /** Runs `task` each `ms`; the answer ends it. */
  every(ms: number, task: () => void): () => void;
}

/** The machine's clock. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  now: Date.now,
  elapsedMs: () => performance.now(),
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

/** The longest time that a timer takes; a longer one would run at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Runs `task` at a Unix time in ms, however far away; the answer cancels it. */
export function runAt(clock: Clock, time: number, task: () => void): () => void {
  const left = Math.max(0, Math.min(time - clock.now(), MAX_TIMER_MS));
  let cancel = clock.after(left, () => {
    if (clock.now() >= time) task();
    else cancel = runAt(clock, time, task);
  });
  return () => cancel();
}

/** Waits for a task, but no longer than `ms`: then there is no result. */
export function within<T>(clock: Clock, ms: number, task: Promise<T>): Promise<T | undefined> {
  const limit = Promise.withResolvers<undefined>();
  const cancel = clock.after(ms, () => limit.resolve(undefined));
  return Promise.race([task, limit.promise]).finally(cancel);
}
