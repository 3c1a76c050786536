/** What is refused over HTTP: a bad request, and what a room does not take. */
import { isRefusal } from "../engine/engine.ts";
import { ERROR_TEXTS, type ErrorCode } from "../protocol/encode.ts";
import { HttpError } from "../protocol/http_error.ts";
import type { Rejection } from "../registry/sender.ts";

/** @throws {HttpError} 400 with a code and its text, or a closer one, unless the condition holds */
export function check(
  condition: boolean,
  code: ErrorCode | "bad_cursor" | "bad_key" | "bad_limit",
  text = ERROR_TEXTS[code as ErrorCode] as string,
): asserts condition {
  if (!condition) throw new HttpError(400, code, text);
}

/** A room's answer. @throws {HttpError} if it is a refusal */
export function granted<T>(result: T | Rejection): Exclude<T, Rejection> {
  if (isRefusal(result)) throw refusalError(result as Rejection);
  return result as Exclude<T, Rejection>;
}

/** Statuses of refusals that a client can act on; all others are 503. */
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
