/**
 * What a server counts: plain numbers, read when somebody asks for the metrics.
 *
 * @module
 */
import { CLOSE } from "./close.ts";

/** Counters since the start. Nothing more than an increment happens on a message's way. */
export class Counters {
  /** Objects that clients sent. */
  messagesIn = 0;
  bytesIn = 0;
  /** Frames to clients. With `parley.v1` one holds several messages. */
  framesOut = 0;
  /** UTF-16 units for text, bytes for binary: the cheap measure. */
  bytesOut = 0;
  /** Messages times the listeners they went to. */
  deliveries = 0;
  /** Merged frames made, each for all of a room, and the lines in them. */
  batches = 0;
  batchedMessages = 0;
  connections = { plain: 0, v1: 0, echo: 0, events: 0 };
  recoveries = { complete: 0, partial: 0 };
  /** Closes that the server began, by reason. */
  closes: Record<keyof typeof CLOSE, number> = {
    goingAway: 0,
    rateLimited: 0,
    notAllowed: 0,
    tokenExpired: 0,
    tooBig: 0,
    tooSlow: 0,
  };
  /** Errors sent and requests refused, by code: a fixed set. */
  refusals: Record<string, number> = {};

  /** Counts a refusal under a code of the protocol. */
  refuse(code: string): void {
    this.refusals[code] = (this.refusals[code] ?? 0) + 1;
  }
}
