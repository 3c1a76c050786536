/** Rooms over HTTP: the list, one of them, its members, its history. `handlers/README.md`, HTTP. */
import type { Handler } from "../app.ts";
import { isRefusal, type Refusal } from "../engine/engine.ts";
import { v1 } from "../protocol/encode.ts";
import { pageBefore, pageOf } from "../protocol/page.ts";
import { isServerRoom, SHARED_ROOMS } from "../protocol/parse.ts";
import { parseCursor } from "../protocol/position.ts";
import type { MemberList, RoomSummary } from "../protocol/room_event.ts";
import type { Registry } from "../registry/registry.ts";
import type { Rejection } from "../registry/sender.ts";
import { check, granted } from "./error.ts";

const ROOMS_PER_PAGE = 1_000;
const ROOMS_AT_ONCE = 10_000;
const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1_000;

/** Answers `GET /rooms`: by name, 1,000 a page, those behind `?after=name`. */
export const listRooms: Handler = async ({ url, visitor }, { registry }) => {
  const rooms: RoomSummary[] = [];
  const first = url.searchParams.get("after") ?? "";
  let after = first;
  let isLast = false;
  // Reads on for a visitor who may hear few of many rooms: in larger steps, which are cheaper.
  while (rooms.length < ROOMS_PER_PAGE && !isLast) {
    const limit = after === first ? ROOMS_PER_PAGE : ROOMS_AT_ONCE;
    const most = limit + SHARED_ROOMS.length;
    const all = granted(await registry.engineOf("").rooms(after, most));
    const found = all.filter(({ room }) => !isServerRoom(room)).slice(0, limit);
    rooms.push(...found.filter(({ room }) => visitor.rights.maySubscribe(room)));
    after = found.at(-1)?.room ?? after;
    isLast = found.length < limit;
  }
  return Response.json({ rooms: rooms.slice(0, ROOMS_PER_PAGE) });
};

/** Answers `GET /rooms/{room}`: what the list says of it; zeros where nobody knows it. */
export const readRoom: Handler = async ({ room }, { registry }) => {
  const found = await findRoom(registry, room);
  if (found) return Response.json(found);
  // Without subscribers it is in no list, but may have messages.
  const { seq } = granted(await registry.engineOf(room).read(room));
  return Response.json({ room, members: 0, listeners: 0, seq });
};

/** What the list of rooms says of one; nothing if it has no subscribers. */
export async function findRoom(registry: Registry, name: string): Promise<RoomSummary | undefined> {
  // The last text before the name that could be a name: `~` is behind all letters of names.
  const before = String.fromCharCode(name.charCodeAt(name.length - 1) - 1);
  const rooms = await registry.engineOf(name).rooms(`${name.slice(0, -1)}${before}~`, 1);
  return granted(rooms).find(({ room }) => room === name);
}

/** Answers `GET /rooms/{room}/members`: who has joined, by name. */
export const listMembers: Handler = async ({ room }, { registry }) =>
  Response.json(granted(await membersOf(registry, room)));

/** Who has joined, as it is shown. */
export async function membersOf(registry: Registry, room: string): Promise<MemberList | Rejection> {
  const members = await registry.room(room).members();
  return "refused" in members ? members : { room, ...members };
}

/** Answers `GET /rooms/{room}/messages`: forward by `?after=`, backward by `?before=`. */
export const readMessages: Handler = async ({ url: { searchParams }, room }, { registry }) => {
  const page = await historyOf(registry, room, {
    after: searchParams.get("after") ?? undefined,
    before: searchParams.get("before") ?? undefined,
    limit: Number(searchParams.get("limit") ?? DEFAULT_LIMIT),
  });
  return new Response(granted(page), { headers: { "content-type": "application/json" } });
};

/** Which part of a room's history: forward behind `after`, backward below `before`, else the newest. */
export interface HistoryQuery {
  /** Forward, from behind this cursor. */
  after?: string;
  /** Backward, from below this cursor. */
  before?: string;
  /** At most so many, up to 1,000. @default 100 */
  limit?: number;
}

/** A page of history as JSON text. @throws {HttpError} 400 for a bad `limit` or `before`, or one beside `after` */
export async function historyOf(
  registry: Registry,
  room: string,
  { after, before, limit = DEFAULT_LIMIT }: HistoryQuery,
): Promise<string | Refusal> {
  const isCount = Number.isInteger(limit) && limit > 0;
  check(isCount, "bad_limit", "limit must be a whole number above 0.");
  const cursor = parseCursor(after);
  const end = parseCursor(before);
  const isGood = before === undefined || end !== undefined && after === undefined;
  check(isGood, "bad_cursor", "before must be a cursor, and stand without after.");
  const most = Math.min(limit, MAX_LIMIT);
  const span = await registry.engineOf(room).read(room, cursor, end ? undefined : most);
  if (isRefusal(span)) return span;
  // No more than a socket may have unsent: a client that does not read holds the whole answer.
  const maxBytes = registry.limits.maxQueueBytes / 2;
  const page = end ? pageBefore(span, end, most, maxBytes) : pageOf(span, cursor, most, maxBytes);
  const recovered = page.recovered && (after === undefined) === (cursor === undefined);
  const head = JSON.stringify({ room, epoch: page.epoch, seq: page.seq, recovered });
  const messages = page.chats.map((chat) => v1.chat(room, { epoch: page.epoch, rev: 0 }, chat));
  return `${head.slice(0, -1)},"messages":[${messages.join(",")}]}`;
}
