/** What clients send, in both dialects: parsed and checked by hand. Pure. `handlers/README.md` is the contract. */
import { type Dialect, type ErrorCode, plain } from "./encode.ts";
import { areConditions, type Conditions, isStateKey, isWantedState } from "./state.ts";
import type { WantedState } from "./state.ts";

/** What a client said. `room` and `id` are checked; `after` is not: a bad one is no error. */
export type ClientMessage =
  | WantedState & { type: "join"; name?: string; room?: string; after?: unknown; session?: string }
  | WantedState & { type: "listen"; room: string; after?: unknown }
  | { type: "leave"; room?: string }
  | At & { type: "chat"; message: unknown }
  | { type: "note"; message: unknown; room?: string }
  | Conditions & At & { type: "set"; key: string; value: unknown; bind?: boolean }
  | { type: "got"; room?: string; rev: number }
  | { type: "members"; room?: string }
  | { type: "ping"; id?: string }
  | { type: "token"; token: string }
  | At & { type: "bad"; code: ErrorCode };

const ROOM = /^[A-Za-z0-9._:-]{1,64}$/;
const NAME = /^[^\p{Cc}\p{Cs}\u2028-\u202e\u2066-\u2069]{1,64}$/u;
const SESSION = /^.{16,64}$/su;
const ID = /^.{1,64}$/su;

/** How deep a message's arrays and objects may nest; a deeper one is a `bad_message`. */
const MAX_DEPTH = 100;

function matches(pattern: RegExp, value: unknown): value is string {
  return typeof value === "string" && pattern.test(value);
}

/** Whether a text names a room. */
export function isRoomName(value: unknown): value is string {
  return matches(ROOM, value);
}

/** Whether a room is the server's own: to be heard, never joined or posted to. */
export function isServerRoom(room: string): boolean {
  return room.startsWith("_");
}

/** The server's own room of what happens in the others; see EVENTS. */
export const EVENTS_ROOM = "_events";
/** The server's own room of users who were sent away. */
export const BANS_ROOM = "_bans";
/** The server's own room of what this process does, for the dashboard. */
export const STATS_ROOM = "_stats";
/** The server's own room of what the threads of all processes do. */
export const NODES_ROOM = "_nodes";
/** The server's own rooms that all of its processes share; the others are of one process. */
export const SHARED_ROOMS: readonly string[] = [EVENTS_ROOM, BANS_ROOM, NODES_ROOM];

/** Whether a room of the server's own is one for all processes. */
export function isSharedRoom(room: string): boolean {
  return SHARED_ROOMS.includes(room);
}

/** Whether a text names a person. */
export function isPersonName(value: unknown): value is string {
  return matches(NAME, value);
}

/** Finds the few texts with a number that may need more digits or a smaller exponent than a double has. */
const MAY_BE_INEXACT = /\b\d[\d.]{15}|\de-\d{3}/i;
/** These numbers, whole, but for the sign; also what looks like one in a string. */
const LONG_NUMBERS = /\b\d[\d.]{15,}(?:e[-+]?\d+)?|\b\d[\d.]*e-\d{3,}/gi;

/**
 * `JSON.parse`, but for a number that a double would change, such as 9007199254740993 or 1e-400: it is
 * NaN, which {@link isShallow} refuses.
 */
export function parseJson(text: string): unknown {
  const isExact = !MAY_BE_INEXACT.test(text) || text.match(LONG_NUMBERS)?.every(isDouble);
  // A reviver is slow: only for a text that will be refused, or has such digits in a string.
  return isExact ? JSON.parse(text) : JSON.parse(text, exactly);
}

function exactly(_key: string, value: unknown, { source = "" }: { source?: string } = {}): unknown {
  return typeof value !== "number" || isDouble(source) ? value : NaN;
}

/** Whether a number's digits are those of its double: the fewest, as JSON has them, or 17, as C prints. */
function isDouble(source: string): boolean {
  const value = Number(source);
  if (String(value) === source) return true;
  const digits = digitsOf(source);
  return digits === digitsOf(String(value)) || digits === digitsOf(value.toPrecision(17));
}

/** The digits of a number from the first to the last that is not 0. */
function digitsOf(number: string): string {
  return /[1-9](?:\d*[1-9])?/.exec(number.replace(/[-.]|e.*/gi, ""))?.[0] ?? "";
}

/** Reads one object of a client: a whole plain frame, or one line of a `parley.v1` frame. */
export function parse(text: string, dialect: Dialect): ClientMessage {
  let data: unknown;
  try {
    data = parseJson(text);
  } catch {
    return bad("bad_json");
  }
  if (!isObject(data)) return bad("bad_message");
  return dialect === plain ? readPlain(data) : readV1(data);
}

/** An unchecked object of a client. Its `__proto__` is a plain key: `JSON.parse` sets no prototype. */
type Fields = Record<string, unknown>;

/** Whether a JSON value is an object. */
export function isObject(data: unknown): data is Fields {
  return typeof data === "object" && data !== null && !Array.isArray(data);
}

/** What names a message, checked: an error repeats it. */
type At = { room?: string; id?: string };

function bad(code: ErrorCode, at: At = {}): ClientMessage {
  return { type: "bad", code, ...at };
}

function readPlain(data: Fields): ClientMessage {
  if (data.type === "chat") return readMessage("chat", data, {});
  if (data.type === "join") return readJoin(data, {});
  return bad("bad_message");
}

function readV1(data: Fields): ClientMessage {
  const { type, room, id, session, after, state, since, every, rev, token } = data;
  const at: At = {};
  if (id !== undefined) {
    if (!matches(ID, id)) return bad("bad_message");
    at.id = id;
  }
  if (room !== undefined) {
    if (!isRoomName(room)) return bad("bad_room", at);
    at.room = room;
  }
  const wanted = { after, state, since, every };
  switch (type) {
    case "chat":
      return readMessage("chat", data, at);
    case "note":
      return readMessage("note", data, { room });
    case "join":
      if (session !== undefined && !matches(SESSION, session) || !isWantedState(wanted)) break;
      return { ...readJoin(data, at), ...wanted, session } as ClientMessage;
    case "listen":
      if (room === undefined || !isWantedState(wanted)) break;
      return { type, room, ...wanted };
    case "set":
      return readSet(data, at);
    case "got":
      if (!Number.isSafeInteger(rev)) break;
      return { type, room, rev: rev as number };
    case "leave":
    case "members":
      return { type, room };
    case "ping":
      return { type, id: at.id };
    case "token":
      if (typeof token !== "string") break;
      return { type, token };
  }
  return bad("bad_message", at);
}

function readJoin({ name }: Fields, at: At): ClientMessage {
  const isName = name === undefined || isPersonName(name);
  return isName ? { type: "join", name, room: at.room } : bad("bad_name", at);
}

function readSet({ key, value, if: rev, ttl, bind }: Fields, at: At): ClientMessage {
  if (!isStateKey(key)) return bad("bad_state_key", at);
  const conditions = { if: rev, ttl };
  const isGood = value !== undefined && isShallow(value) && areConditions(conditions) &&
    (bind === undefined || typeof bind === "boolean");
  return isGood ? { type: "set", key, value, ...conditions, bind, ...at } : bad("bad_message", at);
}

function readMessage(type: "chat" | "note", { message = "" }: Fields, at: At): ClientMessage {
  return isShallow(message) ? { type, message, ...at } : bad("bad_message", at);
}

/**
 * Whether a value can go out as it came: its numbers are finite (see {@link parseJson}), and it nests at most `depth` deep
 * (`JSON.stringify` recurses, `JSON.parse` does not).
 */
export function isShallow(value: unknown, depth: number = MAX_DEPTH): boolean {
  // A number like 1e400 would go out as null.
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || value === null) return true;
  if (depth === 0) return false;
  return Object.values(value).every((inner) => isShallow(inner, depth - 1));
}
