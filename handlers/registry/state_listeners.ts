/** A room's state as this process knows it, and who subscribes to it. */
import { isRefusal } from "../engine/engine.ts";
import { StateMap } from "../engine/state_map.ts";
import type { StatefulDialect } from "../protocol/encode.ts";
import type { StateCursor } from "../protocol/position.ts";
import type { Entry, StateSpan } from "../protocol/room_event.ts";
import { byteLength } from "../util/bytes.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import type { Audience } from "./audience.ts";
import { MAX_UNDER_WAY_BYTES, StateListener } from "./state_listener.ts";
import { StatePacing } from "./state_pacing.ts";
import { StateWithholding } from "./state_withholding.ts";
import type { Subscription } from "./subscription.ts";

/** What a change has beside its key, value and sender, in bytes. */
const CHANGE_BYTES = 90;
const RETRY_MS = 250;

/** The state of a room as this process knows it, and who subscribes to it. */
export class StateListeners {
  readonly map: StateMap = new StateMap();
  /** Whether the map is the room's. */
  isReady = false;
  /** How many subscriptions to the state there are, those that are not live included. */
  count = 0;
  /** Bytes of all changes so far. */
  bytes = 0;
  readonly #listeners = new Map<Subscription, StateListener>();
  readonly #withholding = new StateWithholding(this);
  readonly #pacing = new StatePacing(this);
  #loading?: MaybePromise<void>;
  /** Changes that came while the state was read. */
  #early: Entry[] = [];
  /** At which rev there were how many bytes. */
  #marks: { rev: number; bytes: number }[] = [];

  constructor(readonly audience: Audience) {}

  /** Takes the state from the engine, unless it is here. Done when it is here, or should be asked for again. */
  load(since?: StateCursor): MaybePromise<void> {
    if (this.isReady) return;
    if (this.#loading) return this.#loading;
    const { room } = this.audience;
    this.#early = [];
    const loaded = chain(room.engine.state(room.name, since), (span): MaybePromise<void> => {
      // The reset that tells of another epoch is still to come.
      if (isRefusal(span) || span.epoch !== this.audience.head.epoch) return this.#wait();
      if (span.since === undefined) this.map.reset(span.rev, span.entries);
      else for (const entry of span.entries) this.#put(entry);
      this.isReady = true;
      for (const entry of this.#early.splice(0)) this.#apply(entry);
      this.#withholding.look();
      this.#pacing.start();
    });
    if (!(loaded instanceof Promise)) return;
    return this.#loading = loaded.finally(() => this.#loading = undefined);
  }

  #wait(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.audience.room.registry.clock.after(RETRY_MS, resolve);
    return promise;
  }

  /** Ends its timers: nobody subscribes to the state any more. */
  stop(): void {
    this.#withholding.stop();
    this.#pacing.stop();
  }

  /** Takes a subscription that was told the state as it is now, in so many bytes. */
  add(subscription: Subscription, dialect: StatefulDialect, bytes: number): void {
    const listener = new StateListener(this, subscription, dialect, bytes);
    this.#listeners.set(subscription, listener);
    this.#groupOf(listener).add(listener);
    subscription.dialect = listener.isDirect ? dialect : dialect.withheld;
  }

  delete(subscription: Subscription): void {
    const listener = this.#listeners.get(subscription);
    if (!listener) return;
    this.#listeners.delete(subscription);
    this.#groupOf(listener).delete(listener);
  }

  #groupOf({ every }: StateListener): StateWithholding | StatePacing {
    return every === undefined ? this.#withholding : this.#pacing;
  }

  got(subscription: Subscription, rev: number): void {
    const listener = this.#listeners.get(subscription);
    if (!listener) return;
    listener.got(rev);
    this.#withholding.release(listener);
  }

  change(entry: Entry): void {
    if (!this.isReady) this.#early.push(entry);
    else this.#apply(entry);
  }

  /** The room has begun anew: everybody gets the whole state once it is known. */
  reset(): void {
    this.#withholding.withholdAll();
    for (const listener of this.#listeners.values()) listener.reset();
    this.#reload();
  }

  /** Changes were missed: everybody gets what they made of the state once it is known. */
  catchUp(): void {
    if (!this.isReady) return this.#reload();
    this.#withholding.withholdAll();
    this.#reload({ epoch: this.audience.head.epoch, rev: this.map.rev });
  }

  #reload(since?: StateCursor): void {
    this.isReady = false;
    this.#marks = [];
    chain(this.load(since), () => {
      if (!this.isReady && this.count > 0) this.#reload(since);
    });
  }

  #apply(entry: Entry): void {
    const { audience, map } = this;
    // It was in the state when that was read.
    if (entry.rev <= map.rev) return;
    if (entry.rev > map.rev + 1) return this.catchUp();
    const { key, value, sender } = entry;
    const size = key.length + byteLength(value) + sender.length + CHANGE_BYTES;
    if (this.#withholding.isDue(size)) {
      this.#marks.push({ rev: map.rev, bytes: this.bytes });
      if (this.bytes - this.#marks[0].bytes > 4 * MAX_UNDER_WAY_BYTES) {
        this.#marks.splice(0, this.#marks.length >> 1);
      }
      this.#withholding.look(size);
    }
    this.#put(entry);
    this.bytes += size;
    for (const [dialect, fanOut] of audience.fanOuts) {
      if (fanOut.size === 0 || !("set" in dialect)) continue;
      fanOut.push((dialect as StatefulDialect).set(audience.room.name, audience.head, entry));
    }
    this.#pacing.start();
    this.#withholding.mark();
  }

  #put(entry: Entry): void {
    this.map.apply(entry);
    this.map.trim();
  }

  /** How many bytes of changes there were at a rev, at least. */
  bytesAt(rev: number): number {
    return this.#marks.findLast((mark) => mark.rev <= rev)?.bytes ?? 0;
  }

  /** The oldest rev that somebody who gets no changes now was told; 0 where one needs the whole state. */
  get oldestTold(): number {
    return this.#listeners.values().filter(({ isDirect }) => !isDirect)
      .reduce((oldest, { toldRev = 0 }) => Math.min(oldest, toldRev), this.map.rev);
  }

  /** What changed behind a rev, or the whole state where that is not known. */
  spanSince(since?: number): StateSpan {
    const { map, audience: { head: { epoch } } } = this;
    return since !== undefined && map.knows(since)
      ? { epoch, rev: map.rev, since, entries: map.since(since) }
      : { epoch, rev: map.rev, entries: map.entries() };
  }
}
