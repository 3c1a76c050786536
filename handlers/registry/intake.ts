/** How much a room takes from its senders in one turn of the event loop: no more than its subscribers' queues hold. */
import type { Registry } from "./registry.ts";

/** What a message's envelope adds on its way out, in bytes, about. */
const ENVELOPE_BYTES = 200;

/** However small the queues are, a room takes so much in a turn. */
const MIN_BYTES = 65_536;

/**
 * What comes in one turn is in every queue before the runtime can send any of it: more than
 * MAX_QUEUE_BYTES would close all subscribers, however fast they read. The rest waits for the next turn.
 */
export class Intake {
  /** Bytes that were taken since the last turn that is known to have ended. */
  #taken = 0;
  readonly #waiting: { bytes: number; enter: () => void }[] = [];
  #isScheduled = false;

  constructor(readonly registry: Pick<Registry, "queueLimit" | "turn">) {}

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

  /** Most rooms never take so much that their turns need to be known. */
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
