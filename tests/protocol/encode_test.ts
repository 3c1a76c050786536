import { assert, assertEquals } from "@std/assert";
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
import type { RoomEvent } from "../../handlers/protocol/room_event.ts";
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
