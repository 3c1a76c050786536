/** What happens in a room, and what is known of one: the types of the wire. */

/** A message of the moment. */
export interface Note {
  /** Unix ms. */
  time: number;
  /** The sender's name. */
  sender: string;
  /** JSON text. */
  message: string;
}

/** One kept message. */
export interface Chat extends Note {
  /** Its number. */
  seq: number;
}

/** One key of a room's state, as its last change left it. */
export interface Entry {
  /** 1 to 128 characters of the grammar. */
  key: string;
  /** JSON text; `null` where the key was removed. */
  value: string;
  /** Whose change it was. */
  sender: string;
  /** Of the change; Unix ms. */
  time: number;
  /** The number of the change: grows by 1 in a room and epoch, beside `seq`. */
  rev: number;
}

/** A room's state at `rev`, or what changed of it. */
export interface StateSpan {
  /** The room's epoch. */
  epoch: string;
  /** The number of the newest change. */
  rev: number;
  /** With it: each key that changed behind this rev, once, in the order of the changes; without: all keys, by key. */
  since?: number;
  /** The keys; a removed one has the value `null`. */
  entries: Entry[];
}

/** What is passed on in a room's order, not numbered and not kept. */
export type Transient =
  | { type: "note"; note: Note }
  /** From a socket to the others of its room: `from` is the sending member. */
  | { type: "binary"; bytes: Uint8Array; from: string };

/** Somebody joined or left. */
export interface Status {
  /** What it is. */
  type: "status";
  /** What happened. */
  event: "join" | "leave";
  /** Who it was. */
  name: string;
  /** The user, where a token named one. */
  user?: string;
  /** The name before. */
  was?: string;
  /** How many people there are now. */
  members: number;
  /** The only member that hears it: a further socket of a user who is here. */
  to?: string;
}

/** What a hosting process hears of a room, in the room's order. */
export type RoomEvent =
  | Transient
  | { type: "chat"; chat: Chat }
  | Status
  /** A key of the state changed, or went. */
  | { type: "set"; entry: Entry }
  /** Continuity broke: the next message is `seq` + 1 of `epoch`, the next change `rev` + 1. */
  | { type: "reset"; epoch: string; seq: number; rev: number; members: number };

/** One of the people in a room: a user, or a socket without one. */
export interface Person {
  /** The newest name. */
  name: string;
  /** The user, where a token named one. */
  user?: string;
  /** How many sockets have joined as this person. */
  sockets: number;
}

/** Who has joined a room: at most 1,000 of `count` people. */
export interface Members {
  /** By name. */
  members: Person[];
  /** All of them. */
  count: number;
}

/** Who has joined a room, as it is shown. */
export interface MemberList extends Members {
  /** The room. */
  room: string;
}

/** What a program hears of a room: the objects of `parley.v1`. `time` is Unix ms. */
export type RoomObject =
  & { room: string }
  & (
    | {
      type: "welcome";
      epoch: string;
      seq: number;
      rev?: number;
      members: number;
      recovered?: boolean;
    }
    | { type: "set"; rev: number; time: number; sender: string; key: string; value: unknown }
    | Omit<StatePage, "room"> & { type: "state"; more?: true }
    | { type: "chat"; seq: number; time: number; sender: string; message: unknown }
    | { type: "note"; time: number; sender: string; message: unknown }
    | Omit<Status, "to"> & { message: string }
  );

/** A room's state at `rev`, or what changed of it behind `since`: `null` where a key is gone. */
export interface StatePage {
  /** The room. */
  room: string;
  /** The room's epoch. */
  epoch: string;
  /** The number of the newest change. */
  rev: number;
  /** Missing for the whole state. */
  since?: number;
  /** Each key once. */
  entries: { key: string; value: unknown; sender: string; time: number; rev: number }[];
}

/** A page of a room's history; `seq` is the cursor to ask with next. */
export interface HistoryPage {
  /** The room. */
  room: string;
  /** The room's epoch. */
  epoch: string;
  /** Where this page ends. */
  seq: number;
  /** Whether nothing is missing since `after`. */
  recovered: boolean;
  /** Oldest first. */
  messages: Extract<RoomObject, { type: "chat" }>[];
}

/** A room with listeners, as `GET /rooms` shows it. */
export interface RoomSummary {
  /** The room. */
  room: string;
  /** How many people have joined. */
  members: number;
  /** How many hear it. */
  listeners: number;
  /** The newest message. */
  seq: number;
}
