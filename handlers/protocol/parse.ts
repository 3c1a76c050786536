/** What clients send, in both dialects: parsed and checked by hand. Pure. `handlers/README.md` is the contract. */
import { type Dialect, type ErrorCode, plain } from "./encode.ts";
import { isObject, isShallow, parseJson } from "./json.ts";
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

/** An unchecked object of a client. */
type Fields = Record<string, unknown>;

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
