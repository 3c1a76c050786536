/**
 * What clients get: one encoder for each dialect, and the answers of `parley.v1`. Pure.
 * `handlers/README.md` is the contract.
 */
import { type Cursor, formatCursor, type Head } from "./position.ts";
import type { Chat, Members, Note, RoomEvent } from "./room_event.ts";

/** The text of each error, by its `code` in `parley.v1`. */
export const ERROR_TEXTS = {
  bad_json: "Invalid JSON format.",
  bad_message: "Invalid message format or not joined.",
  not_joined: "Invalid message format or not joined.",
  bad_name: "Invalid name.",
  bad_room: "Invalid room name.",
  forbidden: "Not allowed.",
  rate_limited: "Too many messages.",
  too_many_rooms: "Too many rooms.",
  too_many_keys: "Too many keys.",
  rev_conflict: "The key has changed.",
  bad_state_key: "Invalid key.",
  unavailable: "Server error: the message may not have been delivered.",
  refused: "Refused.",
} as const;

/** The `code` of an error in `parley.v1`. */
export type ErrorCode = keyof typeof ERROR_TEXTS;

/** What an error is about. `retry` is in ms; `text` replaces that of the code. */
export interface ErrorDetails {
  text?: string;
  id?: string;
  room?: string;
  retry?: number;
}

/** Somebody joined or left. */
export type Status = Extract<RoomEvent, { type: "status" }>;

/** How a subscriber is spoken to. A method returns nothing where the dialect has no word for it. */
export interface Dialect {
  readonly name: "plain" | "v1" | "events";
  /** The WebSocket subprotocol that asks for it. */
  readonly protocol?: string;
  /** Whether all that a turn of the event loop brings goes out as one frame, an object a line. */
  readonly isMerged: boolean;
  /** Whether it shows positions: `welcome`, history and resuming. */
  readonly hasPositions: boolean;
  /** A room's position: the next chat is `seq` + 1. */
  welcome(
    room: string,
    head: Head,
    recovered?: boolean,
    limits?: { messageBytes: number },
  ): string | undefined;
  chat(room: string, epoch: string, chat: Chat): string;
  note(room: string, note: Note): string | undefined;
  status(room: string, status: Status): string | undefined;
  error(code: ErrorCode, details: ErrorDetails): string | undefined;
  /** The server drains: come back in `retry` ms. */
  bye(retry: number): string | undefined;
}

/** JSON with no more keys than the contract names, for any WebSocket client. */
export const plain: Dialect = {
  name: "plain",
  isMerged: false,
  hasPositions: false,
  welcome: () => undefined,
  chat: (_room, _epoch, { sender, message }) =>
    `{"type":"chat","sender":${JSON.stringify(sender)},"message":${message}}`,
  note: () => undefined,
  status: (_room, { event, name }) =>
    JSON.stringify({ type: "status", message: statusText(event, name) }),
  error(code, { text }) {
    // It has no word for a room that cannot be opened.
    const known = code === "too_many_rooms" ? "unavailable" : code;
    return JSON.stringify({ type: "error", message: text ?? ERROR_TEXTS[known] });
  },
  bye: () => undefined,
};

/** The subprotocol `parley.v1`: merged frames, positions, error codes. */
export const v1: Dialect = {
  name: "v1",
  protocol: "parley.v1",
  isMerged: true,
  hasPositions: true,
  welcome: (room, { epoch, seq, members }, recovered, limits) =>
    JSON.stringify({ type: "welcome", room, epoch, seq, members, recovered, limits }),
  chat: (room, _epoch, { seq, time, sender, message }) =>
    `{"type":"chat","room":"${room}","seq":${seq},"time":${time},"sender":${
      JSON.stringify(sender)
    },"message":${message}}`,
  note: (room, { time, sender, message }) =>
    `{"type":"note","room":"${room}","time":${time},"sender":${
      JSON.stringify(sender)
    },"message":${message}}`,
  status: (room, { event, name, was, members }) => {
    const message = statusText(event, name);
    return JSON.stringify({ type: "status", room, event, name, was, members, message });
  },
  error: (code, { text = ERROR_TEXTS[code], ...details }) =>
    JSON.stringify({ type: "error", code, message: text, ...details }),
  bye: (retry) => JSON.stringify({ type: "bye", retry }),
};

/** Server-Sent Events: objects of `parley.v1`, each with its position as the event's id. */
export const events: Dialect = {
  name: "events",
  isMerged: false,
  hasPositions: true,
  welcome: (room, head, recovered) =>
    `event:welcome\ndata:${v1.welcome(room, head, recovered)}\nid:${formatCursor(head)}\n\n`,
  chat: (room, epoch, chat) =>
    `data:${v1.chat(room, epoch, chat)}\nid:${formatCursor({ epoch, seq: chat.seq })}\n\n`,
  note: (room, note) => `event:note\ndata:${v1.note(room, note)}\n\n`,
  status: () => undefined,
  error: () => undefined,
  bye: (retry) => `retry:${retry}\n\n`,
};

/** An event that is text in a dialect; nothing for what it has no word for, and for bytes. */
export function encodeEvent(
  dialect: Dialect,
  room: string,
  epoch: string,
  event: RoomEvent,
): string | undefined {
  switch (event.type) {
    case "chat":
      return dialect.chat(room, epoch, event.chat);
    case "note":
      return dialect.note(room, event.note);
    case "status":
      return dialect.status(room, event);
    case "reset":
      return dialect.welcome(room, event, false);
  }
}

function statusText(event: "join" | "leave", name: string): string {
  return `${name} ${event === "join" ? "joined" : "left"} the chat.`;
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
