/** Messages and notes over HTTP: one, or many at once. `handlers/README.md`, HTTP. */
import { noSlotError } from "../access/slot.ts";
import type { App, Call, Handler, Visitor } from "../app.ts";
import type { IdempotencyKey } from "../engine/engine.ts";
import { HttpError } from "../protocol/http_error.ts";
import { encodeJson, isObject, isShallow } from "../protocol/json.ts";
import { isPersonName, isRoomName } from "../protocol/parse.ts";
import type { Kind } from "../registry/room.ts";
import { Line, type Sender } from "../registry/sender.ts";
import { byteLength } from "../util/bytes.ts";
import { sha256 } from "../util/digest.ts";
import { readBody, readObject } from "./body.ts";
import { check, granted, refusalError } from "./error.ts";

/** Longer idempotency keys are kept as their hash, which is as long with its prefix. */
const MAX_PLAIN_KEY = 51;
const MAX_ENTRIES = 1_000;
const MAX_BATCH_BYTES = 1_048_576;
/** Times out what a request still has queued, in ms: a batch may ask a slow hook for each entry. */
const SEND_MS = 60_000;

/** Makes the handler of `POST /rooms/{room}/messages`, or of `…/notes`, which have no key and no position. */
export function publishMessage(kind: Kind): Handler {
  return async (call, app) => {
    const { room, from } = senderTo(call, app);
    const body = await readBody(call.request, app, app.limits.maxMessageBytes);
    const fields = readObject(body, "The body must be an object with a message.");
    const { message, sender } = readMessage(fields);
    from.name = from.rights.name ?? sender;
    const id = kind === "chat" ? call.request.headers.get("idempotency-key") : null;
    const key = id === null ? undefined : readKey(id, from.rights.subject, body);
    const size = byteLength(body);
    const position = granted(await room.publish({ kind, message, size, key }, from));
    return Response.json({ room: room.name, ...position }, { status: 202 });
  };
}

/** Answers `POST /rooms/messages`: many messages, in order, each as if it came alone. */
export const publishMessages: Handler = async ({ request, visitor }, app) => {
  if (app.registry.isDraining) throw noSlotError(app, "draining");
  if (!visitor.rights.mayPublish) throw refusalError({ refused: "forbidden" });
  const body = await readBody(request, app, MAX_BATCH_BYTES);
  const expected = "The body must be an object with a list of messages.";
  const { messages } = readObject(body, expected);
  check(Array.isArray(messages), "bad_message", expected);
  if (messages.length > MAX_ENTRIES) {
    throw new HttpError(413, "too_big", `A batch has at most ${MAX_ENTRIES} messages.`);
  }
  const line = new Line();
  const { subject } = visitor.rights;
  const results = await Promise.all(messages.map(async (entry) => {
    const room = entry?.room;
    try {
      const { sender, post } = readEntry(entry, subject, app);
      const from = senderOf(visitor, app, line, sender);
      return { room, ...granted(await app.registry.room(room).publish(post, from)) };
    } catch (error) {
      if (!(error instanceof HttpError)) throw error;
      const { code, message } = error;
      app.registry.counters.refuse(code);
      return { room: typeof room === "string" ? room : "", error: { code, message } };
    }
  }));
  return Response.json({ results });
};

/** One message of a batch. @throws {HttpError} if it cannot be one */
function readEntry(entry: unknown, subject: string, { limits }: App) {
  check(isObject(entry), "bad_message", "An entry must be an object.");
  const { room, key } = entry;
  check(isRoomName(room), "bad_room");
  const { message, sender } = readMessage(entry);
  const size = byteLength(JSON.stringify(message));
  if (size > limits.maxMessageBytes) {
    throw new HttpError(413, "too_big", `A message has at most ${limits.maxMessageBytes} bytes.`);
  }
  const body = encodeJson([sender, message]);
  const known = key === undefined ? undefined : readKey(key, subject, body);
  return { sender, post: { message, size, key: known } };
}

/** A request's room, and who sends to it. @throws {HttpError} without the right, or while draining */
export function senderTo({ room: name, visitor }: Call, app: App, sender?: string) {
  if (app.registry.isDraining) throw noSlotError(app, "draining");
  const room = app.registry.room(name);
  const from = senderOf(visitor, app, new Line(), sender);
  granted(room.checkSender(from));
  return { room, from };
}

/** A name that a token fixes comes before any other. */
function senderOf(
  { address, rights, rateKey }: Visitor,
  app: App,
  line: Line,
  name = "Anonymous",
): Sender & { name: string } {
  const until = app.clock.elapsedMs() + SEND_MS;
  return {
    via: "http",
    get hasEnded() {
      return app.clock.elapsedMs() >= until;
    },
    rights,
    address,
    line,
    name: rights.name ?? name,
    nameIn() {
      return this.name;
    },
    tryConsume: ({ size }) =>
      rateKey === undefined ? 0 : app.sharedLimits.tryPublish(rateKey, size),
  };
}

function readMessage({ message = "", sender = "Anonymous" }: Record<string, unknown>) {
  check(isShallow(message), "bad_message", "The message is too deep, or a number inexact.");
  check(isPersonName(sender), "bad_name");
  return { message, sender };
}

/** An idempotency key counts with its message. A session of a socket cannot bear this name. */
function readKey(id: unknown, subject: string, body: string): IdempotencyKey {
  const isKey = typeof id === "string" && id !== "" && id.length <= 255;
  check(isKey, "bad_key", "Idempotency-Key must have 1 to 255 characters.");
  const short = id.length > MAX_PLAIN_KEY ? `sha256:${sha256(id)}` : id;
  return { session: `http:${subject}`, id: short, digest: sha256(body) };
}
