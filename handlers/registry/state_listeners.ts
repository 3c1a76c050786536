/** A room's subscribers to its state in this process: who gets each change, and who the latest values when it is their time. */
import { isRefusal } from "../engine/engine.ts";
import { StateMap } from "../engine/state_map.ts";
import type { StatefulDialect } from "../protocol/encode.ts";
import type { Entry, StateSpan } from "../protocol/room_event.ts";
import { encodeEntry } from "../protocol/state.ts";
import { byteLength } from "../util/bytes.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import type { Audience } from "./audience.ts";
import type { PendingRoom } from "./flush.ts";
import type { Subscription } from "./subscription.ts";

/** With more than this share of its queue unsent a subscriber gets no changes; with less than a quarter of it, it has caught up. */
const WITHHELD_SHARE = 8;
const CAUGHT_UP_SHARE = 32;
/** Beyond its last `got` a subscriber has at most so many bytes of state on their way. */
const MAX_UNDER_WAY_BYTES = 65_536;
/** Within a turn, subscribers are looked at again after so many bytes. */
const LOOK_BYTES = 4_096;
/** No event tells that a peer has read: those who wait are looked at so often, in ms. */
const LOOK_MS = 50;
const RETRY_MS = 250;

/** One subscription to the state, from when it is live. */
export interface StateListener {
  subscription: Subscription;
  dialect: StatefulDialect;
  /** The rev that it was told last while it is withheld or paced; nothing: it needs the whole state. */
  toldRev?: number;
  /** It gets changes together, at most each so many ms. */
  every?: number;
  isWithheld: boolean;
  /** The last rev that it said it has applied. */
  gotRev?: number;
  /** Where the count of all changes' bytes stood at that rev. */
  gotBytes: number;
  /** Where that count stood when it was sent the last change; nothing while it is sent each. */
  heldBytes?: number;
  /** What it was sent together, while it is not known to be applied. */
  told: { rev: number; bytes: number }[];
}

/** The state of a room as this process knows it, and who subscribes to it. */
export class StateListeners implements PendingRoom {
  readonly map: StateMap = new StateMap();
  /** Whether the map is the room's. */
  isReady = false;
  /** How many subscriptions to the state there are, those that are not live included. */
  count = 0;
  readonly #listeners = new Map<Subscription, StateListener>();
  /** Who gets no changes for a while. */
  readonly #withheld = new Set<StateListener>();
  /** Who gets each change at once. */
  readonly #live = new Set<StateListener>();
  /** Who gets changes together, by `every`. */
  readonly #paced = new Map<number, Set<StateListener>>();
  /** Ends the timer that runs, by `every`. */
  readonly #timers = new Map<number, () => void>();
  #stopLook?: () => void;
  #loading?: MaybePromise<void>;
  /** Changes that came while the state was read. */
  #early: Entry[] = [];
  /** Bytes of all changes so far, and at which rev they were how many. */
  #bytes = 0;
  #marks: { rev: number; bytes: number }[] = [];
  #lookedAt = -Infinity;
  #isMarked = false;

  constructor(readonly audience: Audience) {}

  /** Takes the state from the engine, unless it is here. Done when it is here, or should be asked for again. */
  load(): MaybePromise<void> {
    if (this.isReady) return;
    if (this.#loading) return this.#loading;
    const { room } = this.audience;
    this.#early = [];
    const loaded = chain(room.engine.state(room.name), (span): MaybePromise<void> => {
      // The reset that tells of another epoch is still to come.
      if (isRefusal(span) || span.epoch !== this.audience.head.epoch) return this.#wait();
      this.map.reset(span.rev, span.entries);
      this.isReady = true;
      for (const entry of this.#early.splice(0)) this.#apply(entry);
      this.#look();
      this.#pace();
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
    this.#stopLook?.();
    for (const stop of this.#timers.values()) stop();
    this.#timers.clear();
  }

  /** Takes a subscription that was told the state as it is now. */
  add(subscription: Subscription, dialect: StatefulDialect, bytes: number): void {
    const { every } = subscription.wanted;
    const { rev } = this.map;
    const listener: StateListener = {
      subscription,
      dialect,
      toldRev: rev,
      every,
      isWithheld: false,
      gotBytes: this.#bytes,
      heldBytes: every === undefined ? undefined : this.#bytes,
      told: [{ rev, bytes }],
    };
    this.#listeners.set(subscription, listener);
    if (every === undefined) this.#live.add(listener);
    else this.#paced.set(every, (this.#paced.get(every) ?? new Set()).add(listener));
    subscription.dialect = every === undefined ? dialect : dialect.withheld;
  }

  /** Forgets a subscription. */
  delete(subscription: Subscription): void {
    const listener = this.#listeners.get(subscription);
    if (!listener) return;
    this.#listeners.delete(subscription);
    this.#withheld.delete(listener);
    this.#live.delete(listener);
    const { every } = listener;
    if (every === undefined) return;
    this.#paced.get(every)?.delete(listener);
    if (this.#paced.get(every)?.size === 0) this.#paced.delete(every);
  }

  /** Takes what a subscriber says that it has applied. */
  got(subscription: Subscription, rev: number): void {
    const listener = this.#listeners.get(subscription);
    if (!listener || rev < (listener.gotRev ?? 0) || rev > this.map.rev) return;
    listener.gotRev = rev;
    listener.told = listener.told.filter((told) => told.rev > rev);
    const { heldBytes = this.#bytes, toldRev = 0 } = listener;
    const lastRev = listener.heldBytes === undefined ? this.map.rev : toldRev;
    const mark = this.#marks.findLast((mark) => mark.rev <= rev);
    const bytes = rev >= lastRev ? heldBytes : Math.min(heldBytes, mark?.bytes ?? 0);
    listener.gotBytes = Math.max(listener.gotBytes, bytes);
    if (listener.isWithheld) this.#release(listener);
  }

  /** Takes a change of the room's state, and gives it to whom it is for. */
  change(entry: Entry): void {
    if (!this.isReady) this.#early.push(entry);
    else this.#apply(entry);
  }

  /** The room has begun anew: everybody gets the whole state once it is known. */
  reset(): void {
    this.isReady = false;
    this.#marks = [];
    for (const listener of this.#listeners.values()) {
      this.#withhold(listener);
      listener.toldRev = listener.gotRev = undefined;
      listener.told = [];
    }
    this.#reload();
  }

  #reload(): void {
    chain(this.load(), () => {
      if (!this.isReady && this.count > 0) this.#reload();
    });
  }

  flush(): void {}

  /** A turn has ended: what was sent in it is with the peers now. */
  flushSome(): boolean {
    this.#isMarked = false;
    this.#lookedAt = -Infinity;
    return false;
  }

  #apply(entry: Entry): void {
    const { audience, map } = this;
    // It was in the state when that was read.
    if (entry.rev <= map.rev) return;
    if (entry.rev > map.rev + 1) return this.reset();
    const size = byteLength(encodeEntry(entry));
    if (this.#bytes + size - this.#lookedAt > LOOK_BYTES) {
      this.#marks.push({ rev: map.rev, bytes: this.#bytes });
      if (this.#bytes - this.#marks[0].bytes > 4 * MAX_UNDER_WAY_BYTES) {
        this.#marks.splice(0, this.#marks.length >> 1);
      }
      this.#look(size);
    }
    map.apply(entry);
    this.#bytes += size;
    audience.pushChange(entry);
    this.#pace();
    if (this.#isMarked) return;
    this.#isMarked = true;
    audience.room.registry.turn.addRoom(this);
  }

  /** Looks at who is behind, before so many bytes more, and at who has caught up. */
  #look(size = 0): void {
    this.#lookedAt = this.#bytes;
    for (const listener of this.#withheld) this.#release(listener);
    for (const listener of this.#live) {
      if (this.#isBehind(listener, size)) this.#withhold(listener);
    }
    this.#watch();
  }

  /** Looks again soon, as long as somebody is withheld. */
  #watch(): void {
    if (this.#withheld.size === 0 || this.#stopLook || !this.isReady) return;
    this.#stopLook = this.audience.room.registry.clock.after(LOOK_MS, () => {
      this.#stopLook = undefined;
      this.#look();
    });
  }

  #isBehind(listener: StateListener, size: number): boolean {
    const { subscriber } = listener.subscription;
    const { registry } = this.audience.room;
    if (subscriber.unsentBytes > registry.queueLimit / WITHHELD_SHARE) return true;
    return listener.gotRev !== undefined && this.#underWay(listener) + size > MAX_UNDER_WAY_BYTES;
  }

  /** How many bytes of state it was sent beyond what it said that it got. */
  #underWay({ heldBytes = this.#bytes, gotBytes, told }: StateListener): number {
    return told.reduce((sum, { bytes }) => sum + bytes, heldBytes - gotBytes);
  }

  /** From now on it stands where changes are not heard. */
  #withhold(listener: StateListener): void {
    if (listener.every !== undefined || listener.isWithheld) return;
    listener.isWithheld = true;
    listener.toldRev = this.map.rev;
    listener.heldBytes = this.#bytes;
    this.#live.delete(listener);
    this.#withheld.add(listener);
    this.audience.move(listener.subscription, listener.dialect.withheld);
  }

  /** Gives one that has caught up what it missed, and each change from now on. */
  #release(listener: StateListener): void {
    if (!this.#isCaughtUp(listener)) return;
    this.#withheld.delete(listener);
    listener.isWithheld = false;
    this.#live.add(listener);
    this.audience.move(listener.subscription, listener.dialect, () => this.#tell(listener));
  }

  #isCaughtUp(listener: StateListener): boolean {
    const { queueLimit } = this.audience.room.registry;
    const { subscriber: { unsentBytes } } = listener.subscription;
    // It says what it got now and then: of the last few bytes it may never say so.
    return this.isReady && unsentBytes <= queueLimit / CAUGHT_UP_SHARE &&
      (listener.gotRev === undefined || this.#underWay(listener) <= MAX_UNDER_WAY_BYTES / 2);
  }

  /** Tells one what has changed since it was told last. `encoded` has what others were told. */
  #tell(listener: StateListener, encoded: Map<unknown, string[]> = new Map()): void {
    const { map, audience: { room, head } } = this;
    const { toldRev: since, dialect, subscription: { subscriber } } = listener;
    let frames = encoded.get(since);
    if (!frames) {
      frames = dialect.state(room.name, head.seq, this.spanSince(since));
      encoded.set(since, frames);
    }
    const bytes = frames.reduce((sum, frame) => sum + frame.length, 0);
    const { heldBytes = this.#bytes, gotBytes, gotRev, toldRev = 0 } = listener;
    // Of one that has never said so nothing is counted.
    const before = gotRev === undefined
      ? []
      : [...listener.told, { rev: toldRev, bytes: heldBytes - gotBytes }];
    listener.told = [...before, { rev: map.rev, bytes }];
    listener.toldRev = map.rev;
    listener.gotBytes = this.#bytes;
    listener.heldBytes = listener.every === undefined ? undefined : this.#bytes;
    for (const frame of frames) subscriber.notify(frame);
  }

  /** What changed behind a rev, or the whole state where that is not known. */
  spanSince(since?: number): StateSpan {
    const { map, audience: { head: { epoch } } } = this;
    return since !== undefined && map.knows(since)
      ? { epoch, rev: map.rev, since, entries: map.since(since) }
      : { epoch, rev: map.rev, entries: map.entries() };
  }

  /** Starts the timers of those who get changes together. */
  #pace(): void {
    const { clock } = this.audience.room.registry;
    for (const every of this.#paced.keys()) {
      if (this.#timers.has(every)) continue;
      this.#timers.set(every, clock.after(every, () => this.#tellPaced(every)));
    }
  }

  #tellPaced(every: number): void {
    this.#timers.delete(every);
    if (!this.isReady) return;
    let isDone = true;
    const encoded = new Map<StatefulDialect, Map<unknown, string[]>>();
    for (const listener of [...this.#paced.get(every) ?? []]) {
      const { dialect, subscription } = listener;
      if (listener.toldRev === this.map.rev) continue;
      if (!this.#isCaughtUp(listener)) {
        isDone = false;
        continue;
      }
      if (!encoded.has(dialect)) {
        encoded.set(dialect, new Map());
        // What was said in the room before goes out before.
        this.audience.flush(dialect.withheld);
      }
      if (this.#listeners.has(subscription)) this.#tell(listener, encoded.get(dialect));
    }
    if (!isDone) this.#pace();
  }
}
