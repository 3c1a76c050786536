/** The body of a request: JSON, bounded in size and time. */
import type { App } from "../app.ts";
import { HttpError } from "../protocol/http_error.ts";
import { isObject, parseJson } from "../protocol/json.ts";
import { check } from "./error.ts";

/** Times out bodies that are slower, in ms. */
const BODY_MS = 30_000;

/**
 * Reads a body's text, at most `maxBytes` of it, and counts it. @throws {HttpError} 415 for another
 * type than JSON, 413 for a longer one, 408 for a slow one, 400 for one that breaks off or is no UTF-8
 */
export async function readBody(
  request: Request,
  { registry, clock }: App,
  maxBytes: number,
): Promise<string> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/(?:[\w.-]+\+)?json(?:\s*;|$)/i.test(type)) {
    throw new HttpError(415, "bad_type", "The body must be application/json.");
  }
  const tooBig = new HttpError(413, "too_big", `The body must be at most ${maxBytes} bytes.`);
  if (Number(request.headers.get("content-length")) > maxBytes) throw tooBig;
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  const reader = request.body?.getReader();
  let isLate = false;
  const end = () => reader?.cancel().catch(() => {});
  const stopWaiting = clock.after(BODY_MS, () => {
    isLate = true;
    end();
  });
  try {
    for (let part = await reader?.read(); part?.value; part = await reader?.read()) {
      size += part.value.length;
      if (size > maxBytes) throw tooBig;
      chunks.push(part.value);
    }
  } catch (error) {
    // Anything else is a client that went away in the middle.
    throw error === tooBig ? error : new HttpError(400, "bad_body", "The body broke off.");
  } finally {
    stopWaiting();
    end();
  }
  if (isLate) throw new HttpError(408, "timeout", "The body did not come in time.");
  try {
    const bytes = await new Blob(chunks).arrayBuffer();
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    registry.counters.bytesIn += text.length;
    return text;
  } catch {
    throw badJson();
  }
}

/** Reads a text as a JSON object. @throws {HttpError} 400 `bad_json`, or `bad_message` with `expected` */
export function readObject(text: string, expected: string): Record<string, unknown> {
  const data = readJson(text);
  check(isObject(data), "bad_message", expected);
  return data;
}

/** Reads a text as JSON. @throws {HttpError} 400 `bad_json` */
export function readJson(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    throw badJson();
  }
}

function badJson(): HttpError {
  return new HttpError(400, "bad_json", "Invalid JSON format.");
}
