// roomRules: what is kept of some rooms, by name or prefix.
import { assertEquals, assertThrows } from "@std/assert";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { checkRoomRules, roomLimits } from "../../handlers/engine/room_rules.ts";
import { memoryEngine } from "../../handlers/parley.ts";
import { OptionError } from "../../handlers/util/option_error.ts";
import { FakeClock } from "../support/fakes.ts";
import { granted } from "../support/recorder.ts";
import { draft, ROOMY } from "./contract.ts";

Deno.test("roomLimits() takes the first rule that fits, by name or prefix, else the limits of all", () => {
  const limitsOf = roomLimits({
    historySize: 100,
    historySeconds: 60,
    maxKeys: 1_000,
    roomRules: { "game:7": { history: 7 }, "game:*": { history: 0, seconds: 5, keys: 9 }, "*": {} },
  });
  const shown = (room: string) => {
    const { historySize, historySeconds, maxKeys } = limitsOf(room);
    return [historySize, historySeconds, maxKeys];
  };
  assertEquals(shown("game:7"), [7, 60, 1_000]);
  assertEquals(shown("game:77"), [0, 5, 9]);
  assertEquals(shown("game"), [100, 60, 1_000]);
});

Deno.test("roomLimits() keeps the shared rooms of the server, whatever the rules are", () => {
  const limits = { historySize: 1, historySeconds: 1, roomRules: { "*": { history: 0 } } };
  const limitsOf = roomLimits(limits);
  assertEquals(limitsOf("_stats").historySize, 1);
  for (const room of ["_events", "_bans"]) assertEquals(limitsOf(room).historySize, 10_000);
});

Deno.test("checkRoomRules() refuses what is no rule in one line, in code too", () => {
  const bad: [unknown, string][] = [
    [[], "must be an object of rules by room, is []"],
    [{ "a b": {} }, '"a b" is no room\'s name and no prefix*'],
    [{ "a*b": {} }, '"a*b" is no room\'s name and no prefix*'],
    [{ "": {} }, '"" is no room\'s name and no prefix*'],
    [{ _events: {} }, '"_events" is no room\'s name and no prefix*'],
    [{ a: 5 }, "a must be an object, is 5"],
    [{ a: { size: 5 } }, 'a has "size", a rule has history, seconds, keys'],
    [{ a: { keys: -1 } }, "keys of a must be a whole number from 0 to 1000000000, is -1"],
    [{ a: { history: "9" } }, 'history of a must be a whole number from 0 to 1000000000, is "9"'],
    [{ a: { seconds: 1.5 } }, "seconds of a must be a whole number from 0 to 1000000000, is 1.5"],
  ];
  for (const [roomRules, why] of bad) {
    assertThrows(() => checkRoomRules(roomRules), OptionError, `Cannot use roomRules: ${why}`);
    assertThrows(() => memoryEngine({ roomRules: roomRules as never }), OptionError);
  }
});

Deno.test("each room is dropped after its own seconds, in whatever order they became empty", async () => {
  const clock = new FakeClock();
  const roomRules = { "long:*": { seconds: 1_000 }, "short:*": { seconds: 10 } };
  const engine = createMemoryEngine({ ...ROOMY, historySeconds: 100, roomRules }, clock);
  for (const room of ["long:1", "usual", "short:1"]) {
    await granted(engine.publish(room, draft("x")));
  }
  const rooms = [20, 100, 1_000].map((seconds) => {
    clock.tick(seconds * 1_000);
    return engine.stats().rooms;
  });
  assertEquals(rooms, [2, 1, 0]);
});

Deno.test("over HISTORY_MB all rules bow: the room with the most gives first", async () => {
  const roomRules = { "big:*": { history: 1_000_000 } };
  const clock = new FakeClock();
  const engine = createMemoryEngine({ ...ROOMY, historyMb: 0.1, roomRules }, clock);
  await granted(engine.publish("usual", draft("first")));
  for (let i = 0; i < 500; i++) await granted(engine.publish("big:1", draft("x")));
  assertEquals((await granted(engine.read("usual"))).chats.length, 1);
  assertEquals(engine.stats().historyBytes <= 100_000, true);
  assertEquals((await granted(engine.read("big:1"))).chats.length < 500, true);
});
