/** What a room refuses, over HTTP. */
import { isRefusal } from "../engine/engine.ts";
import { ERROR_TEXTS } from "../protocol/encode.ts";
import { HttpError } from "../protocol/http_error.ts";
import type { Rejection } from "../registry/room.ts";

/** What a room answers. @throws {HttpError} if it refuses */
export function granted<T>(result: T | Rejection): Exclude<T, Rejection> {
  if (isRefusal(result)) throw refusalError(result as Rejection);
  return result as Exclude<T, Rejection>;
}

/** What a client can do something about, by code; all else is 503. */
const STATUSES: Record<string, number> = {
  forbidden: 403,
  refused: 403,
  too_many_keys: 409,
  rev_conflict: 412,
};

/** The HTTP answer to what a room refuses. */
export function refusalError({ refused, retry = 1_000, text, rev }: Rejection): HttpError {
  if (refused === "conflict") {
    return new HttpError(422, refused, "This Idempotency-Key came with another body before.");
  }
  const message = text ?? ERROR_TEXTS[refused];
  const status = STATUSES[refused];
  if (status !== undefined) return new HttpError(status, refused, message, {}, { rev });
  const headers = { "retry-after": String(Math.ceil(retry / 1_000)) };
  return new HttpError(refused === "rate_limited" ? 429 : 503, refused, message, headers);
}
