/**
 * Every route on one page. The whole server is the function that this makes.
 *
 * @module
 */
import { admit, isAllowedOrigin, type Need } from "./access/access.ts";
import { isUpgrade } from "./access/handshake.ts";
import type { App, Handler, RequestInfo } from "./app.ts";
import { chat } from "./chat.ts";
import { echo } from "./echo.ts";
import { HttpError } from "./http/error.ts";
import { events } from "./http/events.ts";
import { health, readiness } from "./http/health.ts";
import { metrics } from "./http/metrics.ts";
import { file } from "./http/pages.ts";
import { listRooms, publishMessage, readMessages } from "./http/rooms.ts";
import { isRoomName } from "./protocol/parse.ts";
import chatHtml from "./web/chat.html" with { type: "text" };
import chatCss from "./web/chat.css" with { type: "text" };
import chatJs from "./web/chat.js" with { type: "text" };
import dashboardHtml from "./web/dashboard.html" with { type: "text" };
import dashboardCss from "./web/dashboard.css" with { type: "text" };
import dashboardJs from "./web/dashboard.js" with { type: "text" };
import uplotJs from "uplot/dist/uPlot.esm.js" with { type: "text" };
import uplotCss from "uplot/dist/uPlot.min.css" with { type: "text" };
import messagesJs from "./web/messages.js" with { type: "text" };
import clientJs from "./client/client.js" with { type: "text" };

/** Answers a request; `info` tells the peer's address. */
export type Fetch = (request: Request, info?: RequestInfo) => Promise<Response>;

/** What answers a path, by method, and what it asks of visitors where tokens are on. */
interface Route {
  need: Need;
  GET?: Handler;
  POST?: Handler;
}

/** The longest URL that is read, in characters. */
const MAX_URL_LENGTH = 8_192;

const NOWHERE: RequestInfo = { remoteAddr: { transport: "tcp", hostname: "unknown", port: 0 } };

/** Makes the server's one function. A REST app can call it, a middleware can wrap it. */
export function createRouter(app: App): Fetch {
  const page = file(chatHtml, "text/html");
  const echoSocket = echo(app);
  const chatSocket = chat(app);
  /** By path; `{room}` stands for a room's name. */
  const routes: Record<string, Route> = {
    "/": {
      need: "nothing",
      GET: (call) => isUpgrade(call.request.headers) ? echoSocket(call) : page(call),
    },
    "/echo": { need: "token", GET: echoSocket },
    "/chat": { need: "token", GET: chatSocket },
    "/chat/{room}": { need: "token", GET: chatSocket },
    "/client.js": { need: "nothing", GET: file(clientJs, "text/javascript") },
    "/dashboard": { need: "nothing", GET: file(dashboardHtml, "text/html") },
    "/dashboard.js": { need: "nothing", GET: file(dashboardJs, "text/javascript") },
    "/dashboard.css": { need: "nothing", GET: file(dashboardCss, "text/css") },
    "/uplot.js": { need: "nothing", GET: file(uplotJs, "text/javascript") },
    "/uplot.css": { need: "nothing", GET: file(uplotCss, "text/css") },
    "/chat.js": { need: "nothing", GET: file(chatJs, "text/javascript") },
    "/messages.js": { need: "nothing", GET: file(messagesJs, "text/javascript") },
    "/chat.css": { need: "nothing", GET: file(chatCss, "text/css") },
    "/rooms": { need: "token", GET: listRooms(app) },
    "/rooms/{room}/messages": { need: "token", GET: readMessages(app), POST: publishMessage(app) },
    "/rooms/{room}/events": { need: "token", GET: events(app) },
    "/healthz": { need: "nothing", GET: health() },
    "/metrics": { need: "admin", GET: metrics(app) },
    "/readyz": { need: "nothing", GET: readiness(app) },
  };

  async function answer(request: Request, info: RequestInfo): Promise<Response> {
    if (request.url.length > MAX_URL_LENGTH) {
      throw new HttpError(414, "uri_too_long", `A URL has at most ${MAX_URL_LENGTH} characters.`);
    }
    const url = URL.parse(request.url);
    if (!url) throw new HttpError(400, "bad_url", "Invalid URL.");
    const { path, room } = matchPath(url.pathname);
    const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
    if (!route) return new Response("Not Found", { status: 404 });
    const allowed = (["GET", "HEAD", "POST"] as const)
      .filter((method) => route[method === "HEAD" ? "GET" : method]);
    if (request.method === "OPTIONS") return preflight(allowed);
    const method = allowed.find((method) => method === request.method);
    if (!method) {
      throw new HttpError(405, "method_not_allowed", `${path} does not take this method.`, {
        allow: allowed.join(", "),
      });
    }
    if (room !== undefined && !isRoomName(room)) {
      throw new HttpError(400, "bad_room", "Invalid room name.");
    }
    const isSocket = isUpgrade(request.headers);
    const need = isSocket && path === "/" ? "token" : route.need;
    const visitor = await admit(app, request, url, info, need, room);
    const response = await route[method === "HEAD" ? "GET" : method]!({
      request,
      url,
      room: room ?? "",
      visitor,
    });
    return method === "HEAD" ? withoutBody(response) : response;
  }

  return async (request, info = NOWHERE) => {
    let response;
    try {
      response = await answer(request, info);
    } catch (error) {
      if (error instanceof HttpError) app.registry.counters.refuse(error.code);
      else {
        const text = error instanceof Error ? error.stack ?? error.message : String(error);
        const { hostname } = info.remoteAddr as Deno.NetAddr;
        app.log.error(`Cannot answer ${request.method} of ${hostname}: ${text}`, {
          event: "error",
          remote: hostname,
          clients: app.registry.clients.size,
        });
      }
      response = error instanceof HttpError ? error.toResponse() : SERVER_ERROR.toResponse();
    }
    if (response.status !== 101) secure(response.headers, request, app);
    return response;
  };
}

const SERVER_ERROR = new HttpError(500, "internal", "Server error.");

/** What a browser asks before it sends another page's request. Fetch standard, CORS protocol. */
function preflight(allowed: string[]): Response {
  return new Response(null, {
    status: 204,
    headers: {
      allow: allowed.join(", "),
      "access-control-allow-methods": allowed.join(", "),
      "access-control-allow-headers": "authorization, content-type, idempotency-key, last-event-id",
      "access-control-max-age": "600",
    },
  });
}

/** Headers of every answer: whose page may read it, who may keep it, and no guessing by the browser. */
function secure(headers: Headers, request: Request, { allowedOrigins }: App): void {
  headers.set("x-content-type-options", "nosniff");
  headers.set("referrer-policy", "no-referrer");
  // Live, or a refusal of this moment.
  if (!headers.has("cache-control")) headers.set("cache-control", "no-store");
  const origin = request.headers.get("origin");
  if (allowedOrigins.length > 0) headers.append("vary", "origin");
  if (origin === null || !isAllowedOrigin(origin, allowedOrigins)) return;
  headers.set("access-control-allow-origin", allowedOrigins.length === 0 ? "*" : origin);
  headers.set("access-control-expose-headers", "retry-after");
}

/** The answer to HEAD: the runtime leaves its body out, but a stream must end at once. */
function withoutBody(response: Response): Response {
  if (response.headers.get("content-type") !== "text/event-stream") return response;
  response.body?.cancel();
  return new Response(null, response);
}

/** The route's pattern, and the room of the path: `/chat` is the lobby, others may have none. */
function matchPath(pathname: string): { path: string; room?: string } {
  if (pathname === "/chat") return { path: pathname, room: "lobby" };
  const parts = /^\/(chat|rooms)\/([^/]*)(\/.*)?$/.exec(pathname);
  if (!parts) return { path: pathname };
  const [, first, room, rest = ""] = parts;
  return { path: `/${first}/{room}${rest}`, room: decode(room) };
}

/** A part of a path without its percent signs; what cannot be decoded names no room. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
