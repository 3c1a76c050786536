import { assert, assertEquals } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { type ErrorCode, plain, v1 } from "../../handlers/protocol/encode.ts";
import {
  type ClientMessage,
  isPersonName,
  isRoomName,
  isServerRoom,
  parse,
} from "../../handlers/protocol/parse.ts";
import { encodeJson, isShallow, parseJson } from "../../handlers/protocol/json.ts";

/** Reads an object without the keys that are not there. */
function read(object: unknown, dialect: typeof plain): Record<string, unknown> {
  const text = typeof object === "string" ? object : JSON.stringify(object);
  return JSON.parse(JSON.stringify(parse(text, dialect)));
}

function bad(code: ErrorCode, about: { id?: string; room?: string } = {}): ClientMessage {
  return { type: "bad", code, ...about };
}

/** JSON of arrays in arrays, `depth` deep. */
const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);

Deno.test("isRoomName() takes 1 to 64 of the protocol's characters", () => {
  for (const name of ["a", "lobby", "_stats", "A-Z.0_9:x", "...", "-", "r".repeat(64)]) {
    assert(isRoomName(name), name);
  }
  const bad = ["", " ", "a b", "a/b", "é", "방", "a\n", "\na", "a%20b", "r".repeat(65), 7, null];
  for (const name of [...bad, undefined, ["a"], { toString: () => "a" }]) {
    assert(!isRoomName(name), String(name));
  }
});

Deno.test("isServerRoom() knows the server's own rooms by their first character", () => {
  assert(isServerRoom("_stats"));
  assert(!isServerRoom("stats_"));
});

Deno.test("isPersonName() takes 1 to 64 characters of any script, emoji as one", () => {
  for (const name of ["Ann", "김민준", " ", "👩‍🚀", "\u200bx", "n".repeat(64), "😀".repeat(64)]) {
    assert(isPersonName(name), name);
  }
});

Deno.test("isPersonName() refuses control characters, line ends, bidi marks and lone surrogates", () => {
  const units = ["\0", "\n", "\x1f", "\x7f", "\x85", "\u2028", "\u2029", "\u202a", "\u202e"];
  for (const unit of [...units, "\u2066", "\u2069", "\ud800", "\udfff"]) {
    assert(!isPersonName(`a${unit}b`), JSON.stringify(unit));
    assert(!isPersonName(unit), JSON.stringify(unit));
  }
  for (const unit of ["\u2027", "\u202f", "\u2065", "\u206a"]) assert(isPersonName(unit));
  for (const name of ["", "n".repeat(65), "😀".repeat(65), 7, null, undefined, ["Ann"], {}]) {
    assert(!isPersonName(name), String(name));
  }
});

Deno.test("parse() reads a plain join and chat, and nothing more", () => {
  assertEquals(read({ type: "join", name: "Ann" }, plain), { type: "join", name: "Ann" });
  assertEquals(read({ type: "join" }, plain), { type: "join" });
  assertEquals(read({ type: "chat", message: "hi" }, plain), { type: "chat", message: "hi" });
  assertEquals(read({ type: "chat" }, plain), { type: "chat", message: "" });
  const more = { room: "ops", id: "1", session: "s".repeat(16), after: "e:1" };
  assertEquals(read({ type: "join", name: "Ann", ...more }, plain), {
    type: "join",
    name: "Ann",
  });
  assertEquals(read({ type: "chat", message: 1, ...more }, plain), { type: "chat", message: 1 });
  for (const type of ["members", "ping", "listen", "leave", "token", "status", "", 1, null]) {
    assertEquals(read({ type, room: "ops", token: "x" }, plain), bad("bad_message"));
  }
});

Deno.test("parse() keeps any JSON value of a message", () => {
  fc.assert(fc.property(fc.jsonValue({ maxDepth: 5 }), (message) => {
    for (const dialect of [plain, v1]) {
      const text = JSON.stringify({ type: "chat", message });
      const parsed = parse(text, dialect);
      assert(parsed.type === "chat");
      assertEquals(JSON.stringify(parsed.message), JSON.stringify(message));
    }
  }));
});

Deno.test("parse() tells text that is no JSON from JSON of another shape", () => {
  const notJson = ["", "hi", "{", '{"type":"join",}', "{'type':'join'}", "\ufeff{}", "undefined"];
  const otherShape = ["null", "1", '"join"', "[]", '[{"type":"join"}]', "{}", '{"type":"Join"}'];
  for (const dialect of [plain, v1]) {
    for (const text of notJson) assertEquals(read(text, dialect), bad("bad_json"), text);
    for (const text of otherShape) assertEquals(read(text, dialect), bad("bad_message"), text);
  }
});

Deno.test("parse() refuses a name that is none, in both dialects", () => {
  for (const name of ["", null, 7, true, ["Ann"], {}, "a\nb", "n".repeat(65)]) {
    assertEquals(read({ type: "join", name }, plain), bad("bad_name"));
    assertEquals(read({ type: "join", name, room: "ops" }, v1), bad("bad_name", { room: "ops" }));
  }
});

Deno.test("parse() refuses a message that nests too deep to encode", () => {
  const chat = (message: string) => `{"type":"chat","id":"1","message":${message}}`;
  assertEquals(parse(chat(nested(100)), plain).type, "chat");
  assertEquals(read(chat(nested(101)), plain), bad("bad_message"));
  assertEquals(read(chat(nested(20_000)), v1), bad("bad_message", { id: "1" }));
});

Deno.test("parse() takes __proto__ and constructor as plain keys", () => {
  const text = '{"type":"chat","message":{"__proto__":{"a":1},"constructor":2}}';
  const parsed = parse(text, plain);
  assert(parsed.type === "chat");
  assertEquals(JSON.stringify(parsed.message), '{"__proto__":{"a":1},"constructor":2}');
  assertEquals(read('{"__proto__":{"type":"join"}}', plain), bad("bad_message"));
});

Deno.test("parse() reads every object of parley.v1", () => {
  const session = "s".repeat(16);
  const join = { type: "join", name: "Ann", room: "ops", after: "e:1", session };
  assertEquals(read(join, v1), join);
  assertEquals(read({ type: "join" }, v1), { type: "join" });
  for (
    const object of [
      { type: "listen", room: "ops", after: "e:1" },
      { type: "listen", room: "ops" },
      { type: "leave" },
      { type: "leave", room: "ops" },
      { type: "chat", message: { a: 1 }, room: "ops", id: "1" },
      { type: "members" },
      { type: "members", room: "ops" },
      { type: "ping", id: "i".repeat(64) },
      { type: "ping" },
      { type: "token", token: "t" },
    ]
  ) assertEquals(read(object, v1), object);
  assertEquals(read({ type: "ping", more: 1 }, v1), { type: "ping" });
  const note = { type: "note", message: 1, room: "ops" };
  assertEquals(read({ ...note, id: "1" }, v1), note, "a note has no answer that could name it");
});

Deno.test("parse() tells what an error of parley.v1 is about", () => {
  for (const id of ["", "i".repeat(65), 7, null]) {
    assertEquals(read({ type: "chat", message: "", id }, v1), bad("bad_message"));
  }
  for (const room of ["", "a b", 7, null]) {
    assertEquals(read({ type: "chat", room, id: "1" }, v1), bad("bad_room", { id: "1" }));
  }
  assertEquals(read({ type: "listen", id: "1" }, v1), bad("bad_message", { id: "1" }));
  assertEquals(read({ type: "token", room: "ops" }, v1), bad("bad_message", { room: "ops" }));
  for (const session of ["s".repeat(15), "s".repeat(65), 7, null]) {
    assertEquals(read({ type: "join", name: "Ann", session }, v1), bad("bad_message"));
  }
  assertEquals(read({ type: "shout", id: "1", room: "ops" }, v1), {
    ...bad("bad_message", { id: "1", room: "ops" }),
  });
});

Deno.test("parse() refuses what a number cannot hold, and keeps all others", () => {
  for (
    const number of [
      "9007199254740993",
      "-9007199254740993",
      "9007199254740993.0",
      "9.007199254740993e15",
      "9223372036854775808",
      "12345678901234567.89",
      "1234567890.123456789",
      "0.1000000000000000055511151231257827",
      "0.0123456789012345678",
      "0.12345678901234567",
      "1.23456e-322",
      "1".repeat(400),
      "1e400",
      "-1.5E-400",
      `0.${"0".repeat(400)}1`,
    ]
  ) {
    for (const message of [number, `[{"a":${number}}]`]) {
      assertEquals(read(`{"type":"chat","message":${message}}`, v1), bad("bad_message"));
      assertEquals(read(`{"type":"note","message":${message}}`, v1), bad("bad_message"));
      const set = `{"type":"set","key":"k","value":${message}}`;
      assertEquals(read(set, v1), bad("bad_message"));
    }
  }
  for (
    const text of [
      "9007199254740992",
      "1764057600000000",
      "1e300",
      "1e-300",
      "0e-400",
      "0.12345678901234568",
      "0.10000000000000001",
      "-1.2345678901234566e+25",
      "1.2345678901234566E-07",
      "5e-324",
      "123456789012345680000",
      "100000000000000000000.000",
      "0.000000000000000000000",
    ]
  ) {
    assertEquals(read(`{"type":"chat","message":${text}}`, v1).message, Number(text));
  }
  const texts = ["9007199254740993", "1.5e-400", "1.1.1.1.1.1.1.1.1.1.1", "4111 1111 1111 1111.00"];
  const text = { type: "chat", message: texts, id: "12345678901234567.89" };
  assertEquals(read(text, v1), text);
});

Deno.test("isShallow() counts the depth of arrays and objects", () => {
  assert(isShallow("text", 0));
  assert(!isShallow([], 0));
  assert(isShallow([{ a: [1] }], 3));
  assert(!isShallow([{ a: [[]] }], 3));
  assert(isShallow(JSON.parse(nested(100))));
  assert(!isShallow(JSON.parse(nested(101))));
});

Deno.test("parseJson() keeps every double, as JSON prints it and in 17 digits", () => {
  const bits = crypto.getRandomValues(new BigUint64Array(8_000));
  const doubles = [...new Float64Array(bits.buffer)].filter(Number.isFinite);
  doubles.push(...bits.subarray(0, 2_000).toString().split(",").map((text) => Number(`0.${text}`)));
  assertEquals(parseJson(JSON.stringify(doubles)), doubles);
  const seventeen = doubles.map((double) => double.toPrecision(17));
  assertEquals(parseJson(`[${seventeen}]`), doubles);
});

Deno.test("encodeJson() keeps the sign of a zero, wherever it stands", () => {
  for (
    const text of ["-0", "[-0]", '[0,{"a":{"0":-0},"b":"-0"}]', '{"x":-0,"y":0}', "[[[[1,-0]]]]"]
  ) {
    assertEquals(encodeJson(parseJson(text)), text);
  }
  for (const text of ["-0.0", "-0e5", "-0.000E-2"]) assertEquals(encodeJson(parseJson(text)), "-0");
});

Deno.test("encodeJson() is JSON.stringify() but for that", () => {
  const date = new Date(0);
  for (
    const value of [0, "0", ":0,", [0, "-0"], { a: 0, b: date, c: undefined }, null, undefined]
  ) {
    assertEquals(encodeJson(value), JSON.stringify(value));
  }
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    const text = encodeJson(value);
    assertEquals(encodeJson(JSON.parse(text)), text);
    assertEquals(text.replaceAll("-0", "0"), JSON.stringify(value).replaceAll("-0", "0"));
  }));
});
