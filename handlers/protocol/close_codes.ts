/** Why Parley closes a socket: the table of close codes. */

/** A close as the peer sees it. `handlers/README.md`, Closes; codes by RFC 6455, 7.4.1, and IANA. */
export interface Close {
  code: number;
  /** At most 123 bytes. */
  reason: string;
}

/** A reason has at most so many bytes; the runtime takes longer ones of a peer. RFC 6455, 5.5 */
export const MAX_REASON_BYTES = 123;

/** Every close that Parley sends by itself. The comment says whether a client comes back. */
export const CLOSE = {
  /** The server drains. Yes, after `bye`'s `retry`. */
  goingAway: { code: 1001, reason: "going away" },
  /** Ten seconds of unbroken refusals, or an echo socket over its rate. No. */
  rateLimited: { code: 1008, reason: "rate limited" },
  /** A policy forbids it. No. */
  notAllowed: { code: 1008, reason: "not allowed" },
  /** The token's time is over. With a fresh one. */
  tokenExpired: { code: 1008, reason: "token expired" },
  /** A message over MAX_MESSAGE_BYTES. No. */
  tooBig: { code: 1009, reason: "message too big" },
  /** More than MAX_QUEUE_BYTES unsent. Yes, with `after`. */
  tooSlow: { code: 1013, reason: "too slow" },
} as const satisfies Record<string, Close>;
