/** Positions in a room's order, and their text form. Pure. */
import { HttpError } from "./http_error.ts";
import { isWantedState, type WantedState } from "./state.ts";

/** A position in a room's order: `seq` counts 1, 2, 3 … within one `epoch`. */
export interface Cursor {
  /** Another one after a room has begun anew. */
  epoch: string;
  /** The number of a message. */
  seq: number;
}

/** A position in a room's state: `rev` counts its changes 1, 2, 3 … within one `epoch`. */
export interface StateCursor {
  /** The room's epoch. */
  epoch: string;
  /** The number of a change. */
  rev: number;
}

/** A room at one moment: the next message is `seq` + 1, the next change of state `rev` + 1. */
export interface Head extends Cursor {
  /** The number of the newest change of state. */
  rev: number;
  /** How many have joined. */
  members: number;
}

/** The place in the state in `epoch:rev`, or nothing where the text is none. */
export function parseStateCursor(text: unknown): StateCursor | undefined {
  const cursor = parseCursor(text);
  return cursor && { epoch: cursor.epoch, rev: cursor.seq };
}

/** The cursor in `epoch:seq`, or nothing where the text is no cursor. */
export function parseCursor(text: unknown): Cursor | undefined {
  const parts = typeof text === "string" ? /^([\w-]{1,64}):(\d{1,15})$/.exec(text) : null;
  return parts ? { epoch: parts[1], seq: Number(parts[2]) } : undefined;
}

/** What a subscriber wants of a room's past and of its state. */
export interface Wanted extends WantedState {
  /** All since this cursor, which is unchecked: of a bad one nothing can be recovered. */
  after?: unknown;
  /** Without `after`: the last so many messages. */
  history?: number;
}

/** What a URL's query wants of a room. @throws {HttpError} 400 for an `every` or `state` that is none */
export function readWanted(query: URLSearchParams): Wanted {
  const history = Number(query.get("history"));
  const [state, every] = [query.get("state"), query.get("every")];
  const wanted = {
    state: state === null ? undefined : state === "1" || state !== "0" && state,
    since: query.get("since") ?? undefined,
    every: every === null ? undefined : Number(every),
  };
  if (!isWantedState(wanted)) {
    throw new HttpError(400, "bad_message", "state must be 1, every 10 to 60000 ms.");
  }
  return {
    ...wanted,
    after: query.get("after") ?? undefined,
    history: Number.isInteger(history) && history > 0 ? history : 0,
  };
}

/** The text form of a cursor: `epoch:seq`. */
export function formatCursor({ epoch, seq }: Cursor): string {
  return `${epoch}:${seq}`;
}

/** Whether a cursor is of a room's order, of which `head` is the end. */
export function isWithin(head: Cursor, cursor: Cursor | undefined): cursor is Cursor {
  return cursor?.epoch === head.epoch && cursor.seq <= head.seq;
}
