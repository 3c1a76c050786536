/** Which part of a room's history is handed out: pure functions on a {@link Span}. `maxBytes` bounds it as encoded. */
import { byteLength } from "../util/bytes.ts";
import { type Cursor, isWithin } from "./position.ts";
import type { Chat } from "./room_event.ts";

/** All of a v1 `chat` but its sender and message, with the longest room name and numbers. */
const ENVELOPE_BYTES = 192;

/** The kept messages of a room that follow a cursor, oldest first; `seq` is the room's head. */
export interface Span extends Cursor {
  /** Oldest first. */
  chats: Chat[];
}

/** Messages to hand out. `seq` is where they begin or end; `recovered` if nothing that was asked for is gone. */
export interface Page extends Cursor {
  recovered: boolean;
  chats: Chat[];
}

/** Whether everything behind `after` is still in the span. */
function isWhole(span: Span, after: Cursor | undefined): boolean {
  return isWithin(span, after) && span.seq - after.seq === span.chats.length;
}

/** A replay for a subscriber: all since `after` if it is kept and fits, else the newest that do. */
export function replay(
  span: Span,
  after: Cursor | undefined,
  limit: number,
  maxBytes: number,
): Page {
  const chats = newest(span.chats, limit, maxBytes);
  const recovered = chats.length === span.chats.length && isWhole(span, after);
  return { epoch: span.epoch, seq: span.seq - chats.length, recovered, chats };
}

/**
 * A page for `GET …/messages`: forward from `after`, from the oldest kept where that is gone; the
 * newest `limit` without `after` or with one that this epoch does not know.
 */
export function pageOf(
  span: Span,
  after: Cursor | undefined,
  limit: number,
  maxBytes = Infinity,
): Page {
  const chats = isWithin(span, after)
    ? oldest(span.chats, limit, maxBytes, 1)
    : newest(span.chats, limit, maxBytes, 1);
  const recovered = after === undefined || isWhole(span, after);
  return { epoch: span.epoch, seq: chats.at(-1)?.seq ?? span.seq, recovered, chats };
}

/**
 * A page for `GET …/messages?before=`: the `limit` messages below `before`, the newest where that is of
 * another epoch. Its `seq` is the first message's; `recovered` unless some are gone that the page should have.
 */
export function pageBefore(span: Span, before: Cursor, limit: number, maxBytes = Infinity): Page {
  const isKnown = before.epoch === span.epoch && before.seq <= span.seq + 1;
  const end = isKnown ? before.seq : span.seq + 1;
  const older = span.chats.filter(({ seq }) => seq < end);
  const chats = newest(older, limit, maxBytes, 1);
  const seq = chats[0]?.seq ?? end;
  const isCutOff = chats.length === older.length && chats.length < limit && seq > 1;
  return { epoch: span.epoch, seq, recovered: isKnown && !isCutOff, chats };
}

/** As many of the first messages as fit into `maxBytes` on the wire: from `atLeast` up to `limit`. */
function oldest(chats: Chat[], limit: number, maxBytes: number, atLeast = 0): Chat[] {
  let bytes = 0;
  const end = chats.slice(0, limit).findIndex(({ message, sender }, index) => {
    bytes += byteLength(message) + byteLength(sender) + ENVELOPE_BYTES;
    return bytes > maxBytes && index >= atLeast;
  });
  return chats.slice(0, end < 0 ? limit : end);
}

function newest(chats: Chat[], limit: number, maxBytes: number, atLeast?: number): Chat[] {
  return oldest(chats.slice(-limit).reverse(), limit, maxBytes, atLeast).reverse();
}
