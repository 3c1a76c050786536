/**
 * What one chat socket may do: messages, bytes and joins a second.
 *
 * @module
 */
import { TokenBucket } from "./rate_limit.ts";

/** Refusals that nothing interrupts for so long end the socket. */
const MAX_REFUSED_MS = 10_000;

/** Units a second, 0 for no limit; and the rooms of a connection, which it may open at once. */
export interface Rates {
  MESSAGE_RATE: number;
  BYTE_RATE: number;
  JOIN_RATE: number;
  MAX_ROOMS_PER_CONNECTION: number;
}

/** Three token buckets that refuse together, and since when they do. */
export class Allowance {
  readonly #messages: TokenBucket;
  readonly #bytes: TokenBucket;
  readonly #joins: TokenBucket;
  /** When the refusals began that nothing has interrupted since; 0 without. */
  #refusedSince = 0;

  /** @param now Unix ms */
  constructor(rates: Rates, now: number) {
    const { MESSAGE_RATE, BYTE_RATE, JOIN_RATE, MAX_ROOMS_PER_CONNECTION } = rates;
    this.#messages = new TokenBucket(MESSAGE_RATE, MESSAGE_RATE, now);
    this.#bytes = new TokenBucket(BYTE_RATE, BYTE_RATE, now);
    this.#joins = new TokenBucket(JOIN_RATE, MAX_ROOMS_PER_CONNECTION, now);
  }

  /** Whether the last message was refused. */
  get isRefusing(): boolean {
    return this.#refusedSince > 0;
  }

  /** Takes a message of so many bytes, and a join if it `opens` a room; answers the ms to wait, or 0. */
  take(size: number, opens: boolean, now: number): number {
    const forMessage = this.#messages.take(1, now);
    const forBytes = this.#bytes.take(size, now);
    const forJoin = opens ? this.#joins.take(1, now) : 0;
    const retry = Math.max(forMessage, forBytes, forJoin);
    if (retry === 0) {
      this.#refusedSince = 0;
      return 0;
    }
    // What one bucket refuses costs nothing in the others.
    if (forMessage === 0) this.#messages.giveBack(1);
    if (forBytes === 0) this.#bytes.giveBack(size);
    if (opens && forJoin === 0) this.#joins.giveBack(1);
    this.#refusedSince ||= now;
    return retry;
  }

  /** Whether refusals alone have gone on for too long. */
  isOver(now: number): boolean {
    return this.isRefusing && now - this.#refusedSince >= MAX_REFUSED_MS;
  }
}
