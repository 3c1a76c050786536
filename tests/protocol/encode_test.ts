import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { CLOSE } from "../../handlers/protocol/close_codes.ts";
import {
  ack,
  encodeEvent,
  ERROR_TEXTS,
  type ErrorCode,
  events,
  membersList,
  plain,
  pong,
  v1,
} from "../../handlers/protocol/encode.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import { pageBefore, pageOf, replay, type Span } from "../../handlers/protocol/page.ts";
import { formatCursor, parseCursor } from "../../handlers/protocol/position.ts";
import type { RoomEvent } from "../../handlers/protocol/room_event.ts";
import { range } from "../engine/contract.ts";
import { people } from "../support/recorder.ts";

const CHAT = { seq: 7, time: 1_700_000_000_000, sender: 'A"n\n', message: '{"a":1}' };
const JOIN = { type: "status", event: "join", name: "Ann", was: "Bo", members: 3 } as const;
const LEAVE = { type: "status", event: "leave", name: "Ann", members: 2 } as const;

Deno.test("the plain dialect's objects have these keys and no more", () => {
  const parsed = (text?: string) => JSON.parse(text!);
  assertEquals(parsed(plain.chat("ops", { epoch: "e", rev: 0 }, CHAT)), {
    type: "chat",
    sender: 'A"n\n',
    message: { a: 1 },
  });
  assertEquals(parsed(plain.status("ops", JOIN)), {
    type: "status",
    message: "Ann joined the chat.",
  });
  assertEquals(parsed(plain.status("ops", LEAVE)), {
    type: "status",
    message: "Ann left the chat.",
  });
  assertEquals(parsed(plain.error("bad_name", {})), { type: "error", message: "Invalid name." });
});

Deno.test("the plain dialect knows these errors and no other", () => {
  const texts = (Object.keys(ERROR_TEXTS) as ErrorCode[])
    .filter((code) => code !== "bad_room" && code !== "refused" && !/key|rev/.test(code))
    .map((code) => JSON.parse(plain.error(code, {})!).message);
  // `bad_room` needs a `room`, which the plain dialect has not, nor has it state; `refused` has a hook's text.
  assertEquals(
    [...new Set(texts)].sort(),
    [
      "Invalid JSON format.",
      "Invalid message format or not joined.",
      "Invalid name.",
      "Not allowed.",
      "Server error: the message may not have been delivered.",
      "Too many messages.",
    ],
  );
});

Deno.test("parley.v1's objects are those of the protocol, each on one line", () => {
  const at = { epoch: "e", seq: 7 };
  const lines: [string | undefined, unknown][] = [
    [v1.chat("ops", { epoch: "e", rev: 0 }, CHAT), {
      type: "chat",
      room: "ops",
      ...CHAT,
      message: { a: 1 },
    }],
    [v1.status("ops", JOIN), { ...JOIN, room: "ops", message: "Ann joined the chat." }],
    [v1.status("ops", LEAVE), { ...LEAVE, room: "ops", message: "Ann left the chat." }],
    [v1.welcome("ops", { ...at, rev: 0, members: 3 }), {
      type: "welcome",
      room: "ops",
      ...at,
      members: 3,
    }],
    [v1.welcome("ops", { ...at, rev: 0, members: 3 }, false), {
      type: "welcome",
      room: "ops",
      ...at,
      members: 3,
      recovered: false,
    }],
    [ack("1", "ops", at), { type: "ack", id: "1", room: "ops", ...at }],
    [membersList("ops", { ...people("Ann", "Bo\n"), count: 5 }), {
      type: "members",
      room: "ops",
      members: ["Ann", "Bo\n"],
      count: 5,
    }],
    [pong("1"), { type: "pong", id: "1" }],
    [pong(), { type: "pong" }],
    [v1.bye(250), { type: "bye", retry: 250 }],
    [v1.error("bad_json", {}), {
      type: "error",
      code: "bad_json",
      message: "Invalid JSON format.",
    }],
    [v1.error("rate_limited", { id: "1", room: "ops", retry: 40 }), {
      type: "error",
      code: "rate_limited",
      message: "Too many messages.",
      id: "1",
      room: "ops",
      retry: 40,
    }],
  ];
  for (const [line, object] of lines) {
    assert(line && !line.includes("\n"), line);
    assertEquals(JSON.parse(line), object);
  }
});

Deno.test("events are objects of parley.v1 with their position, and say when to come back", () => {
  assertEquals(
    events.chat("ops", { epoch: "e", rev: 0 }, CHAT),
    `data:${v1.chat("ops", { epoch: "e", rev: 0 }, CHAT)}\nid:e:7\n\n`,
  );
  const head = { epoch: "e", seq: 7, rev: 0, members: 3 };
  const welcome = v1.welcome("ops", head, true);
  assertEquals(
    events.welcome("ops", head, true),
    `event:welcome\ndata:${welcome}\nid:e:7\n\n`,
  );
  assertEquals(events.bye(250), "retry:250\n\n");
});

Deno.test("encodeEvent() gives each dialect what it has a word for", () => {
  const reset = { type: "reset", epoch: "e2", seq: 0, rev: 0, members: 3 } as const;
  const bytes: RoomEvent = { type: "binary", bytes: new Uint8Array([1]), from: "2" };
  for (const dialect of [plain, v1, events]) {
    const encode = (event: RoomEvent) => encodeEvent(dialect, "ops", { epoch: "e", rev: 0 }, event);
    assertEquals(
      encode({ type: "chat", chat: CHAT }),
      dialect.chat("ops", { epoch: "e", rev: 0 }, CHAT),
    );
    assertEquals(encode(JOIN), dialect.status("ops", JOIN));
    assertEquals(encode(reset), dialect.welcome("ops", reset, false));
    assertEquals(encode(bytes), undefined);
  }
  assertEquals([plain.welcome("ops", reset), plain.bye(1), events.status("ops", JOIN)], [
    undefined,
    undefined,
    undefined,
  ]);
});

/** A room at seq `last` that has kept its messages since `first`. */
function span(first: number, last: number, message = "x"): Span {
  const chats = range(first, last).map((seq) => ({ seq, time: 0, sender: "Ann", message }));
  return { epoch: "e", seq: last, chats };
}

function short(page: ReturnType<typeof pageOf>) {
  return { seq: page.seq, recovered: page.recovered, seqs: page.chats.map(({ seq }) => seq) };
}

Deno.test("parseCursor() reads epoch:seq and nothing else", () => {
  assertEquals(parseCursor("a-B_9:12"), { epoch: "a-B_9", seq: 12 });
  assertEquals(parseCursor(`${"e".repeat(64)}:0`)?.seq, 0);
  const bad = ["", ":1", "e:", "e:-1", "e:1.5", "e:1e3", "e 1:1", "e:1:2", `${"e".repeat(65)}:1`];
  for (const text of [...bad, "e:1234567890123456", "e:1\n", 5, null, undefined, ["e:1"], {}]) {
    assertEquals(parseCursor(text), undefined, JSON.stringify(text));
  }
});

Deno.test("formatCursor() writes what parseCursor() reads", () => {
  const cursor = { epoch: "a1", seq: 0 };
  assertEquals(formatCursor(cursor), "a1:0");
  assertEquals(parseCursor(formatCursor(cursor)), cursor);
});

Deno.test("replay() gives all since a place that is kept, and says so", () => {
  // An engine answers with what is behind the place.
  const after = { epoch: "e", seq: 3 };
  const page = replay(span(4, 6), after, Infinity, 1e6);
  assertEquals(short(page), { seq: 3, recovered: true, seqs: [4, 5, 6] });
  assertEquals(short(replay(span(7, 6), { epoch: "e", seq: 6 }, Infinity, 1e6)), {
    seq: 6,
    recovered: true,
    seqs: [],
  });
});

Deno.test("replay() gives what is left where something is missing, and says so", () => {
  const recovered = false;
  const gone = replay(span(5, 6), { epoch: "e", seq: 3 }, Infinity, 1e6);
  assertEquals(short(gone), { seq: 4, recovered, seqs: [5, 6] });
  const another = replay(span(1, 2), { epoch: "f", seq: 0 }, Infinity, 1e6);
  assertEquals(short(another), { seq: 0, recovered, seqs: [1, 2] });
  const ahead = replay(span(1, 2), { epoch: "e", seq: 9 }, Infinity, 1e6);
  assertEquals(short(ahead), { seq: 0, recovered, seqs: [1, 2] });
  const nothing = replay(span(7, 6), { epoch: "e", seq: 3 }, Infinity, 1e6);
  assertEquals(short(nothing), { seq: 6, recovered, seqs: [] });
});

Deno.test("replay() gives the newest that fit the limit, in number and bytes", () => {
  const none = undefined;
  assertEquals(short(replay(span(1, 9), none, 2, 1e6)).seqs, [8, 9]);
  assertEquals(short(replay(span(1, 9), none, 0, 1e6)), { seq: 9, recovered: false, seqs: [] });
  const after = { epoch: "e", seq: 0 };
  const weight = 192 + "Ann".length + 2;
  const cut = replay(span(1, 9, "é"), after, Infinity, 3 * weight);
  assertEquals(short(cut), { seq: 6, recovered: false, seqs: [7, 8, 9] });
  assertEquals(replay(span(1, 9, "é"), after, Infinity, 3 * weight - 1).chats.length, 2);
  assertEquals(replay(span(1, 9, "é"), after, Infinity, 9 * weight).recovered, true);
});

Deno.test("pageOf() pages forward from a place", () => {
  const first = pageOf(span(3, 9), { epoch: "e", seq: 2 }, 4);
  assertEquals(short(first), { seq: 6, recovered: true, seqs: [3, 4, 5, 6] });
  const second = pageOf(span(7, 9), first, 4);
  assertEquals(short(second), { seq: 9, recovered: true, seqs: [7, 8, 9] });
  assertEquals(short(pageOf(span(10, 9), second, 4)), { seq: 9, recovered: true, seqs: [] });
});

Deno.test("pageOf() goes on from the oldest kept where the place is gone", () => {
  const page = pageOf(span(5, 9), { epoch: "e", seq: 2 }, 2);
  assertEquals(short(page), { seq: 6, recovered: false, seqs: [5, 6] });
});

Deno.test("pageOf() gives the newest without a place, or with one that is unknown", () => {
  const newest = { seq: 9, seqs: [8, 9] };
  assertEquals(short(pageOf(span(1, 9), undefined, 2)), { ...newest, recovered: true });
  for (const after of [{ epoch: "f", seq: 2 }, { epoch: "e", seq: 10 }]) {
    assertEquals(short(pageOf(span(1, 9), after, 2)), { ...newest, recovered: false });
  }
  assertEquals(short(pageOf(span(1, 0), undefined, 2)), { seq: 0, recovered: true, seqs: [] });
});

Deno.test("pageBefore() gives the messages below a cursor, and where to ask next", () => {
  const page = (seq: number, limit: number) =>
    short(pageBefore(span(1, 9), { epoch: "e", seq }, limit));
  assertEquals(page(10, 4), { seq: 6, recovered: true, seqs: [6, 7, 8, 9] });
  assertEquals(page(6, 4), { seq: 2, recovered: true, seqs: [2, 3, 4, 5] });
  assertEquals(page(2, 4), { seq: 1, recovered: true, seqs: [1] });
  assertEquals(page(1, 4), { seq: 1, recovered: true, seqs: [] });
});

Deno.test("pageBefore() tells where older ones are gone that the page should have", () => {
  const page = (seq: number, limit: number) =>
    short(pageBefore(span(5, 9), { epoch: "e", seq }, limit));
  assertEquals(page(8, 3), { seq: 5, recovered: true, seqs: [5, 6, 7] });
  assertEquals(page(8, 4), { seq: 5, recovered: false, seqs: [5, 6, 7] });
  assertEquals(page(5, 4), { seq: 5, recovered: false, seqs: [] });
  assertEquals(page(3, 4), { seq: 3, recovered: false, seqs: [] });
});

Deno.test("pageBefore() gives the newest where the cursor is of another epoch or ahead", () => {
  const newest = { seq: 8, recovered: false, seqs: [8, 9] };
  assertEquals(short(pageBefore(span(1, 9), { epoch: "f", seq: 3 }, 2)), newest);
  assertEquals(short(pageBefore(span(1, 9), { epoch: "e", seq: 11 }, 2)), newest);
  const nothing = short(pageBefore(span(1, 0), { epoch: "f", seq: 3 }, 2));
  assertEquals(nothing, { seq: 1, recovered: false, seqs: [] });
});

Deno.test("pageBefore() keeps to a size, but gives one message at least, and goes on from there", () => {
  const weight = 192 + "Ann".length + 1_000;
  const long = span(1, 5, "x".repeat(1_000));
  const page = (seq: number, maxBytes: number) =>
    short(pageBefore(long, { epoch: "e", seq }, 9, maxBytes));
  assertEquals(page(6, 2 * weight), { seq: 4, recovered: true, seqs: [4, 5] });
  assertEquals(page(4, 10), { seq: 3, recovered: true, seqs: [3] });
});

Deno.test("CLOSE fits into Close frames", () => {
  // RFC 6455, 5.5: a control frame holds 125 bytes, two of them the code.
  for (const { code, reason } of Object.values(CLOSE)) {
    assert(code >= 1000 && code <= 1014);
    assert(new TextEncoder().encode(reason).length <= 123);
  }
});

Deno.test("HttpError.toResponse() is the JSON error of the protocol, with the error's headers", async () => {
  const error = new HttpError(503, "full", "The server is full.", { "retry-after": "5" });
  assertInstanceOf(error, Error);
  const response = error.toResponse();
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("content-type"), "application/json");
  assertEquals(response.headers.get("retry-after"), "5");
  assertEquals(await response.json(), {
    type: "error",
    code: "full",
    message: "The server is full.",
  });
});
