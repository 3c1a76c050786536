/** How many idempotency keys Redis remembers for a node. */
import { FairShare } from "../budget.ts";
import { DEDUPE_MS } from "../dedupe.ts";

/**
 * Bounds the bytes of the idempotency keys of this period of 5 minutes and the last one. An address may use
 * half of what the others leave.
 */
export class KeyBudget {
  #period = 0;
  #keys: FairShare;

  constructor(readonly maxBytes: number) {
    this.#keys = new FairShare(maxBytes);
  }

  /** Counts bytes in, if there is space; returns whether there was. */
  tryConsume(bytes: number, now: number, address?: string): boolean {
    const period = Math.floor(now / DEDUPE_MS);
    if (period !== this.#period) {
      const lastBytes = period === this.#period + 1 ? this.#keys.used : 0;
      this.#keys = new FairShare(this.maxBytes - lastBytes);
      this.#period = period;
    }
    if (!this.#keys.hasSpace(bytes, address)) return false;
    this.#keys.count(bytes, address);
    return true;
  }
}
