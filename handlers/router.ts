/** Every route on one page. */
import { isUpgrade } from "./access/handshake.ts";
import { withSlot } from "./access/slot.ts";
import type { App } from "./app.ts";
import { chat } from "./chat.ts";
import { echo } from "./echo.ts";
import { dispatcher, type Fetch, type Route } from "./http/dispatch.ts";
import { events } from "./http/events.ts";
import { health, readiness } from "./http/health.ts";
import { metrics } from "./http/metrics.ts";
import { pages } from "./http/pages.ts";
import { publishMessage, publishMessages } from "./http/publish.ts";
import { readState, removeKey, setKey } from "./http/state.ts";
import { disconnectUser } from "./http/users.ts";
import { listMembers, listRooms, readMessages, readRoom } from "./http/rooms.ts";

export type { Fetch };

/** Makes the server's one function. A REST app can call it, a middleware can wrap it. */
export function createRouter(app: App): Fetch {
  const { "/": page, ...files } = pages();
  const echoSocket = withSlot(echo);
  const chatSocket = withSlot(chat);
  const routes: Record<string, Route> = {
    "/": {
      need: ({ headers }) => isUpgrade(headers) ? "grants" : "nothing",
      GET: (call) =>
        !app.pages || isUpgrade(call.request.headers) ? echoSocket(call, app) : page(call, app),
    },
    "/echo": { need: "grants", GET: echoSocket },
    "/chat": { need: "grants", room: "lobby", GET: chatSocket },
    "/chat/{room}": { need: "grants", GET: chatSocket },
    "/rooms": { need: "grants", GET: listRooms },
    "/rooms/messages": { need: "grants", POST: publishMessages },
    "/rooms/{room}": { need: "grants", GET: readRoom },
    "/rooms/{room}/members": { need: "grants", GET: listMembers },
    "/rooms/{room}/messages": { need: "grants", GET: readMessages, POST: publishMessage("chat") },
    "/rooms/{room}/notes": { need: "grants", POST: publishMessage("note") },
    "/rooms/{room}/state": { need: "grants", GET: readState },
    "/rooms/{room}/state/{key}": { need: "grants", PUT: setKey, DELETE: removeKey },
    "/rooms/{room}/events": { need: "grants", GET: withSlot(events) },
    "/users/{user}": { need: "admin", DELETE: disconnectUser },
    "/healthz": { need: "nothing", GET: health },
    "/readyz": { need: "nothing", GET: readiness },
    "/metrics": { need: "admin", GET: metrics },
  };
  for (const [path, GET] of Object.entries(files)) {
    if (app.pages || path.startsWith("/client.")) routes[path] = { need: "nothing", GET };
  }
  return dispatcher(app, routes);
}
