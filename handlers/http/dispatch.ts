/** A request's way to its handler: path, method, access; and an error's way back. */
import { Access, type Need } from "../access/access.ts";
import type { App, Handler, RequestInfo } from "../app.ts";
import { HttpError } from "../protocol/http_error.ts";
import { isRoomName } from "../protocol/parse.ts";
import { errorText } from "../util/log.ts";
import { check } from "./error.ts";
import { preflight, setSecurityHeaders } from "./headers.ts";

/** Answers a request; `info` has the peer's address. */
export type Fetch = (request: Request, info?: RequestInfo) => Promise<Response>;

const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"] as const;

/** What a path answers, by method; GET answers HEAD, too. */
export interface Route extends Partial<Record<"GET" | "POST" | "PUT" | "DELETE", Handler>> {
  /** What its visitors must have where access is restricted. */
  need: Need | ((request: Request) => Need);
  /** The room of a path that names none. */
  room?: string;
}

const MAX_URL_LENGTH = 8_192;
/** A host as in RFC 9112, 3.2, of names in common use: anything else could pass for a path. */
const HOST = /^(?:[\w.-]+|\[[\da-f:.]+\])(?::\d{0,5})?$/i;
/** URL parsers resolve these differently: a proxy's rule might be checked against another path. */
const AMBIGUOUS = /\\|\/(?:\.|%2e){1,2}(?:\/|$)/i;

const NOWHERE: RequestInfo = { remoteAddr: { transport: "tcp", hostname: "unknown", port: 0 } };
const SERVER_ERROR = new HttpError(500, "internal", "Server error.");
const NOT_FOUND = () => new Response("Not Found", { status: 404 });

const MOUNT = ". A router must not take that off the path: in Hono it is " +
  "app.mount(path, parley.fetch, { replaceRequest: false })";

/** Makes the function that answers requests. In a path `{room}` stands for one part, `{key}` and `{user}` for the rest. */
export function dispatcher(app: App, routes: Record<string, Route>): Fetch {
  const { prefix, registry, log } = app;
  const outside = `Parley is below ${prefix}/`;
  let hasWarned = false;
  const access = new Access(app, registry.bans);
  const patterns = Object.entries(routes).map(([path, route]) => {
    const source = path.replaceAll(".", "\\.").replace("{room}", "(?<room>[^/]*)")
      .replace(/\{(?:key|user)\}/, "(?<key>.*)");
    return { path, route, pattern: new RegExp(`^${source}$`) };
  });

  async function answer(request: Request, info: RequestInfo): Promise<Response> {
    const url = readUrl(request);
    if (prefix !== "" && url.pathname === prefix) {
      return new Response(null, { status: 308, headers: { location: `${prefix}/${url.search}` } });
    }
    if (AMBIGUOUS.test(rawPath(request.url))) return NOT_FOUND();
    const isBelow = url.pathname.startsWith(`${prefix}/`);
    const pathname = isBelow ? url.pathname.slice(prefix.length) : url.pathname;
    // A room may be called like a route: each takes the methods that the other does not.
    const found = patterns.filter(({ pattern }) => pattern.test(pathname));
    if (found.length === 0) return NOT_FOUND();
    if (!isBelow) {
      // A router may have taken the prefix off.
      if (!hasWarned) log.warn(`Cannot find ${pathname}: ${outside}${MOUNT}`, { event: "outside" });
      hasWarned = true;
      return new Response(`Not Found: ${outside}`, { status: 404 });
    }
    const handlerOf = (route: Route, method: typeof METHODS[number]) =>
      route[method === "HEAD" ? "GET" : method];
    const allowed = METHODS.filter((method) => found.some(({ route }) => handlerOf(route, method)));
    if (request.method === "OPTIONS") return preflight(request, allowed);
    const method = allowed.find((method) => method === request.method);
    if (!method) {
      const text = `${found[0].path} does not take this method.`;
      throw new HttpError(405, "method_not_allowed", text, { allow: allowed.join(", ") });
    }
    const { route, pattern } = found.find(({ route }) => handlerOf(route, method))!;
    const { room: part, key } = pattern.exec(pathname)?.groups ?? {};
    const room = part === undefined ? route.room : decode(part);
    check(room === undefined || isRoomName(room), "bad_room");
    const need = typeof route.need === "function" ? route.need(request) : route.need;
    const visitor = await access.authorize({ request, info, need, room });
    if (visitor instanceof Response) return new Response(visitor.body, visitor);
    const call = { request, url, room: room ?? "", key: key && decode(key), visitor };
    const response = await handlerOf(route, method)!(call, app);
    return method === "HEAD" ? withoutBody(response) : response;
  }

  /** Logs a defect, of which the client learns nothing. */
  function fail(error: unknown, { method }: Request, info: RequestInfo): HttpError {
    const isKnown = error instanceof HttpError;
    if (isKnown) registry.counters.refuse(error.code);
    if (isKnown && error.status !== 500) return error;
    const text = isKnown ? error.message : errorText(error);
    const { hostname } = info.remoteAddr as Deno.NetAddr;
    const fields = { event: "error", remote: hostname, clients: registry.clients.size };
    log.error(`Cannot answer ${method} of ${hostname}: ${text}`, fields);
    return isKnown ? error : SERVER_ERROR;
  }

  return async (request, given) => {
    // A framework's test may pass an object without the peer.
    const info = given?.remoteAddr ? given : NOWHERE;
    let response: Response;
    let reader = access.readerOf(request, info);
    try {
      response = await answer(request, info);
    } catch (error) {
      response = fail(error, request, info).toResponse();
    }
    if (response.status === 101) return response;
    // A page that may not connect may still read why: its failed socket told it nothing.
    const isForAll = response.status >= 400 || request.method === "OPTIONS";
    if (isForAll) reader ??= request.headers.get("origin") ?? undefined;
    setSecurityHeaders(response.headers, reader);
    return response;
  };
}

/** @throws {HttpError} if it is too long, or not a URL, or its Host header is more than a host */
function readUrl({ url, headers }: Request): URL {
  if (url.length > MAX_URL_LENGTH) {
    throw new HttpError(414, "uri_too_long", `A URL has at most ${MAX_URL_LENGTH} characters.`);
  }
  const host = headers.get("host");
  if (host && !(HOST.test(host) && URL.canParse(`http://${host}`))) {
    throw new HttpError(400, "bad_host", "Invalid Host header.");
  }
  const parsed = URL.parse(url);
  if (!parsed) throw new HttpError(400, "bad_url", "Invalid URL.");
  return parsed;
}

/** The path as the client sent it: `URL` has resolved its dots. */
function rawPath(url: string): string {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  return start < 0 ? "/" : url.slice(start).split(/[?#]/, 1)[0];
}

/** The answer to HEAD: the runtime leaves its body out, but a stream must end at once. */
function withoutBody(response: Response): Response {
  if (response.headers.get("content-type") !== "text/event-stream") return response;
  response.body?.cancel();
  return new Response(null, response);
}

/** A part of a path, decoded; what cannot be decoded names no room. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}
