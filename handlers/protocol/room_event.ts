/**
 * What happens in a room, and what is known of one: the types of the wire.
 *
 * @module
 */

/** One kept message. `message` is JSON text; `time` is Unix ms. */
export interface Chat {
  seq: number;
  time: number;
  sender: string;
  message: string;
}

/** A message of the moment. `message` is JSON text; `time` is Unix ms. */
export interface Note {
  time: number;
  sender: string;
  message: string;
}

/** What is handed on in a room's order, without a number, and not kept. */
export type Transient =
  | { type: "note"; note: Note }
  /** From a socket to the others of its room: `from` is the sending member. */
  | { type: "binary"; bytes: Uint8Array; from: string };

/** What a hosting process hears of a room, in the room's order. */
export type RoomEvent =
  | Transient
  | { type: "chat"; chat: Chat }
  | {
    type: "status";
    event: "join" | "leave";
    name: string;
    was?: string;
    members: number;
  }
  /** Continuity broke: the next message is `seq` + 1 of `epoch`. */
  | { type: "reset"; epoch: string; seq: number; members: number };

/** Who has joined a room: `names` sorted, at most 1,000 of `count`. */
export interface Members {
  names: string[];
  count: number;
}

/** Who has joined a room, as it is shown: at most 1,000 of `count`, by name. */
export interface MemberList {
  room: string;
  members: { name: string; sockets: number }[];
  count: number;
}

/** What a program hears of a room: the objects of `parley.v1`. `time` is Unix ms. */
export type RoomObject =
  | {
    type: "welcome";
    room: string;
    epoch: string;
    seq: number;
    members: number;
    recovered?: boolean;
  }
  | { type: "chat"; room: string; seq: number; time: number; sender: string; message: unknown }
  | { type: "note"; room: string; time: number; sender: string; message: unknown }
  | {
    type: "status";
    room: string;
    event: "join" | "leave";
    name: string;
    was?: string;
    members: number;
    message: string;
  };

/** A page of a room's history; `seq` is the cursor to ask with next. */
export interface HistoryPage {
  room: string;
  epoch: string;
  seq: number;
  /** Whether nothing is missing since `after`. */
  recovered: boolean;
  messages: Extract<RoomObject, { type: "chat" }>[];
}

/** A room with listeners, as `GET /rooms` shows it. */
export interface RoomSummary {
  room: string;
  members: number;
  listeners: number;
  seq: number;
}
