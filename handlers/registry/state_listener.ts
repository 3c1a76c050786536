/** One subscription to a room's state, and how far behind it is. */
import type { StatefulDialect } from "../protocol/encode.ts";
import { byteLength } from "../util/bytes.ts";
import type { StateListeners } from "./state_listeners.ts";
import type { Subscription } from "./subscription.ts";

/** With more than this share of its queue unsent a subscriber gets no changes; with less than a quarter of it, it has caught up. */
const WITHHELD_SHARE = 8;
const CAUGHT_UP_SHARE = 32;
/** Beyond its last `got` a subscriber has at most so many bytes of state on their way. */
export const MAX_UNDER_WAY_BYTES = 65_536;

/** A subscription to the state, from when it is live. */
export class StateListener {
  /** It gets changes together, at most each so many ms. */
  readonly every?: number;
  /** Whether it gets each change at once; otherwise it is withheld or paced. */
  isDirect: boolean;
  /** The rev that it was told last while it is not direct; nothing: it needs the whole state. */
  toldRev?: number;
  /** The last rev that it said it has applied. */
  #gotRev?: number;
  /** Where the count of all changes' bytes stood at that rev. */
  #gotBytes: number;
  /** Where that count stood when it was sent the last change; nothing while it is sent each. */
  #heldBytes?: number;
  /** What it was sent together, while it is not known to be applied. */
  #told: { rev: number; bytes: number }[];

  /** @param bytes what it was just sent: the state as it is now */
  constructor(
    readonly all: StateListeners,
    readonly subscription: Subscription,
    readonly dialect: StatefulDialect,
    bytes: number,
  ) {
    const { rev } = all.map;
    this.every = subscription.wanted.every;
    this.isDirect = this.every === undefined;
    this.toldRev = rev;
    this.#gotBytes = all.bytes;
    this.#heldBytes = this.isDirect ? undefined : all.bytes;
    this.#told = [{ rev, bytes }];
  }

  got(rev: number): void {
    const { all } = this;
    if (rev < (this.#gotRev ?? 0) || rev > all.map.rev) return;
    this.#gotRev = rev;
    this.#told = this.#told.filter((told) => told.rev > rev);
    const { heldBytes, lastRev } = this.#heldBytes === undefined
      ? { heldBytes: all.bytes, lastRev: all.map.rev }
      : { heldBytes: this.#heldBytes, lastRev: this.toldRev ?? 0 };
    const bytes = rev >= lastRev ? heldBytes : Math.min(heldBytes, all.bytesAt(rev));
    this.#gotBytes = Math.max(this.#gotBytes, bytes);
  }

  /** Whether so many bytes more are too many for it. */
  isBehind(size: number): boolean {
    const { subscriber: { unsentBytes, registry } } = this.subscription;
    if (unsentBytes > registry.queueLimit / WITHHELD_SHARE) return true;
    return this.#gotRev !== undefined && this.#underWay + size > MAX_UNDER_WAY_BYTES;
  }

  /** Whether it may be told what it missed. */
  get isCaughtUp(): boolean {
    const { subscriber: { unsentBytes, registry } } = this.subscription;
    // It says what it got now and then: of the last few bytes it may never say so.
    return unsentBytes <= registry.queueLimit / CAUGHT_UP_SHARE &&
      (this.#gotRev === undefined || this.#underWay <= MAX_UNDER_WAY_BYTES / 2);
  }

  /** How many bytes of state it was sent beyond what it said that it got. */
  get #underWay(): number {
    const direct = (this.#heldBytes ?? this.all.bytes) - this.#gotBytes;
    return this.#told.reduce((sum, { bytes }) => sum + bytes, direct);
  }

  withhold(): void {
    this.isDirect = false;
    this.toldRev = this.all.map.rev;
    this.#heldBytes = this.all.bytes;
  }

  /** The room has begun anew: what it was told is of no use. */
  reset(): void {
    this.toldRev = this.#gotRev = undefined;
    this.#told = [];
  }

  /** What has changed since it was told last; nothing while its queue has no space for it. `encoded` has what others were told. */
  missed(encoded: Map<unknown, string[]> = new Map()): string[] | undefined {
    const { all, toldRev, dialect, subscription: { subscriber } } = this;
    const { room, head } = all.audience;
    let frames = encoded.get(toldRev);
    if (!frames) {
      frames = dialect.state(room.name, head.seq, all.spanSince(toldRev));
      encoded.set(toldRev, frames);
    }
    const bytes = bytesOf(frames);
    const { queueLimit, limits: { maxQueueBytes } } = room.registry;
    if (subscriber.unsentBytes + bytes <= queueLimit) return frames;
    if (toldRev === undefined || bytes <= maxQueueBytes) return undefined;
    // Many removals never fit. The whole state does: it is at most a quarter of the queue.
    this.toldRev = undefined;
    return this.missed(encoded);
  }

  tell(frames: string[]): void {
    const { all, toldRev, subscription: { subscriber } } = this;
    const direct = (this.#heldBytes ?? all.bytes) - this.#gotBytes;
    // Of one that has never said what it got nothing is counted.
    if (this.#gotRev === undefined) this.#told = [];
    else this.#told.push({ rev: toldRev ?? 0, bytes: direct });
    this.#told.push({ rev: all.map.rev, bytes: bytesOf(frames) });
    this.toldRev = all.map.rev;
    this.#gotBytes = all.bytes;
    this.#heldBytes = this.isDirect ? undefined : all.bytes;
    for (const frame of frames) subscriber.notify(frame);
  }
}

/** The bytes of frames together. */
export function bytesOf(frames: string[]): number {
  return frames.reduce((sum, frame) => sum + byteLength(frame), 0);
}
