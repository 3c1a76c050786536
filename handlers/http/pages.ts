/**
 * What a browser loads: the files of `web/`, `client/` and uPlot, which are part of the program.
 */
import { eTag, ifNoneMatch } from "@std/http/etag";
import uplotJs from "uplot/dist/uPlot.esm.js" with { type: "text" };
import uplotCss from "uplot/dist/uPlot.min.css" with { type: "text" };
import type { Handler } from "../app.ts";
import clientTypes from "../client/client.d.ts" with { type: "text" };
import clientJs from "../client/client.js" with { type: "text" };
import chartsJs from "../web/charts.js" with { type: "text" };
import chatCss from "../web/chat.css" with { type: "text" };
import chatHtml from "../web/chat.html" with { type: "text" };
import chatJs from "../web/chat.js" with { type: "text" };
import dashboardCss from "../web/dashboard.css" with { type: "text" };
import dashboardHtml from "../web/dashboard.html" with { type: "text" };
import dashboardJs from "../web/dashboard.js" with { type: "text" };
import messageJs from "../web/message.js" with { type: "text" };
import messagesJs from "../web/messages.js" with { type: "text" };
import pageCss from "../web/page.css" with { type: "text" };
import peopleJs from "../web/people.js" with { type: "text" };

/** Path → text and type of each file. */
const FILES: Record<string, [text: string, type: string]> = {
  "/": [chatHtml, "text/html"],
  "/chat.js": [chatJs, "text/javascript"],
  "/chat.css": [chatCss, "text/css"],
  "/message.js": [messageJs, "text/javascript"],
  "/messages.js": [messagesJs, "text/javascript"],
  "/people.js": [peopleJs, "text/javascript"],
  "/page.css": [pageCss, "text/css"],
  "/client.js": [clientJs, "text/javascript"],
  "/client.d.ts": [clientTypes, "application/typescript"],
  "/dashboard": [dashboardHtml, "text/html"],
  "/dashboard.js": [dashboardJs, "text/javascript"],
  "/charts.js": [chartsJs, "text/javascript"],
  "/dashboard.css": [dashboardCss, "text/css"],
  "/uplot.js": [uplotJs, "text/javascript"],
  "/uplot.css": [uplotCss, "text/css"],
};

/** A page runs no script and style and opens no connection but the server's own. */
const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
  "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** A longer If-None-Match is ignored: the time to read it grows with the square of its length. */
const MAX_TAGS_LENGTH = 1_000;

/** Makes the handlers of all files, by path. */
export function pages(): Record<string, Handler> {
  return Object.fromEntries(
    Object.entries(FILES).map(([path, [text, type]]) => [path, file(text, type)]),
  );
}

/** Makes the handler of one file; a browser that has this very text gets 304. */
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
