/** Those of a room's state listeners that are to get each change at once: one that is behind gets none for a while. */
import type { Dialect } from "../protocol/encode.ts";
import type { PendingRoom } from "./flush.ts";
import type { StateListener } from "./state_listener.ts";
import type { StateListeners } from "./state_listeners.ts";

/** Within a turn, subscribers are looked at again after so many bytes. */
const LOOK_BYTES = 4_096;
/** No event tells that a peer has read: those who wait are looked at so often, in ms. */
const LOOK_MS = 50;

/** The listeners of one room without an `every`. */
export class StateWithholding implements PendingRoom {
  /** Who gets each change at once. */
  readonly #direct = new Set<StateListener>();
  /** Who gets no changes for a while. */
  readonly #withheld = new Set<StateListener>();
  #stopLook?: () => void;
  /** Where the count of all changes' bytes stood at the last look. */
  #lookedAt = -Infinity;
  #isMarked = false;

  constructor(readonly all: StateListeners) {}

  /** Adds a listener that was told the state as it is now. */
  add(listener: StateListener): void {
    this.#direct.add(listener);
  }

  delete(listener: StateListener): void {
    this.#withheld.delete(listener);
    this.#direct.delete(listener);
  }

  stop(): void {
    this.#stopLook?.();
  }

  /** Whether somebody may have fallen behind, with so many bytes more, since the last look. */
  isDue(size: number): boolean {
    return this.all.bytes + size - this.#lookedAt > LOOK_BYTES;
  }

  /** Looks at who is behind, before so many bytes more, and at who has caught up. */
  look(size = 0): void {
    this.#lookedAt = this.all.bytes;
    for (const listener of this.#withheld) this.release(listener);
    for (const listener of this.#direct) {
      if (listener.isBehind(size)) this.#withhold(listener);
    }
    this.#watch();
  }

  #watch(): void {
    if (this.#withheld.size === 0 || this.#stopLook || !this.all.isReady) return;
    this.#stopLook = this.all.audience.room.registry.clock.after(LOOK_MS, () => {
      this.#stopLook = undefined;
      this.look();
    });
  }

  withholdAll(): void {
    for (const listener of this.#direct) this.#withhold(listener);
  }

  #withhold(listener: StateListener): void {
    this.#direct.delete(listener);
    listener.withhold();
    this.#withheld.add(listener);
    this.#move(listener, listener.dialect.withheld);
  }

  /** Moves it to those who are spoken to in another dialect: it gets what was pending, then what it missed. */
  #move(listener: StateListener, to: Dialect, missed?: string[]): void {
    const { all: { audience } } = this;
    const { subscription } = listener;
    audience.fanOutOf(subscription.dialect).delete(subscription.subscriber);
    subscription.dialect = to;
    if (missed) listener.tell(missed);
    if (subscription.isCurrent) audience.fanOutOf(to).add(subscription.subscriber);
  }

  /** Gives one that has caught up what it missed, and each change from now on. */
  release(listener: StateListener): void {
    if (!this.#withheld.has(listener)) return;
    const frames = this.all.isReady && listener.isCaughtUp ? listener.missed() : undefined;
    if (!frames) return;
    this.#withheld.delete(listener);
    listener.isDirect = true;
    this.#direct.add(listener);
    this.#move(listener, listener.dialect, frames);
  }

  /** A change was sent: after the turn it is with the peers. */
  mark(): void {
    if (this.#isMarked) return;
    this.#isMarked = true;
    this.all.audience.room.registry.turn.addRoom(this);
  }

  flush(): void {}

  /** A turn has ended: what was sent in it is with the peers now. */
  flushSome(): boolean {
    this.#isMarked = false;
    this.#lookedAt = -Infinity;
    return false;
  }
}
