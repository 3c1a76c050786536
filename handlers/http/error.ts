/** What a room refuses, over HTTP. */
import { ERROR_TEXTS } from "../protocol/encode.ts";
import { HttpError } from "../protocol/http_error.ts";
import type { Rejection } from "../registry/room.ts";

/** The HTTP answer to what a room refuses. */
export function refusalError({ refused, retry = 1_000, text }: Rejection): HttpError {
  if (refused === "conflict") {
    return new HttpError(422, "conflict", "This Idempotency-Key came with another body before.");
  }
  const message = text ?? ERROR_TEXTS[refused];
  if (refused === "forbidden" || refused === "refused") return new HttpError(403, refused, message);
  const status = refused === "rate_limited" ? 429 : 503;
  const headers = { "retry-after": String(Math.ceil(retry / 1_000)) };
  return new HttpError(status, refused, message, headers);
}
