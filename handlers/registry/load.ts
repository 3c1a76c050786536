/** Whether the server is behind, and what each sender may cause while it is. */
import type { Clock } from "../util/clock.ts";

/** How often the event loop is watched, in ms. */
const BEAT_MS = 20;
/** Later than this the loop is behind, in ms. */
const LATE_MS = 30;
/** Frames that one sender may cause in a second, times its share; about what a core writes. */
const FRAMES_PER_SECOND = 100_000;
/** Messages that cause no more than these are free: whoever chats in a small room is never refused. */
const FREE_FRAMES = 10;
/** A sender may be so much ahead of what it has paid for, in ms: what came in a long turn comes at once. */
const BURST_MS = 250;
/** With it a thousand senders together still get less than a core writes. */
const MIN_SHARE = 1 / 4_096;
/** In one beat no more frames are caused, or the loop would be late by them alone; while it is behind, fewer. */
const MAX_BEAT_FRAMES = 10_000;
const MAX_BEAT_FRAMES_BEHIND = 2_500;
/** A share is doubled after so long without being late, in ms. */
const RECOVERY_MS = 1_000;
/** The watch ends after so long without a message, in ms. */
const QUIET_MS = 5_000;

/**
 * Watches the event loop. A message that reaches n subscribers by frames of their own costs its server
 * n writes: while the loop is late, each sender may cause only so many. The watch is looked at when
 * messages come, too: in a turn of seconds no timer would tell.
 */
export class LoadWatch {
  #share = 1;
  /** Frames that were caused since the timer ran last. */
  #caused = 0;
  /** When the timer ran last, or the loop was found late. */
  #beatAt = 0;
  #changedAt = 0;
  #usedAt = 0;
  #stop?: () => void;

  /** @param isOn whether a sender's messages are limited at all */
  constructor(readonly clock: Clock, readonly isOn: boolean) {}

  /** Whether the server is behind, or was a moment ago. */
  get isBehind(): boolean {
    return this.#share < 1 || this.#caused > MAX_BEAT_FRAMES;
  }

  /**
   * Charges a sender for the frames that its message causes; free of charge while the server keeps up.
   * @param sender has when what it caused before is paid for, by {@link Clock.elapsedMs}
   * @returns 0, or the ms until it may send that
   */
  charge(frames: number, sender: { paidAt: number }, now: number): number {
    if (!this.isOn) return 0;
    this.#look(now);
    if (frames <= FREE_FRAMES) return 0;
    const most = this.#share < 1 ? MAX_BEAT_FRAMES_BEHIND : MAX_BEAT_FRAMES;
    // A message to more than that many may be the first of its beat.
    if (this.#caused > 0 && this.#caused + frames > most) return BEAT_MS;
    if (this.#share < 1) {
      const paidAt = Math.max(now, sender.paidAt);
      if (paidAt - now > BURST_MS) return Math.ceil(paidAt - now - BURST_MS);
      sender.paidAt = paidAt + frames * 1_000 / (FRAMES_PER_SECOND * this.#share);
    }
    this.#caused += frames;
    return 0;
  }

  /** Counts frames that nobody is charged for. */
  add(frames: number): void {
    if (!this.isOn) return;
    this.#look(this.clock.elapsedMs());
    this.#caused += frames;
  }

  #look(now: number): void {
    this.#usedAt = now;
    if (!this.#stop) {
      this.#beatAt = now;
      this.#stop = this.clock.every(BEAT_MS, () => this.#beat());
    } else if (now - this.#beatAt > BEAT_MS + LATE_MS) this.#fallBehind(now);
  }

  #beat(): void {
    const now = this.clock.elapsedMs();
    if (now - this.#beatAt > BEAT_MS + LATE_MS) this.#fallBehind(now);
    this.#beatAt = now;
    this.#caused = 0;
    if (this.#share < 1 && now - this.#changedAt >= RECOVERY_MS) {
      this.#share = Math.min(1, this.#share * 2);
      this.#changedAt = now;
    }
    if (this.#share === 1 && now - this.#usedAt >= QUIET_MS) this.stop();
  }

  #fallBehind(now: number): void {
    this.#share = Math.max(MIN_SHARE, this.#share / 4);
    this.#beatAt = this.#changedAt = now;
  }

  /** Ends the watch, until the next message. */
  stop(): void {
    this.#stop?.();
    this.#stop = undefined;
  }
}
