/** How many idempotency keys Redis remembers for a node. */
import type { Clock } from "../../util/clock.ts";
import { FairShare } from "../budget.ts";
import { DEDUPE_MS } from "../dedupe.ts";
import type { IdempotencyKey } from "../engine.ts";
import { encodeText } from "./encoding.ts";

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

  /** The arguments of a script for an id, which is counted in, or for none. */
  toArgs(clock: Clock, key?: IdempotencyKey, address?: string): string[] {
    if (!key) return ["", "", "", ""];
    const { session, id, digest = "" } = key;
    // A session's ids replace its oldest ones; keys with a digest must stay for their five minutes.
    const bytes = session.length + id.length + digest.length + 200;
    const hasSpace = digest === "" || this.tryConsume(bytes, clock.elapsedMs(), address);
    return [encodeText(session), encodeText(id), digest, hasSpace ? "1" : "0"];
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
