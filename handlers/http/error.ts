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

/** The HTTP answer to what a room refuses. */
export function refusalError({ refused, retry = 1_000, text }: Rejection): HttpError {
  if (refused === "conflict") {
    return new HttpError(422, refused, "This Idempotency-Key came with another body before.");
  }
  const message = text ?? ERROR_TEXTS[refused];
  if (refused === "forbidden" || refused === "refused") return new HttpError(403, refused, message);
  const headers = { "retry-after": String(Math.ceil(retry / 1_000)) };
  return new HttpError(refused === "rate_limited" ? 429 : 503, refused, message, headers);
}
