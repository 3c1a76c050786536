/** How much rooms take from their senders in one turn of the event loop: no more than a subscriber's queue holds. */
import type { MaybePromise } from "../util/maybe_promise.ts";
import type { Registry } from "./registry.ts";
import type { Rejection, Sender } from "./sender.ts";

/** What a message's envelope adds on its way out, in bytes, about. */
const ENVELOPE_BYTES = 200;

/** However small the queues are, so much is taken in a turn, and so much of one sender may wait. */
const MIN_BYTES = 65_536;
/** When a sender may try again of whom too much waits, in ms. */
const RETRY_MS = 1_000;

/**
 * What comes in one turn is in every queue before the runtime can send any of it: more than
 * MAX_QUEUE_BYTES would close who hears all of it, however fast they read. The rest waits for the next
 * turn: one message of each sender in the order they came, what else it sent behind that.
 */
export class Intake {
  /** Bytes that were taken since the last turn that is known to have ended. */
  #taken = 0;
  /** Of all messages that wait, also behind others of their sender. */
  #waitingBytes = 0;
  readonly #waiting: { bytes: number; enter: () => void }[] = [];
  #isScheduled = false;

  constructor(readonly registry: Pick<Registry, "limits" | "queueLimit" | "turn">) {}

  /** Runs a task of a sender's when its line is free, unless too much of it waits already. */
  enter<T>(
    { line, via }: Sender,
    size: number,
    task: () => MaybePromise<T>,
  ): MaybePromise<T | Rejection> {
    const { waitingBytes } = line;
    const isOver = waitingBytes > 0 && waitingBytes + size > this.#maxWaiting(waitingBytes);
    // A request's body is in memory already.
    if (isOver && via === "socket") return { refused: "rate_limited", retry: RETRY_MS };
    const done = line.hold(task);
    if (done instanceof Promise) {
      const count = (bytes: number) => {
        line.waitingBytes += bytes;
        this.#waitingBytes += bytes;
      };
      const release = () => count(-size);
      count(size);
      done.then(release, release);
    }
    return done;
  }

  /** A sender's burst, at most half of what all others leave of QUEUE_MB. */
  #maxWaiting(own: number): number {
    const { byteRate, maxQueueBytes, queueMb } = this.registry.limits;
    const left = queueMb * 1_000_000 - (this.#waitingBytes - own);
    return Math.max(MIN_BYTES, Math.min(Math.max(byteRate || Infinity, maxQueueBytes), left / 2));
  }

  /** Counts a message in. Nothing if it may go on, else done when its turn has come; the order stays. */
  take(size: number): Promise<void> | undefined {
    const bytes = size + ENVELOPE_BYTES;
    const entered = this.#waiting.length === 0 && this.#tryTake(bytes)
      ? undefined
      : new Promise<void>((enter) => this.#waiting.push({ bytes, enter }));
    this.#watchTurn();
    return entered;
  }

  /** Other threads and nodes take as much at the same time. */
  get #maxBytes(): number {
    return Math.max(MIN_BYTES, this.registry.queueLimit / 4);
  }

  #tryTake(bytes: number): boolean {
    const hasSpace = this.#taken === 0 || this.#taken + bytes <= this.#maxBytes;
    if (hasSpace) this.#taken += bytes;
    return hasSpace;
  }

  /** Most turns bring so little that they need not be known. */
  #watchTurn(): void {
    const isLittle = this.#waiting.length === 0 && this.#taken <= this.#maxBytes / 2;
    if (this.#isScheduled || isLittle) return;
    this.#isScheduled = true;
    this.registry.turn.scheduleNext(() => {
      this.#isScheduled = false;
      this.#taken = 0;
      while (this.#waiting.length > 0 && this.#tryTake(this.#waiting[0].bytes)) {
        this.#waiting.shift()!.enter();
      }
      this.#watchTurn();
    });
  }
}
