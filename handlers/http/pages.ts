/**
 * What a browser loads: files of `web/`, part of the program.
 *
 * @module
 */
import { eTag, ifNoneMatch } from "@std/http/etag";
import type { Handler } from "../app.ts";

/** No script, style or connection but the server's own. */
const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
  "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** A longer If-None-Match is not read: the library's time grows with the square of its length. */
const MAX_TAGS_LENGTH = 1_000;

/** Makes the handler of a file; a browser that has this very file gets 304. */
export function file(text: string, type: string): Handler {
  let tag: ReturnType<typeof eTag> | undefined;
  return async ({ request }) => {
    const etag = await (tag ??= eTag(text));
    const headers = new Headers({
      "content-type": `${type}; charset=utf-8`,
      "cache-control": "no-cache",
      ...(etag && { etag }),
    });
    if (type === "text/html") headers.set("content-security-policy", PAGE_POLICY);
    const tags = request.headers.get("if-none-match") ?? "";
    const isKnown = tags.length <= MAX_TAGS_LENGTH && !ifNoneMatch(tags || null, etag);
    return new Response(isKnown ? null : text, { status: isKnown ? 304 : 200, headers });
  };
}
