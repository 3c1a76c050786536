/**
 * A request's way to its handler: path, method, access; and an error's way back.
 *
 * @module
 */
import { authorize, type Need } from "../access/access.ts";
import type { App, Handler, RequestInfo } from "../app.ts";
import { HttpError } from "../protocol/http_error.ts";
import { isRoomName } from "../protocol/parse.ts";
import { preflight, setSecurityHeaders } from "./headers.ts";

/** Answers a request; `info` has the peer's address. */
export type Fetch = (request: Request, info?: RequestInfo) => Promise<Response>;

const METHODS = ["GET", "HEAD", "POST"] as const;

/** What a path answers, by method. */
export interface Route {
  /** What its visitors must have where access is restricted. */
  need: Need | ((request: Request) => Need);
  /** The room of a path that names none. */
  room?: string;
  /** Answers HEAD, too. */
  GET?: Handler;
  POST?: Handler;
}

/** The longest URL that is read, in characters. */
const MAX_URL_LENGTH = 8_192;

const NOWHERE: RequestInfo = { remoteAddr: { transport: "tcp", hostname: "unknown", port: 0 } };

const SERVER_ERROR = new HttpError(500, "internal", "Server error.");

/**
 * Makes the function that answers requests.
 *
 * @param routes by path; `{room}` stands for one part of it, a room's name
 */
export function dispatcher(app: App, routes: Record<string, Route>): Fetch {
  const patterns = Object.entries(routes).map(([path, route]) => ({
    path,
    route,
    pattern: new RegExp(`^${path.replaceAll(".", "\\.").replace("{room}", "(?<room>[^/]*)")}$`),
  }));

  async function answer(request: Request, info: RequestInfo): Promise<Response> {
    if (request.url.length > MAX_URL_LENGTH) {
      throw new HttpError(414, "uri_too_long", `A URL has at most ${MAX_URL_LENGTH} characters.`);
    }
    const url = URL.parse(request.url);
    if (!url) throw new HttpError(400, "bad_url", "Invalid URL.");
    const found = patterns.find(({ pattern }) => pattern.test(url.pathname));
    if (!found) return new Response("Not Found", { status: 404 });
    const { path, route, pattern } = found;
    const allowed = METHODS.filter((method) => route[method === "HEAD" ? "GET" : method]);
    if (request.method === "OPTIONS") return preflight(allowed);
    const method = allowed.find((method) => method === request.method);
    if (!method) {
      throw new HttpError(405, "method_not_allowed", `${path} does not take this method.`, {
        allow: allowed.join(", "),
      });
    }
    const part = pattern.exec(url.pathname)?.groups?.room;
    const room = part === undefined ? route.room : decode(part);
    if (room !== undefined && !isRoomName(room)) {
      throw new HttpError(400, "bad_room", "Invalid room name.");
    }
    const need = typeof route.need === "function" ? route.need(request) : route.need;
    const visitor = await authorize(app, { request, url, info, need, room });
    const handle = route[method === "HEAD" ? "GET" : method]!;
    const response = await handle({ request, url, room: room ?? "", visitor });
    return method === "HEAD" ? withoutBody(response) : response;
  }

  /** Tells the log of a defect, and the client nothing of it. */
  function fail(error: unknown, { method }: Request, info: RequestInfo): HttpError {
    if (error instanceof HttpError) {
      app.registry.counters.refuse(error.code);
      return error;
    }
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    const { hostname } = info.remoteAddr as Deno.NetAddr;
    app.log.error(`Cannot answer ${method} of ${hostname}: ${text}`, {
      event: "error",
      remote: hostname,
      clients: app.registry.clients.size,
    });
    return SERVER_ERROR;
  }

  return async (request, info = NOWHERE) => {
    let response;
    try {
      response = await answer(request, info);
    } catch (error) {
      response = fail(error, request, info).toResponse();
    }
    if (response.status !== 101) setSecurityHeaders(response.headers, request, app);
    return response;
  };
}

/** The answer to HEAD: the runtime leaves its body out, but a stream must end at once. */
function withoutBody(response: Response): Response {
  if (response.headers.get("content-type") !== "text/event-stream") return response;
  response.body?.cancel();
  return new Response(null, response);
}

/** A part of a path without its percent signs; one that cannot be decoded names no room. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
