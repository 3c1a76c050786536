/** Types of the Parley client. See README.md beside this file for every option, method and error. @module */

/** Where the connection is. Only `closed` is final. */
export type Connection = "connecting" | "open" | "reconnecting" | "closed";

/** A position in the order of a room's messages. */
export interface Cursor {
  /** Another one after the room has begun anew. */
  epoch: string;
  /** The number of a message. */
  seq: number;
}

/** Where a sent message stands. */
export type Receipt = Cursor & { room: string };

/** A message of the moment: in order with the others, not numbered and not kept. */
export interface Note<Body = unknown> {
  /** The room. */
  room: string;
  /** Unix milliseconds. */
  time: number;
  /** The sender's name. */
  sender: string;
  /** Any JSON value. */
  message: Body;
}

/** A chat message: numbered and kept. */
export type Message<Body = unknown> = Note<Body> & Cursor;

/** Where a change of the state stands; `rev` is its number, which a later `if` asks for. */
export type SetReceipt = { room: string; epoch: string; rev: number };

/** A key of a room's state, as its last change left it. */
export interface Entry<Value = unknown> {
  /** The key. */
  key: string;
  /** Any JSON value but `null`. */
  value: Value;
  /** The name of who set it. */
  sender: string;
  /** When; Unix milliseconds. */
  time: number;
  /** The number of the change. */
  rev: number;
}

/** Keys of a room's state that changed together, each once, `null` where it is gone; at first all keys. */
export type StateChange<Value = unknown> = SetReceipt & { entries: Entry<Value | null>[] };

/** How to set a key. */
export interface SetOptions {
  /** Default: the room of the connection. */
  room?: string;
  /** Removes the key when this client leaves or its connection ends; on the next one it is set again. */
  bind?: boolean;
  /** Removes the key after so many whole seconds. */
  ttl?: number;
  /** Only if the key is at this `rev`, or with 0 if it is not there. Else `rev_conflict`. */
  if?: number;
}

/** Kept messages of a room, oldest first; not `recovered` if others that were asked for are gone. */
export type Page<Body = unknown> = Receipt & { recovered: boolean; messages: Message<Body>[] };

/** Somebody joined, left, or took another name. */
export interface Status {
  /** The room. */
  room: string;
  /** What happened. */
  event: "join" | "leave";
  /** Who it was. */
  name: string;
  /** The user, where a token told it. */
  user?: string;
  /** The old name, after a change of name. */
  was?: string;
  /** How many people have joined now: a user with several sockets is one. */
  members: number;
  /** The same for people, in English. */
  message: string;
}

/** A room answered, at first or after a reconnect; its next message is `seq` + 1. */
export interface Welcome extends Receipt {
  /** How many have joined. */
  members: number;
  /** After a reconnect: whether nothing is missing. */
  recovered?: boolean;
}

/**
 * Messages after `from` up to `to` are missing. With another epoch, or `to.seq` below `from.seq`,
 * the order starts anew after `to`.
 */
export type Gap = { room: string; from: Cursor; to: Cursor };

/** Who has joined a room: names, sorted, at most 1,000 of `count`. */
export type Members = { members: string[]; count: number };

/** What the server or the client refused. */
export class ParleyError extends Error {
  /** Makes the error of a code. */
  constructor(code: string, message: string, room?: string, rev?: number);
  /** One of the protocol's codes or of the client's own; README.md lists them. */
  readonly code: string;
  /** The room it is about, where there is one. */
  readonly room?: string;
  /** Of `rev_conflict`: the `rev` that the key has, 0 if it is not there. */
  readonly rev?: number;
}

/** How to connect, and whom to call. */
export interface Options<Body = unknown, Value = unknown> {
  /** The room of the connection. Default: the URL's, else `lobby`. */
  room?: string;
  /** The name to join it with. Default: none; the client only listens until `join`. */
  name?: string;
  /** A JWT, or a function that is called for one at every connect. */
  token?: string | (() => string | Promise<string>);
  /** How many of the room's last messages to start with. Default: 0. */
  history?: number;
  /** Whether to follow the state of the rooms; with `every` at most each so many milliseconds. */
  state?: boolean | { every: number };
  /** Each message of each room, your own too. */
  onMessage?(message: Message<Body>): void;
  /** Each note of each room. */
  onNote?(note: Note): void;
  /** Who joined, left, or took another name. */
  onStatus?(status: Status): void;
  /** A room answered. */
  onWelcome?(welcome: Welcome): void;
  /** Messages are missing; called before any later one. */
  onGap?(gap: Gap): void;
  /** The state of a room has changed; `client.state(room)` is up to date. */
  onState?(change: StateChange<Value>): void;
  /** The connection changed, but by your own `close()`. */
  onConnection?(connection: Connection): void;
  /** A refusal that answers no promise; and why, when the connection is `closed`. */
  onError?(error: ParleyError): void;
}

/**
 * A connection made by {@link connect}. `room` is by default the room of the connection. The promises
 * may be ignored; they reject with a {@link ParleyError}.
 */
export interface Client<Body = unknown, Value = unknown> {
  /** Where the connection is; the client leaves all of it but `closed` by itself. */
  readonly connection: Connection;

  /**
   * Sends a message, now or once there is a connection, and again until its fate is known. Resolves
   * when the server keeps it. Rejects with `unknown` if it was sent and not answered within 4
   * minutes and one epoch, `too_big`, `busy` while 10,000 wait, `closed`, or the server's code.
   */
  send(message: Body, options?: { room?: string }): Promise<Receipt>;

  /**
   * Sets a key of a room's state to any JSON value, or removes it by `null`, as {@link send} sends.
   * While it waits, a later `set` of the key takes its place, and its promise is the same; one with
   * `if` is never replaced.
   */
  set(key: string, value: Value | null, options?: SetOptions): Promise<SetReceipt>;

  /** A room's state: a map that changes by itself. Empty without the option `state`. */
  state(room?: string): ReadonlyMap<string, Value>;

  /** Who set a key of it and when, and its `rev`. */
  entry(key: string, room?: string): Entry<Value> | undefined;

  /**
   * Sends what counts only now, as "is writing" or a cursor: without a connection it is dropped.
   * `onError` reports a refusal. Throws a `TypeError` for what cannot be JSON.
   */
  note(message: unknown, options?: { room?: string }): void;

  /**
   * Reads what the server has kept: the `limit` (100) messages below `before`, those behind `after`,
   * or the newest.
   */
  history(
    options?: { room?: string; before?: Cursor; after?: Cursor; limit?: number },
  ): Promise<Page<Body>>;

  /**
   * Joins a room under a name, or takes another name there. `onError` reports a refusal; the name
   * before it then stays. Throws `bad_room` for what cannot be a room's name.
   */
  join(name: string, room?: string): void;

  /** Subscribes to one more room, without a name. `onWelcome` or `onError` answers. Throws as `join`. */
  listen(room: string): void;

  /** Leaves a room and unsubscribes from it. What still waits to be sent there rejects. */
  leave(room?: string): void;

  /** Asks who has joined a room. */
  members(room?: string): Promise<Members>;

  /**
   * Calls the token function for a fresh token and gives it to the server, best before the old one
   * expires. Rejects when the function does.
   */
  refreshToken(): Promise<void>;

  /** Ends the connection for good. What waits rejects; no callback is called any more. */
  close(): void;
}

/**
 * Connects to a room of a Parley server and stays connected until `close()` or a final refusal.
 *
 * @typeParam Body The type of the messages, which nothing checks at run time.
 * @typeParam Value The type of the state's values, likewise.
 * @param url `wss://host/chat/ops`, or a base such as `https://host`; a relative one counts from
 * the module's own URL, in a bundle from the page's.
 * @throws {TypeError} When `url` cannot be parsed or is none of `ws:`, `wss:`, `http:`, `https:`.
 * @throws {ParleyError} `bad_room` when the room's name is outside the grammar.
 */
export function connect<Body = unknown, Value = unknown>(
  url: string | URL,
  options?: Options<Body, Value>,
): Client<Body, Value>;
