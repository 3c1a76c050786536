/** Which part of a room's history is handed out: pure functions on a {@link Span}. */
import { byteLength } from "../util/bytes.ts";
import { type Cursor, isWithin } from "./position.ts";
import type { Chat } from "./room_event.ts";

/** All of a v1 `chat` but its sender and message, with the longest room name and numbers. */
const ENVELOPE_BYTES = 192;

/** The kept messages of a room that follow a cursor, oldest first; `seq` is the room's head. */
export interface Span extends Cursor {
  /** Oldest first. */ chats: Chat[];
}

/** Messages to hand out. `seq` is where they begin or end; nothing that was asked for is gone if `recovered`. */
export interface Page extends Cursor {
  recovered: boolean;
  chats: Chat[];
}

/** Whether everything behind `after` is still in the span. */
function isWhole(span: Span, after: Cursor | undefined): boolean {
  return isWithin(span, after) && span.seq - after.seq === span.chats.length;
}

/**
 * A replay for a subscriber: all since `after` if it is kept and fits, else the newest that do.
 *
 * @param maxBytes what the encoded messages may take together
 */
export function replay(
  span: Span,
  after: Cursor | undefined,
  limit: number,
  maxBytes: number,
): Page {
  const { epoch, seq } = span;
  const count = countFitting(span.chats.toReversed(), limit, maxBytes);
  const chats = span.chats.slice(span.chats.length - count);
  const recovered = count === span.chats.length && isWhole(span, after);
  return { epoch, seq: seq - count, recovered, chats };
}

/**
 * A page for `GET …/messages`: forward from `after`, from the oldest kept where that is gone; the
 * newest `limit` without `after` or with one that this epoch does not know.
 *
 * @param maxBytes what the encoded messages may take together; one may take more
 */
export function pageOf(
  span: Span,
  after: Cursor | undefined,
  limit: number,
  maxBytes = Infinity,
): Page {
  const known = isWithin(span, after);
  const { length } = span.chats;
  const ordered = known ? span.chats : span.chats.toReversed();
  const count = countFitting(ordered, limit, maxBytes, 1);
  const chats = known ? span.chats.slice(0, count) : span.chats.slice(length - count);
  const end = chats.at(-1)?.seq ?? span.seq;
  const recovered = after === undefined || isWhole(span, after);
  return { epoch: span.epoch, seq: end, recovered, chats };
}

/**
 * A page for `GET …/messages?before=`: the `limit` messages below `before`, the newest where that is of
 * another epoch. Its `seq` is the first message's; `recovered` unless some are gone that the page should have.
 *
 * @param maxBytes what the encoded messages may take together; one may take more
 */
export function pageBefore(span: Span, before: Cursor, limit: number, maxBytes = Infinity): Page {
  const isKnown = before.epoch === span.epoch && before.seq <= span.seq + 1;
  const end = isKnown ? before.seq : span.seq + 1;
  const older = span.chats.filter(({ seq }) => seq < end);
  const count = countFitting(older.toReversed(), limit, maxBytes, 1);
  const chats = older.slice(older.length - count);
  const seq = chats[0]?.seq ?? end;
  const isCutOff = count === older.length && count < limit && seq > 1;
  return { epoch: span.epoch, seq, recovered: isKnown && !isCutOff, chats };
}

/** How many of the first messages take no more than so many bytes on the wire: from `atLeast` up to `limit`. */
function countFitting(chats: Chat[], limit: number, maxBytes: number, atLeast = 0): number {
  let count = 0;
  for (let bytes = 0; count < Math.min(limit, chats.length); count++) {
    const { message, sender } = chats[count];
    bytes += byteLength(message) + byteLength(sender) + ENVELOPE_BYTES;
    if (bytes > maxBytes && count >= atLeast) break;
  }
  return count;
}
