/**
 * Every route on one page. The whole server is the function that this makes.
 *
 * @module
 */
import type { App, Call, Handler, RequestInfo } from "./app.ts";
import { chat } from "./chat.ts";
import { admit, isUpgrade } from "./door.ts";
import { echo } from "./echo.ts";
import { events } from "./events.ts";
import { HttpError } from "./http_error.ts";
import { file } from "./pages.ts";
import { isRoomName } from "./registry/messages.ts";
import { listRooms, publishMessage, readMessages } from "./rooms.ts";
import { health, readiness } from "./status.ts";
import chatHtml from "./web/chat.html" with { type: "text" };
import chatCss from "./web/chat.css" with { type: "text" };
import chatJs from "./web/chat.js" with { type: "text" };
import clientJs from "./web/client.js" with { type: "text" };

/** Answers a request; `info` tells the peer's address. */
export type Fetch = (request: Request, info?: RequestInfo) => Promise<Response>;

/** A path and what answers it, by method. `{room}` stands for a room's name. */
type Routes = Record<string, Partial<Record<"GET" | "POST", Handler>>>;

const NOWHERE: RequestInfo = { remoteAddr: { transport: "tcp", hostname: "unknown", port: 0 } };

/** Makes the server's one function. A REST app can call it, a middleware can wrap it. */
export function createRouter(app: App): Fetch {
  const page = file(chatHtml, "text/html");
  const echoSocket = echo(app);
  const chatSocket = chat(app);
  const routes: Routes = {
    "/": { GET: (call) => isUpgrade(call.request.headers) ? echoSocket(call) : page(call) },
    "/echo": { GET: echoSocket },
    "/chat": { GET: chatSocket },
    "/chat/{room}": { GET: chatSocket },
    "/client.js": { GET: file(clientJs, "text/javascript") },
    "/chat.js": { GET: file(chatJs, "text/javascript") },
    "/chat.css": { GET: file(chatCss, "text/css") },
    "/rooms": { GET: listRooms(app) },
    "/rooms/{room}/messages": { GET: readMessages(app), POST: publishMessage(app) },
    "/rooms/{room}/events": { GET: events(app) },
    "/healthz": { GET: health() },
    "/readyz": { GET: readiness(app) },
  };

  async function answer(request: Request, info: RequestInfo): Promise<Response> {
    const url = new URL(request.url);
    const { path, room } = matchPath(url.pathname);
    const methods = Object.hasOwn(routes, path) ? routes[path] : undefined;
    if (!methods) return new Response("Not Found", { status: 404 });
    const handler = methods[request.method === "HEAD" ? "GET" : request.method as "GET" | "POST"];
    if (!handler) {
      const allow = Object.keys(methods).flatMap((name) => name === "GET" ? ["GET", "HEAD"] : name);
      throw new HttpError(405, "method_not_allowed", `${path} does not take this method.`, {
        allow: allow.join(", "),
      });
    }
    if (!isRoomName(room)) throw new HttpError(400, "bad_room", "Invalid room name.");
    const call: Call = { request, url, room, visitor: admit(app, request, info) };
    return await handler(call);
  }

  return async (request, info = NOWHERE) => {
    try {
      return await answer(request, info);
    } catch (error) {
      if (error instanceof HttpError) return error.toResponse();
      const text = error instanceof Error ? error.stack ?? error.message : String(error);
      app.log.error(`Cannot answer ${request.method}: ${text}`, { event: "error" });
      return new HttpError(500, "internal", "Server error.").toResponse();
    }
  };
}

/** The route's pattern, and the room that the path names: `lobby` where it names none. */
function matchPath(pathname: string): { path: string; room: string } {
  const parts = /^\/(chat|rooms)\/([^/]*)(\/.*)?$/.exec(pathname);
  if (!parts) return { path: pathname, room: "lobby" };
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
