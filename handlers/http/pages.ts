/**
 * What a browser loads: the files of `web/`, `client/` and uPlot, which are part of the program.
 */
import { eTag, ifNoneMatch } from "@std/http/etag";
import type { Handler } from "../app.ts";
import { HttpError } from "../protocol/http_error.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import type { FILES } from "./files.ts";

type Path = keyof typeof FILES;

/** Path → type of each file. */
const TYPES: Record<Path, string> = {
  "/": "text/html",
  "/chat.js": "text/javascript",
  "/chat.css": "text/css",
  "/message.js": "text/javascript",
  "/messages.js": "text/javascript",
  "/people.js": "text/javascript",
  "/page.css": "text/css",
  "/client.js": "text/javascript",
  "/client.d.ts": "application/typescript",
  "/dashboard": "text/html",
  "/dashboard.js": "text/javascript",
  "/charts.js": "text/javascript",
  "/dashboard.css": "text/css",
  "/uplot.js": "text/javascript",
  "/uplot.css": "text/css",
};

const NO_FILES = "Cannot load the pages and the client: this version of Deno needs " +
  '"unstable": ["raw-imports"] in the deno.json of the program.';

/** A page runs no script and style and opens no connection but the server's own. */
const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
  "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** A longer If-None-Match is ignored: the time to read it grows with the square of its length. */
const MAX_TAGS_LENGTH = 1_000;

/** Makes the handlers of all files, by path. */
export function pages(): Record<Path, Handler> {
  const handlers = Object.entries(TYPES)
    .map(([path, type]) => [path, file(() => readText(path as Path), type)]);
  return Object.fromEntries(handlers);
}

/** The text of a path, loaded at first use: a program whose Deno cannot load it has all the rest. */
async function readText(path: Path): Promise<string> {
  try {
    return (await import("./files.ts")).FILES[path];
  } catch {
    throw new HttpError(500, "no_files", NO_FILES);
  }
}

/** Makes the handler of one file; a browser that has this very text gets 304. */
export function file(read: () => MaybePromise<string>, type: string): Handler {
  let tag: ReturnType<typeof eTag> | undefined;
  return async ({ request }) => {
    const text = await read();
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
