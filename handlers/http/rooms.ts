/**
 * Rooms over HTTP: the list, publishing, history. `PROTOCOL.md`, Endpoints.
 *
 * @module
 */
import type { App, Call, Handler } from "../app.ts";
import { type IdempotencyKey, isRefusal, type Refusal } from "../engine/engine.ts";
import { ERROR_TEXTS, v1 } from "../protocol/encode.ts";
import { HttpError } from "../protocol/http_error.ts";
import { pageOf } from "../protocol/page.ts";
import { isPersonName, isShallow } from "../protocol/parse.ts";
import { parseCursor } from "../protocol/position.ts";
import type { MemberList, RoomSummary } from "../protocol/room_event.ts";
import type { Registry } from "../registry/registry.ts";
import type { Rejection } from "../registry/room.ts";
import { Line, type Sender } from "../registry/sender.ts";
import { byteLength } from "../util/bytes.ts";
import { sha256 } from "../util/digest.ts";

const ROOMS_PER_PAGE = 1_000;
const ROOMS_AT_ONCE = 10_000;
const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1_000;
/** Longer idempotency keys are kept as their hash, which is as long with its prefix. */
const MAX_PLAIN_KEY = 51;
/** Times out bodies that are slower, in ms. */
const BODY_MS = 30_000;

/** Makes the handler of `GET /rooms`: by name, 1,000 a page, those behind `?after=name`. */
export function listRooms({ registry }: App): Handler {
  return async ({ url, visitor }) => {
    const rooms: RoomSummary[] = [];
    let after = url.searchParams.get("after") ?? "";
    let isLast = false;
    // A visitor who may hear few of many rooms makes it read on: in larger steps, which are cheaper.
    for (
      let limit = ROOMS_PER_PAGE;
      rooms.length < ROOMS_PER_PAGE && !isLast;
      limit = ROOMS_AT_ONCE
    ) {
      const found = await registry.listRooms(after, limit);
      rooms.push(...found.filter(({ room }) => visitor.rights.maySubscribe(room)));
      after = found.at(-1)?.room ?? "";
      isLast = found.length < limit;
    }
    return Response.json({ rooms: rooms.slice(0, ROOMS_PER_PAGE) });
  };
}

/** Makes the handler of `GET /rooms/{room}`: what the list says of one room. */
export function readRoom({ registry }: App): Handler {
  return async ({ room }) => {
    const summary = await registry.room(room).summary();
    if (isRefusal(summary)) throw refusalError(summary);
    return Response.json(summary);
  };
}

/** Makes the handler of `GET /rooms/{room}/members`: who has joined, by name. */
export function listMembers({ registry }: App): Handler {
  return async ({ room }) => {
    const members = await membersOf(registry, room);
    if (isRefusal(members)) throw refusalError(members);
    return Response.json(members);
  };
}

/** Who has joined, as it is shown. Each member is one socket. */
export async function membersOf(registry: Registry, room: string): Promise<MemberList | Rejection> {
  const members = await registry.room(room).members();
  if ("refused" in members) return members;
  const all = members.names.map((name) => ({ name, sockets: 1 }));
  return { room, members: all, count: members.count };
}

/** Makes the handler of `GET /rooms/{room}/messages`. */
export function readMessages({ registry }: App): Handler {
  return async ({ url, room }) => {
    const after = url.searchParams.get("after") ?? undefined;
    const limit = readLimit(url.searchParams.get("limit"));
    const page = await historyOf(registry, room, { after, limit });
    if (isRefusal(page)) throw refusalError(page);
    return new Response(page, { headers: { "content-type": "application/json" } });
  };
}

/** A page of history as JSON text, in the shape of {@link HistoryPage}. */
export async function historyOf(
  registry: Registry,
  room: string,
  { after, limit = DEFAULT_LIMIT }: { after?: string; limit?: number },
): Promise<string | Refusal> {
  const cursor = parseCursor(after);
  const span = await registry.room(room).read(cursor);
  if (isRefusal(span)) return span;
  // No more than a socket may have unsent: a client that does not read holds the whole answer.
  const { epoch, seq, chats, ...page } = pageOf(
    span,
    cursor,
    Math.min(limit, MAX_LIMIT),
    registry.limits.maxQueueBytes / 2,
  );
  const recovered = page.recovered && (after === undefined) === (cursor === undefined);
  const head = JSON.stringify({ room, epoch, seq, recovered });
  const messages = chats.map((chat) => v1.chat(room, epoch, chat));
  return `${head.slice(0, -1)},"messages":[${messages.join(",")}]}`;
}

/** Makes the handler of `POST /rooms/{room}/messages`. */
export function publishMessage(app: App): Handler {
  return async (call) => {
    const { room, from, post, body } = await readPost(call, app);
    const id = call.request.headers.get("idempotency-key");
    const key = id === null ? undefined : await readKey(id, from.rights.subject, body);
    const position = await room.publish({ ...post, key }, from);
    if (isRefusal(position)) throw refusalError(position);
    return Response.json({ room: room.name, ...position }, { status: 202 });
  };
}

/** Makes the handler of `POST /rooms/{room}/notes`. */
export function publishNote(app: App): Handler {
  return async (call) => {
    const { room, from, post } = await readPost(call, app);
    const refusal = await room.note(post, from);
    if (refusal) throw refusalError(refusal);
    return Response.json({ room: room.name }, { status: 202 });
  };
}

/**
 * What is posted, and who posts it.
 *
 * @throws {HttpError} 403 without the right, 503 `draining` once the server drains, as `/readyz` says it
 */
async function readPost(call: Call, app: App) {
  const { registry, limits } = app;
  const { visitor: { address, rights, rateKey } } = call;
  if (registry.isDraining) {
    const headers = { "retry-after": String(Math.max(1, limits.drainSeconds)) };
    throw new HttpError(503, "draining", "The server is draining.", headers);
  }
  const room = registry.room(call.room);
  const from: Sender & { name: string } = {
    via: "http",
    rights,
    address,
    line: new Line(),
    name: rights.name ?? "Anonymous",
    nameIn: () => from.name,
    tryConsume: (size) => rateKey === undefined ? 0 : app.sharedLimits.tryPublish(rateKey, size),
  };
  const refusal = room.checkSender(from);
  if (refusal) throw refusalError(refusal);
  const body = await readBody(call, app);
  registry.counters.bytesIn += body.length;
  const { message, sender } = readMessage(body);
  from.name = rights.name ?? sender;
  return { room, from, body, post: { message, size: byteLength(body) } };
}

function readLimit(text: string | null): number {
  if (text === null) return DEFAULT_LIMIT;
  const limit = Number(text);
  if (Number.isInteger(limit) && limit > 0) return Math.min(limit, MAX_LIMIT);
  throw new HttpError(400, "bad_limit", "limit must be a whole number above 0.");
}

/** The body's text; never more than MAX_MESSAGE_BYTES of it is taken, nor longer waited for. */
async function readBody({ request }: Call, { clock, limits }: App): Promise<string> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/(?:[\w.-]+\+)?json(?:\s*;|$)/i.test(type)) {
    throw new HttpError(415, "bad_type", "The body must be application/json.");
  }
  const maxBytes = limits.maxMessageBytes;
  const tooBig = new HttpError(413, "too_big", `The body must be at most ${maxBytes} bytes.`);
  if (Number(request.headers.get("content-length")) > maxBytes) throw tooBig;
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  const reader = request.body?.getReader();
  let isLate = false;
  const end = () => reader?.cancel().catch(() => {});
  const stopWaiting = clock.after(BODY_MS, () => {
    isLate = true;
    end();
  });
  try {
    for (let part = await reader?.read(); part?.value; part = await reader?.read()) {
      size += part.value.length;
      if (size > maxBytes) throw tooBig;
      chunks.push(part.value);
    }
  } catch (error) {
    // All else is a client that went away in the middle.
    throw error === tooBig ? error : new HttpError(400, "bad_body", "The body broke off.");
  } finally {
    stopWaiting();
    end();
  }
  if (isLate) throw new HttpError(408, "timeout", "The body did not come in time.");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await new Blob(chunks).arrayBuffer());
  } catch {
    throw new HttpError(400, "bad_json", "Invalid JSON format.");
  }
}

function readMessage(body: string): { message: unknown; sender: string } {
  let data: unknown;
  try {
    data = JSON.parse(body);
  } catch {
    throw new HttpError(400, "bad_json", "Invalid JSON format.");
  }
  if (typeof data !== "object" || data === null || Array.isArray(data)) {
    throw new HttpError(400, "bad_message", "The body must be an object with a message.");
  }
  const { message = "", sender = "Anonymous" } = data as Record<string, unknown>;
  if (!isShallow(message)) {
    throw new HttpError(
      400,
      "bad_message",
      "The message nests too deep, or a number is too large.",
    );
  }
  if (!isPersonName(sender)) throw new HttpError(400, "bad_name", "Invalid name.");
  return { message, sender };
}

/** An `Idempotency-Key` counts with its body. A session of a socket cannot bear this name. */
async function readKey(id: string, subject: string, body: string): Promise<IdempotencyKey> {
  if (id === "" || id.length > 255) {
    throw new HttpError(400, "bad_key", "Idempotency-Key must have 1 to 255 characters.");
  }
  const isLong = id.length > MAX_PLAIN_KEY;
  return {
    session: `http:${subject}`,
    id: isLong ? `sha256:${await sha256(id)}` : id,
    digest: await sha256(body),
  };
}

/** The HTTP answer to what a room refuses. */
export function refusalError({ refused, retry = 1_000, text }: Rejection): HttpError {
  if (refused === "conflict") {
    return new HttpError(422, "conflict", "This Idempotency-Key came with another body before.");
  }
  const message = text ?? ERROR_TEXTS[refused];
  if (refused === "forbidden" || refused === "refused") return new HttpError(403, refused, message);
  const status = refused === "rate_limited" ? 429 : 503;
  const headers = { "retry-after": String(Math.ceil(retry / 1_000)) };
  return new HttpError(status, refused, message, headers);
}
