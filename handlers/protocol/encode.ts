/**
 * What clients get, in both dialects: encoded. Pure. `PROTOCOL.md` is the contract.
 *
 * @module
 */
import type { Cursor } from "./position.ts";
import type { Chat, Members, RoomEvent } from "./room_event.ts";

/** The subprotocol that asks for the batched dialect. */
export const PARLEY_V1 = "parley.v1";

/** How a socket speaks: plain JSON, or `parley.v1` with frames of several objects. */
export type Dialect = "plain" | "v1";

/** The `code` of an error in `parley.v1`. */
export type ErrorCode = keyof typeof ERROR_TEXTS;

/** The text of each error, the same in both dialects. */
export const ERROR_TEXTS = {
  bad_json: "Invalid JSON format.",
  bad_message: "Invalid message format or not joined.",
  not_joined: "Invalid message format or not joined.",
  bad_name: "Invalid name.",
  bad_room: "Invalid room name.",
  forbidden: "Not allowed.",
  rate_limited: "Too many messages.",
  too_many_rooms: "Too many rooms.",
  unavailable: "Server error: the message may not have been delivered.",
} as const;

/** A chat in the plain dialect. */
export function plainChat({ sender, message }: Chat): string {
  return `{"type":"chat","sender":${JSON.stringify(sender)},"message":${message}}`;
}

/** A chat in `parley.v1`, over HTTP and in Server-Sent Events. */
export function v1Chat(
  room: string,
  { seq, time, sender, message }: Chat,
): string {
  return `{"type":"chat","room":"${room}","seq":${seq},"time":${time},"sender":${
    JSON.stringify(sender)
  },"message":${message}}`;
}

type Status = Extract<RoomEvent, { type: "status" }>;

/** A status in the plain dialect. */
export function plainStatus({ event, name }: Status): string {
  return JSON.stringify({ type: "status", message: statusText(event, name) });
}

/** A status in `parley.v1`. */
export function v1Status(
  room: string,
  { event, name, was, members }: Status,
): string {
  const message = statusText(event, name);
  return JSON.stringify({
    type: "status",
    room,
    event,
    name,
    was,
    members,
    message,
  });
}

function statusText(event: "join" | "leave", name: string): string {
  return `${name} ${event === "join" ? "joined" : "left"} the chat.`;
}

/** The first thing a listener hears of a room, and again when continuity broke. */
export function welcome(
  room: string,
  { epoch, seq }: Cursor,
  members: number,
  recovered?: boolean,
  limits?: { messageBytes: number },
): string {
  return JSON.stringify({ type: "welcome", room, epoch, seq, members, recovered, limits });
}

/** The answer to a `chat` with an `id`. */
export function ack(id: string, room: string, { epoch, seq }: Cursor): string {
  return JSON.stringify({ type: "ack", id, room, epoch, seq });
}

/** The answer to `members`. */
export function membersList(room: string, { names, count }: Members): string {
  return JSON.stringify({ type: "members", room, members: names, count });
}

/** The answer to `ping`. */
export function pong(id?: string): string {
  return JSON.stringify({ type: "pong", id });
}

/** What the server says before it drains. `retry` is in ms. */
export function bye(retry: number): string {
  return JSON.stringify({ type: "bye", retry });
}

/** An error in the plain dialect, which has no word for a room that cannot be opened. */
export function plainError(code: ErrorCode): string {
  const known = code === "too_many_rooms" ? "unavailable" : code;
  return JSON.stringify({ type: "error", message: ERROR_TEXTS[known] });
}

/** An error in `parley.v1`. `retry` is in ms. */
export function v1Error(
  code: ErrorCode,
  about: { id?: string; room?: string; retry?: number } = {},
): string {
  return JSON.stringify({
    type: "error",
    code,
    message: ERROR_TEXTS[code],
    ...about,
  });
}
