/** What clients get: one encoder per dialect, and the answers of `parley.v1`. Pure. `handlers/README.md` is the contract. */
import { type Cursor, formatCursor, type Head, type StateCursor } from "./position.ts";
import type { Chat, Entry, Members, Note, RoomEvent, StateSpan, Status } from "./room_event.ts";
import { encodeSet, encodeState } from "./state.ts";

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
  /** Of `rev_conflict`: the rev of the key. */
  rev?: number;
}

/** What a `welcome` may say besides: whether nothing is missing; of a socket's first one, its limits. */
type WelcomeMore = [recovered?: boolean, limits?: { messageBytes: number }];

/** How messages to a subscriber are encoded. A method returns nothing where the dialect has no such message. */
export interface Dialect {
  readonly name: "plain" | "v1" | "events";
  /** The WebSocket subprotocol that asks for it. */
  readonly protocol?: string;
  /** Whether all that a turn of the event loop brings goes out as one frame, an object a line. */
  readonly isMerged: boolean;
  /** Whether it shows positions: `welcome`, history and resuming. */
  readonly hasPositions: boolean;
  /** A room's position: the next chat is `seq` + 1. */
  welcome(room: string, head: Head, ...more: WelcomeMore): string | undefined;
  chat(room: string, at: StateCursor, chat: Chat): string;
  note(room: string, note: Note): string | undefined;
  status(room: string, status: Status): string | undefined;
  error(code: ErrorCode, details: ErrorDetails): string | undefined;
  /** The server drains: come back in `retry` ms. */
  bye(retry: number): string | undefined;
  /** The dialect of subscribers to state; without one, a request for state is ignored. */
  readonly stateful?: StatefulDialect;
}

/** A dialect with state: positions have a rev. */
export interface StatefulDialect extends Dialect {
  /** The same while changes are withheld or paced: it has no `set`, and `state` stands for it. */
  readonly withheld: Dialect;
  set(room: string, head: Head, entry: Entry): string;
  /** The whole state, or what changed of it, as frames; `seq` is that of the newest message sent. */
  state(room: string, seq: number, span: StateSpan): string[];
}

/** JSON with no more keys than the contract names, for any WebSocket client. */
export const plain: Dialect = {
  name: "plain",
  isMerged: false,
  hasPositions: false,
  welcome: () => undefined,
  chat: (_room, _at, chat) => `{"type":"chat",${bodyOf(chat)}`,
  note: () => undefined,
  status: (_room, { event, name }) =>
    JSON.stringify({ type: "status", message: statusText(event, name) }),
  error(code, { text }) {
    // It has no text of its own for too many rooms.
    const known = code === "too_many_rooms" ? "unavailable" : code;
    return JSON.stringify({ type: "error", message: text ?? ERROR_TEXTS[known] });
  },
  bye: () => undefined,
};

const v1Only: Dialect = {
  name: "v1",
  protocol: "parley.v1",
  isMerged: true,
  hasPositions: true,
  welcome: (room, { epoch, seq, members }, recovered, limits) =>
    JSON.stringify({ type: "welcome", room, epoch, seq, members, recovered, limits }),
  chat: (room, _at, chat) =>
    `{"type":"chat","room":"${room}","seq":${chat.seq},"time":${chat.time},${bodyOf(chat)}`,
  note: (room, note) => `{"type":"note","room":"${room}","time":${note.time},${bodyOf(note)}`,
  status: (room, { event, name, user, was, members }) => {
    const message = statusText(event, name);
    return JSON.stringify({ type: "status", room, event, name, user, was, members, message });
  },
  error: (code, { text = ERROR_TEXTS[code], ...details }) =>
    JSON.stringify({ type: "error", code, message: text, ...details }),
  bye: (retry) => JSON.stringify({ type: "bye", retry }),
};

const v1Withheld: Dialect = {
  ...v1Only,
  welcome: (room, { epoch, seq, rev, members }, recovered, limits) =>
    JSON.stringify({ type: "welcome", room, epoch, seq, rev, members, recovered, limits }),
};

/** The subprotocol `parley.v1`: merged frames, positions, error codes, state. */
export const v1: Dialect & { stateful: StatefulDialect } = {
  ...v1Only,
  stateful: {
    ...v1Withheld,
    withheld: v1Withheld,
    set: (room, _head, entry) => encodeSet(room, entry),
    state: (room, _seq, span) => encodeState(room, span),
  },
};

const eventsOnly: Dialect = {
  name: "events",
  isMerged: false,
  hasPositions: true,
  welcome: (room, head, recovered) =>
    `event:welcome\ndata:${v1.welcome(room, head, recovered)}\nid:${formatCursor(head)}\n\n`,
  chat: (room, at, chat) =>
    `data:${v1.chat(room, at, chat)}\nid:${formatCursor({ epoch: at.epoch, seq: chat.seq })}\n\n`,
  note: (room, note) => `event:note\ndata:${v1.note(room, note)}\n\n`,
  status: () => undefined,
  error: () => undefined,
  bye: (retry) => `retry:${retry}\n\n`,
};

/** Its `welcome` has no id: until the whole state was sent, the place to resume from is the old one. */
const eventsWithheld: Dialect = {
  ...eventsOnly,
  welcome: (room, head, recovered) =>
    `event:welcome\ndata:${v1.stateful.welcome(room, head, recovered)}\n\n`,
  chat: (room, at, chat) => `data:${v1.chat(room, at, chat)}\nid:${formatPlace(chat.seq, at)}\n\n`,
};

/** Server-Sent Events: objects of `parley.v1`, each with its position as the event's id. */
export const events: Dialect & { stateful: StatefulDialect } = {
  ...eventsOnly,
  stateful: {
    ...eventsWithheld,
    withheld: eventsWithheld,
    set: (room, { epoch, seq }, entry) => {
      const { rev } = entry;
      return stateEvents(room, seq, { epoch, rev, since: rev - 1, entries: [entry] }).join("");
    },
    state: stateEvents,
  },
};

/** An event's id that resumes messages and state. */
function formatPlace(seq: number, { epoch, rev }: StateCursor): string {
  return `${formatCursor({ epoch, seq })}:${rev}`;
}

function stateEvents(room: string, seq: number, span: StateSpan): string[] {
  const parts = encodeState(room, span);
  return parts.map((part, index) => {
    const id = index === parts.length - 1 ? `\nid:${formatPlace(seq, span)}` : "";
    return `event:state\ndata:${part}${id}\n\n`;
  });
}

/** An event as text; nothing if the dialect has no such message, for bytes, and for changes of state. */
export function encodeEvent(
  dialect: Dialect,
  room: string,
  at: StateCursor,
  event: RoomEvent,
): string | undefined {
  switch (event.type) {
    case "chat":
      return dialect.chat(room, at, event.chat);
    case "note":
      return dialect.note(room, event.note);
    case "status":
      return dialect.status(room, event);
    case "reset":
      return dialect.welcome(room, event, false);
  }
}

function bodyOf({ sender, message }: Note): string {
  return `"sender":${JSON.stringify(sender)},"message":${message}}`;
}

function statusText(event: "join" | "leave", name: string): string {
  return `${name} ${event === "join" ? "joined" : "left"} the chat.`;
}

/** The answer to a `chat` or a `set` with an `id`. */
export function ack(id: string, room: string, position: Cursor | StateCursor): string {
  return JSON.stringify({ type: "ack", id, room, ...position });
}

/** The answer to `members`. */
export function membersList(room: string, { members, count }: Members): string {
  const names = members.map(({ name }) => name);
  return JSON.stringify({ type: "members", room, members: names, count });
}

/** The answer to `ping`. */
export function pong(id?: string): string {
  return JSON.stringify({ type: "pong", id });
}
