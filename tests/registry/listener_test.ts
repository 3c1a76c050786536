import { assertEquals } from "@std/assert";
import type { RoomEvent } from "../../handlers/protocol/room_event.ts";
import type { Connection } from "../../handlers/registry/connection.ts";
import { type Reader, tellBytes, tellEvent } from "../../handlers/registry/listener.ts";

function connection(dialect: "plain" | "v1") {
  const heard: unknown[] = [];
  const hear = (frame: unknown) => heard.push(frame);
  const fake = {
    dialect,
    id: "1",
    homeRoom: "ops",
    send: hear,
    tell: hear,
    flush() {},
    untoldLimits() {},
  };
  return { heard, listener: fake as unknown as Connection };
}

function reader() {
  const heard: unknown[][] = [];
  const listener: Reader = {
    dialect: "events",
    hasEnded: false,
    welcome: (...told) => heard.push(["welcome", ...told]),
    chat: (...told) => heard.push(["chat", ...told]),
  };
  return { heard, listener };
}

const CHAT: RoomEvent = {
  type: "chat",
  chat: { seq: 7, time: 5, sender: "Ann", message: '"hi"' },
};
const RESET: RoomEvent = { type: "reset", epoch: "e2", seq: 0, members: 3 };
const STATUS: RoomEvent = { type: "status", event: "join", name: "Ann", members: 1 };
const BYTES: RoomEvent = { type: "binary", bytes: new Uint8Array([1]), from: "2" };
const V1_CHAT = '{"type":"chat","room":"ops","seq":7,"time":5,"sender":"Ann","message":"hi"}';
const WELCOME =
  '{"type":"welcome","room":"ops","epoch":"e2","seq":0,"members":3,"recovered":false}';

Deno.test("tellEvent() tells a plain socket chats, statuses and bytes, in its own words", () => {
  const { heard, listener } = connection("plain");
  for (const event of [CHAT, RESET, STATUS, BYTES]) tellEvent(listener, "ops", "e1", event);
  assertEquals(heard, [
    '{"type":"chat","sender":"Ann","message":"hi"}',
    '{"type":"status","message":"Ann joined the chat."}',
    new Uint8Array([1]),
  ]);
});

Deno.test("tellEvent() tells a parley.v1 socket all, a new epoch too", () => {
  const { heard, listener } = connection("v1");
  for (const event of [CHAT, RESET, STATUS, BYTES]) tellEvent(listener, "ops", "e1", event);
  assertEquals(heard, [
    V1_CHAT,
    WELCOME,
    '{"type":"status","room":"ops","event":"join","name":"Ann","members":1,' +
    '"message":"Ann joined the chat."}',
    new Uint8Array([1]),
  ]);
});

Deno.test("tellEvent() tells an event stream messages with their place, and a new epoch", () => {
  const { heard, listener } = reader();
  for (const event of [CHAT, RESET, STATUS, BYTES]) tellEvent(listener, "ops", "e1", event);
  assertEquals(heard, [["chat", V1_CHAT, "e1", 7], ["welcome", WELCOME, "e2", 0]]);
});

Deno.test("tellBytes() spares the sender, and who hears the room from another URL", () => {
  const { heard, listener } = connection("v1");
  tellBytes(listener, "ops", new Uint8Array([1]), "1");
  tellBytes(listener, "other", new Uint8Array([2]), "2");
  tellBytes(listener, "ops", new Uint8Array([3]), "2");
  assertEquals(heard, [new Uint8Array([3])]);
});
