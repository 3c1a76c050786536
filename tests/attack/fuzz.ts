/**
 * What a fuzzer says: messages that are nearly right, made of a seed.
 *
 * @module
 */
import { OPCODE } from "../support/clients.ts";
import type { Random } from "../support/random.ts";

const TYPES = ["join", "listen", "leave", "chat", "members", "ping", "token"];
/** The rooms in which the fuzzers meet. */
export const ROOMS = ["a", "b", "c.d", "e_f:g-h", "constructor", "x".repeat(64)];
const BAD_ROOMS = ["", " ", "_", "_x", "__proto__", "a b", "a/b", "x".repeat(65), "\0", "\u202ea"];
const NAMES = ["Ann", "\u{1F600}".repeat(64), "toString", "__proto__", "\u05d0", "<b>", '"\\'];
const BAD_NAMES = ["", "a\0", "\u202e", "\ud800", "x".repeat(65), "\u2028", "\n"];
const TEXTS = ["", "x", "\u{1F600}", "\ud83d", "\0", "\u2028\u2029", "\\u0000", '"}\n{"', "\r\n"];
const NUMBERS = [0, -0, 1e308, 1e-308, 2 ** 53, -1, 0.1, 123456789012345680000];
const KEYS = ["__proto__", "constructor", "toJSON", "type", "message", "length", "then", ""];
const JUNK = ["null", "1e999", "[1,]", "{", "}", "\ufeff{}", "'x'", "{}{}", "NaN", "\\", "01"];
const SYNTAX = '{}[]",:\\ \n0-.eE\u0000\u2028';

/** Any JSON value; deeper than `depth` only leaves. */
function value(random: Random, depth: number): unknown {
  switch (random.below(depth > 0 ? 9 : 6)) {
    case 0:
      return null;
    case 1:
      return random.chance(0.5);
    case 2:
      return random.pick(NUMBERS);
    case 3:
      return random.pick([...TEXTS, ...NAMES, ...BAD_ROOMS]);
    case 4:
      return random.below(1_000);
    case 5:
      return random.pick(TEXTS).repeat(random.below(50));
    case 6:
      return Array.from({ length: random.below(5) }, () => value(random, depth - 1));
    default:
      // As `JSON.parse` does it: `__proto__` is a key like others.
      return Object.fromEntries(
        Array.from(
          { length: random.below(4) },
          () => [random.pick(KEYS), value(random, depth - 1)],
        ),
      );
  }
}

/** Mostly one that is right, sometimes one that is not, seldom anything. */
function mostly(random: Random, good: readonly string[], bad: readonly string[]): unknown {
  const roll = random.next();
  return roll < 0.75 ? random.pick(good) : roll < 0.9 ? random.pick(bad) : value(random, 2);
}

/** A message of a client. */
function message(random: Random): unknown {
  const type = random.chance(0.95) ? random.pick(TYPES) : value(random, 1);
  const fields: [key: string, make: () => unknown, share: number][] = [
    ["room", () => mostly(random, ROOMS, BAD_ROOMS), 0.5],
    ["name", () => mostly(random, NAMES, BAD_NAMES), 0.7],
    ["message", () => value(random, 4), 0.8],
    ["id", () => mostly(random, ["1", "2", "x".repeat(64)], ["", "x".repeat(65), "\ud800"]), 0.3],
    ["session", () => mostly(random, ["s".repeat(16), "t".repeat(64)], ["s", "u".repeat(65)]), 0.2],
    ["after", () => mostly(random, ["abc:0", "abc:999999999999999"], ["", ":", "a:1e9"]), 0.2],
    ["token", () => mostly(random, ["a.b.c"], [""]), 0.1],
    [random.pick(KEYS), () => value(random, 2), 0.1],
  ];
  const said = fields.filter(([, , share]) => random.chance(share));
  return Object.fromEntries([["type", type], ...said.map(([key, make]) => [key, make()])]);
}

/** A text with some characters changed, lost, doubled, or another text's part in it. */
function mutate(random: Random, text: string, other: string): string {
  for (let times = 1 + random.below(3); times > 0; times--) {
    const at = random.below(text.length + 1);
    const end = at + random.below(8);
    const between = [
      "",
      random.pick([...SYNTAX]),
      text.slice(at, end).repeat(2),
      other.slice(random.below(other.length + 1)),
      String.fromCharCode(random.below(0x10000)),
    ];
    text = text.slice(0, at) + random.pick(between) + text.slice(random.chance(0.5) ? at : end);
  }
  return text;
}

/** A line: a message as JSON, changed or not, or something quite else. */
function line(random: Random): string {
  const text = JSON.stringify(message(random));
  const roll = random.next();
  if (roll < 0.6) return text;
  if (roll < 0.9) return mutate(random, text, JSON.stringify(message(random)));
  if (roll < 0.95) return random.pick(JUNK);
  const depth = random.below(3_000);
  const nested = "[".repeat(depth) + "]".repeat(random.chance(0.8) ? depth : random.below(9));
  return `{"type":"chat","message":${nested}}`;
}

/** A frame of a fuzzer: text of one line or several, or bytes. At most some 30 kB. */
export function fuzzFrame(random: Random): string | Uint8Array<ArrayBuffer> {
  const roll = random.next();
  if (roll < 0.05) return random.bytes(random.below(500));
  if (roll < 0.85) return line(random);
  const lines = Array.from({ length: 2 + random.below(4) }, () => line(random));
  return lines.join(random.pick(["\n", "\n", "\n\n", "\r\n", " "])).toWellFormed();
}

/** The bytes of a WebSocket frame that may be wrong in each of its parts. RFC 6455, 5.2. */
export function fuzzRawFrame(random: Random): Uint8Array {
  const payload = random.chance(0.7)
    ? new TextEncoder().encode(line(random)).subarray(0, 2_000)
    : random.bytes(random.below(200));
  const opcodes = Object.values(OPCODE);
  const opcode = random.chance(0.9) ? random.pick(opcodes) : random.below(16);
  const first = (random.chance(0.8) ? 0x80 : 0) | (random.chance(0.05) ? 0x70 : 0) | opcode;
  const length = random.chance(0.9) ? payload.length : random.below(2 ** 32);
  const width = random.chance(0.9)
    ? length < 126 ? 0 : length < 65_536 ? 2 : 8
    : random.pick([0, 2, 8]);
  const isMasked = random.chance(0.95);
  const header = new DataView(new ArrayBuffer(2 + width));
  header.setUint8(0, first);
  const short = width === 0 ? length & 127 : width === 2 ? 126 : 127;
  header.setUint8(1, (isMasked ? 0x80 : 0) | short);
  if (width === 2) header.setUint16(2, length & 0xffff);
  if (width === 8) {
    header.setUint32(2, random.chance(0.9) ? 0 : random.below(2 ** 32));
    header.setUint32(6, length);
  }
  const mask = isMasked ? random.bytes(4) : new Uint8Array(0);
  const masked = isMasked ? payload.map((byte, index) => byte ^ mask[index & 3]) : payload;
  const bytes = new Uint8Array([...new Uint8Array(header.buffer), ...mask, ...masked]);
  return random.chance(0.95) ? bytes : bytes.subarray(0, random.below(bytes.length));
}

const METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "get", "\0"];
const HEADERS = [
  "content-type: application/json",
  "content-length: 5",
  "transfer-encoding: chunked",
  "upgrade: websocket",
  "connection: Upgrade",
  "sec-websocket-version: 13",
  "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
  "sec-websocket-protocol: parley.v1, token.x",
  "idempotency-key: k",
  "last-event-id: a:1",
  "if-none-match: *",
  "origin: null",
  "expect: 100-continue",
  "range: bytes=0-1",
];

/** A request over HTTP/1.1, changed or not. */
export function fuzzRequest(random: Random): string {
  const room = random.pick([...ROOMS, ...BAD_ROOMS, "%00", "%", "%2e%2e", "..", "%F0%9F"]);
  const paths = ["/", "/echo", `/chat/${room}`, "/rooms", `/rooms/${room}/messages`, "/metrics"];
  const queries = [
    "",
    "?after=a:1",
    "?limit=1e9",
    "?limit=-1",
    "?history=1e99",
    "?token=%",
    "?&&=",
  ];
  const target = random.pick(paths) + random.pick(queries);
  const headers = HEADERS.filter(() => random.chance(0.3)).map((header) => `${header}\r\n`);
  const head = `${random.pick(METHODS)} ${target} HTTP/1.1\r\nhost: x\r\n${headers.join("")}\r\n`;
  const request = head + line(random);
  return random.chance(0.5) ? request : mutate(random, request, head);
}
