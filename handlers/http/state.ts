/** A room's state over HTTP: read, set a key, remove one. `handlers/README.md`, HTTP. */
import type { App, Call, Handler } from "../app.ts";
import type { Refusal } from "../engine/engine.ts";
import { isShallow } from "../protocol/json.ts";
import { isPersonName } from "../protocol/parse.ts";
import { parseStateCursor } from "../protocol/position.ts";
import { areConditions, encodeEntry, isStateKey } from "../protocol/state.ts";
import type { Registry } from "../registry/registry.ts";
import { byteLength } from "../util/bytes.ts";
import { readBody, readJson } from "./body.ts";
import { check, granted } from "./error.ts";
import { senderTo } from "./publish.ts";

/** Answers `GET /rooms/{room}/state`: the whole state, or what changed behind `?since=`. */
export const readState: Handler = async ({ url, room }, { registry }) => {
  const since = url.searchParams.get("since") ?? undefined;
  const text = granted(await stateOf(registry, room, since));
  return new Response(text, { headers: { "content-type": "application/json" } });
};

/** A room's state as JSON text: a `state` object without its type. */
export async function stateOf(
  registry: Registry,
  room: string,
  since?: string,
): Promise<string | Refusal> {
  const span = await registry.engineOf(room).state(room, parseStateCursor(since));
  if ("refused" in span) return span;
  const { entries, epoch, rev } = span;
  const start = JSON.stringify({ room, epoch, rev, since: span.since }).slice(0, -1);
  return `${start},"entries":[${entries.map(encodeEntry).join(",")}]}`;
}

/** Answers `PUT /rooms/{room}/state/{key}`: sets the key to the body. */
export const setKey: Handler = (call, app) =>
  change(call, app, async () => {
    const body = await readBody(call.request, app, app.limits.maxMessageBytes);
    const value = readJson(body);
    const isGood = value !== null && isShallow(value);
    check(isGood, "bad_message", "The body must be JSON, exact, not null, not too deep.");
    return { value, size: byteLength(body) };
  });

/** Answers `DELETE /rooms/{room}/state/{key}`. */
export const removeKey: Handler = (call, app) =>
  change(call, app, () => Promise.resolve({ value: null, size: 0 }));

async function change(
  call: Call,
  app: App,
  read: () => Promise<{ value: unknown; size: number }>,
): Promise<Response> {
  const { request, url: { searchParams }, key = "" } = call;
  const sender = searchParams.get("sender") ?? undefined;
  const { room, from } = senderTo(call, app, sender);
  check(isStateKey(key), "bad_state_key");
  check(sender === undefined || isPersonName(sender), "bad_name");
  const ttl = searchParams.get("ttl");
  const conditions = {
    if: readRev(request.headers.get("if-match")),
    ttl: ttl === null ? undefined : Number(ttl || NaN),
  };
  check(areConditions(conditions), "bad_message", `If-Match must be "rev", ttl whole seconds.`);
  const { if: rev, ttl: ttlSeconds } = conditions;
  const post = { key, if: rev, ttlSeconds, ...await read() };
  return Response.json({ room: room.name, ...granted(await room.set(post, from)) });
}

/** The rev of `If-Match: "rev"`; NaN for what is none. */
function readRev(text: string | null): number | undefined {
  return text === null ? undefined : Number(/^"(\d{1,15})"$/.exec(text)?.[1] ?? NaN);
}
