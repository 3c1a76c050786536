/** Those of a room's state listeners that get changes together, by `every`: one timer and one encoding for each. */
import type { StatefulDialect } from "../protocol/encode.ts";
import type { StateListener } from "./state_listener.ts";
import type { StateListeners } from "./state_listeners.ts";

/** The paced listeners of one room. One that does not change runs no timer. */
export class StatePacing {
  /** By `every`: with what ends the timer that runs, and when something was told last. */
  readonly #groups = new Map<number, { all: Set<StateListener>; stop?(): void; toldAt: number }>();

  constructor(readonly all: StateListeners) {}

  add(listener: StateListener): void {
    const every = listener.every!;
    const group = this.#groups.get(every) ?? { all: new Set(), toldAt: -Infinity };
    this.#groups.set(every, group);
    group.all.add(listener);
  }

  delete(listener: StateListener): void {
    const group = this.#groups.get(listener.every!);
    if (!group?.all.delete(listener) || group.all.size > 0) return;
    group.stop?.();
    this.#groups.delete(listener.every!);
  }

  /** Starts the timers: there is something to tell. Where nothing was told for long it is told at once. */
  start(): void {
    const { clock } = this.all.audience.room.registry;
    for (const [every, group] of this.#groups) {
      if (group.stop) continue;
      const ms = Math.max(0, group.toldAt + every - clock.elapsedMs());
      group.stop = clock.after(ms, () => this.#tell(every));
    }
  }

  stop(): void {
    for (const group of this.#groups.values()) {
      group.stop?.();
      group.stop = undefined;
    }
  }

  #tell(every: number): void {
    const { audience, map, isReady } = this.all;
    const group = this.#groups.get(every)!;
    group.stop = undefined;
    if (!isReady) return;
    group.toldAt = audience.room.registry.clock.elapsedMs();
    let isDone = true;
    const encoded = new Map<StatefulDialect, Map<unknown, string[]>>();
    for (const listener of [...group.all]) {
      const { dialect } = listener;
      if (listener.toldRev === map.rev) continue;
      if (!encoded.has(dialect)) {
        encoded.set(dialect, new Map());
        // What was said in the room before goes out before.
        audience.fanOuts.get(dialect.withheld)?.flush();
      }
      if (!group.all.has(listener)) continue;
      const frames = listener.isCaughtUp ? listener.missed(encoded.get(dialect)) : undefined;
      if (frames) listener.tell(frames);
      else isDone = false;
    }
    if (!isDone) this.start();
  }
}
