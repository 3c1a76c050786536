/** What ends by itself at some time, by one timer for all. */
import { type Clock, runAt } from "../util/clock.ts";

/** What ends within so many ms of each other ends together. */
const STEP_MS = 100;

/** Tasks, each to run once its time has come. */
export class Expiry<T> {
  #steps = new Map<number, Set<T>>();
  #nextStep = Infinity;
  #stopTimer?: () => void;

  /** @param end called with what is over */
  constructor(readonly clock: Clock, readonly end: (one: T) => void) {}

  /** Ends `one` at `time` (Unix ms), at most a tenth of a second later. */
  add(one: T, time: number): void {
    const step = Math.ceil(time / STEP_MS);
    this.#steps.set(step, (this.#steps.get(step) ?? new Set()).add(one));
    if (step < this.#nextStep) this.#setTimer(step);
  }

  delete(one: T, time: number): void {
    const step = Math.ceil(time / STEP_MS);
    const ones = this.#steps.get(step);
    ones?.delete(one);
    if (ones?.size === 0) this.#steps.delete(step);
  }

  /** Ends all whose time has come: nobody reads what is over, however late the timer is. */
  run(): void {
    const now = this.clock.now();
    if (this.#nextStep * STEP_MS > now) return;
    const due = [...this.#steps.keys()].filter((step) => step * STEP_MS <= now);
    for (const step of due.sort((a, b) => a - b)) {
      const ones = this.#steps.get(step);
      this.#steps.delete(step);
      for (const one of ones ?? []) this.end(one);
    }
    // There may be more of them than a call takes arguments.
    this.#setTimer(this.#steps.keys().reduce((first, step) => Math.min(first, step), Infinity));
  }

  /** What ends in the step of `now`: all that may be over and that {@link run} has not ended. */
  next(now: number): T[] {
    return [...this.#steps.get(Math.ceil(now / STEP_MS)) ?? []];
  }

  clear(): void {
    this.#steps.clear();
    this.#setTimer(Infinity);
  }

  #setTimer(step: number): void {
    this.#stopTimer?.();
    this.#nextStep = step;
    this.#stopTimer = step === Infinity
      ? undefined
      : runAt(this.clock, step * STEP_MS, () => this.run());
  }
}
