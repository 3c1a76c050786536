/** Those of a room's state listeners that get changes together, by `every`: one timer and one encoding for each. */
import type { StatefulDialect } from "../protocol/encode.ts";
import type { StateListener } from "./state_listener.ts";
import type { StateListeners } from "./state_listeners.ts";

/** The paced listeners of one room. One that does not change runs no timer. */
export class StatePacing {
  readonly #paced = new Map<number, Set<StateListener>>();
  /** Ends the timer that runs, by `every`. */
  readonly #timers = new Map<number, () => void>();
  /** When something was told last, by `every`. */
  readonly #toldAt = new Map<number, number>();

  constructor(readonly all: StateListeners) {}

  /** Adds a listener that has an `every`. */
  add(listener: StateListener): void {
    const every = listener.every!;
    this.#paced.set(every, (this.#paced.get(every) ?? new Set()).add(listener));
  }

  /** Forgets a listener. */
  delete(listener: StateListener): void {
    const every = listener.every!;
    this.#paced.get(every)?.delete(listener);
    if (this.#paced.get(every)?.size !== 0) return;
    this.#paced.delete(every);
    this.#toldAt.delete(every);
    // Else it would pass for the timer of another `every`.
    this.#timers.get(every)?.();
    this.#timers.delete(every);
  }

  /** Starts the timers: there is something to tell. Where nothing was told for long it is told at once. */
  start(): void {
    if (this.#paced.size === this.#timers.size) return;
    for (const every of this.#paced.keys()) {
      if (this.#timers.has(every)) continue;
      const { clock } = this.all.audience.room.registry;
      const toldAgo = clock.elapsedMs() - (this.#toldAt.get(every) ?? -Infinity);
      const ms = Math.max(0, every - toldAgo);
      this.#timers.set(every, clock.after(ms, () => this.#tell(every)));
    }
  }

  /** Ends the timers. */
  stop(): void {
    for (const stop of this.#timers.values()) stop();
    this.#timers.clear();
  }

  #tell(every: number): void {
    this.#timers.delete(every);
    const { audience, map, isReady } = this.all;
    if (!isReady) return;
    this.#toldAt.set(every, audience.room.registry.clock.elapsedMs());
    let isDone = true;
    const encoded = new Map<StatefulDialect, Map<unknown, string[]>>();
    for (const listener of [...this.#paced.get(every) ?? []]) {
      const { dialect } = listener;
      if (listener.toldRev === map.rev) continue;
      if (!encoded.has(dialect)) {
        encoded.set(dialect, new Map());
        // What was said in the room before goes out before.
        audience.fanOuts.get(dialect.withheld)?.flush();
      }
      if (!this.#paced.get(every)?.has(listener)) continue;
      const frames = listener.isCaughtUp ? listener.missed(encoded.get(dialect)) : undefined;
      if (frames) listener.tell(frames);
      else isDone = false;
    }
    if (!isDone) this.start();
  }
}
