/** What a browser loads: the files of `web/`, `client/` and uPlot, which are part of the program. */
import { eTag, ifNoneMatch } from "@std/http/etag";
import type { Handler } from "../app.ts";
import { HttpError } from "../protocol/http_error.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";

/** Path → text, loaded at first use: a program whose Deno cannot load it has all the rest. */
const FILES = {
  "/": () => import("../web/chat.html", { with: { type: "text" } }),
  "/chat.js": () => import("../web/chat.js", { with: { type: "text" } }),
  "/chat.css": () => import("../web/chat.css", { with: { type: "text" } }),
  "/message.js": () => import("../web/message.js", { with: { type: "text" } }),
  "/messages.js": () => import("../web/messages.js", { with: { type: "text" } }),
  "/page.js": () => import("../web/page.js", { with: { type: "text" } }),
  "/people.js": () => import("../web/people.js", { with: { type: "text" } }),
  "/page.css": () => import("../web/page.css", { with: { type: "text" } }),
  "/client.js": () => import("../client/client.js", { with: { type: "text" } }),
  "/client.d.ts": () => import("../client/client.d.ts", { with: { type: "text" } }),
  "/dashboard": () => import("../web/dashboard.html", { with: { type: "text" } }),
  "/dashboard.js": () => import("../web/dashboard.js", { with: { type: "text" } }),
  "/charts.js": () => import("../web/charts.js", { with: { type: "text" } }),
  "/dashboard.css": () => import("../web/dashboard.css", { with: { type: "text" } }),
  "/uplot.js": () => import("uplot/dist/uPlot.esm.js", { with: { type: "text" } }),
  "/uplot.css": () => import("uplot/dist/uPlot.min.css", { with: { type: "text" } }),
};

/** Ending → type; a path without one is a page. */
const TYPES: Record<string, string> = {
  js: "text/javascript",
  css: "text/css",
  ts: "application/typescript",
};

const NO_FILES = "Cannot load the pages and the client: this version of Deno needs " +
  '"unstable": ["raw-imports"] in the deno.json of the program.';

/** A page runs scripts and styles, and opens connections, of its own server only. */
const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
  "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** A longer If-None-Match is ignored: the time to read it grows with the square of its length. */
const MAX_TAGS_LENGTH = 1_000;

/** Makes the handlers of all files, by path. */
export function pages(): Record<keyof typeof FILES, Handler> {
  const handlers = Object.entries(FILES).map(([path, load]) => {
    const read = async () => {
      try {
        return String((await load()).default);
      } catch {
        throw new HttpError(500, "no_files", NO_FILES);
      }
    };
    return [path, file(read, TYPES[/\w+$/.exec(path)?.[0] ?? ""] ?? "text/html")];
  });
  return Object.fromEntries(handlers);
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
