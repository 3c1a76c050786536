import { assert, assertEquals, assertThrows } from "@std/assert";
import { Budget, FairShare } from "../../handlers/engine/budget.ts";
import { DEDUPE_MS, DedupeTable, IDS_PER_SESSION } from "../../handlers/engine/dedupe.ts";
import type { IdempotencyKey } from "../../handlers/engine/engine.ts";
import { History } from "../../handlers/engine/history.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { checkRoomRules, roomLimits } from "../../handlers/engine/room_rules.ts";
import { memoryEngine } from "../../handlers/parley.ts";
import type { Chat } from "../../handlers/protocol/room_event.ts";
import { OptionError } from "../../handlers/util/option_error.ts";
import { FakeClock } from "../support/fakes.ts";
import { granted } from "../support/recorder.ts";
import { draft, range, ROOMY } from "./contract.ts";

function chat(seq: number, time = seq, message = "x"): Chat {
  return { seq, time, sender: "Ann", message };
}

function historyOf(count: number, historySize = 100) {
  const budget = new Budget(1_000_000);
  const history = new History({ historySize, historySeconds: 10 }, budget);
  for (const seq of range(1, count)) history.append(chat(seq, seq * 1_000));
  return { budget, history };
}

function seqs(chats: Chat[]): number[] {
  return chats.map((chat) => chat.seq);
}

Deno.test("History.since() gives what follows a number, oldest first", () => {
  const { history } = historyOf(5);
  assertEquals(seqs(history.since(0)), [1, 2, 3, 4, 5]);
  assertEquals(seqs(history.since(3)), [4, 5]);
  assertEquals(seqs(history.since(5)), []);
  assertEquals(seqs(history.since(9)), []);
  assertEquals(history.seq, 5);
});

Deno.test("History keeps the newest HISTORY_SIZE messages, however many there were", () => {
  const { history } = historyOf(1_000, 3);
  assertEquals(seqs(history.since(0)), [998, 999, 1_000]);
  assertEquals(seqs(history.since(998)), [999, 1_000]);
});

Deno.test("History of size 0 keeps the number alone", () => {
  const { history, budget } = historyOf(4, 0);
  assertEquals([history.seq, history.since(0), budget.bytes], [4, [], 0]);
});

Deno.test("History.expire() drops what is older than HISTORY_SECONDS, and no more", () => {
  const { history } = historyOf(5);
  history.expire(12_000);
  assertEquals(seqs(history.since(0)), [2, 3, 4, 5]);
  history.expire(60_000);
  assertEquals([history.seq, history.since(0)], [5, []]);
});

Deno.test("History.dropOldest() drops one message until none is left", () => {
  const { history } = historyOf(2);
  assertEquals([history.dropOldest(), seqs(history.since(0))], [true, [2]]);
  assertEquals([history.dropOldest(), history.dropOldest()], [true, false]);
  history.append(chat(3));
  assertEquals(seqs(history.since(0)), [3]);
});

Deno.test("History counts its bytes in the budget and gives them back", () => {
  const { history, budget } = historyOf(50, 10);
  const { bytes } = budget;
  history.append(chat(51, 51_000, "x".repeat(1_000)));
  assertEquals(budget.bytes - bytes, 2 * 999);
  history.clear();
  assertEquals([budget.bytes, history.seq, history.since(0)], [0, 51, []]);
});

// roomRules: what is kept of some rooms, by name or prefix.

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

Deno.test("FairShare.hasSpace() lets an address use half of what the others leave", () => {
  const share = new FairShare(100);
  const fill = (address: string) => {
    let own = 0;
    for (; share.hasSpace(1, address); own++) share.count(1, address);
    return own;
  };
  assertEquals(["a", "b", "c", "a"].map(fill), [50, 25, 12, 0]);
  share.count(-50, "a");
  assertEquals(fill("d"), 31);
});

Deno.test("FairShare.hasSpace() without an address asks for the whole alone", () => {
  const share = new FairShare(10);
  share.count(9);
  assertEquals([share.hasSpace(1), share.hasSpace(2), share.hasSpace(1, "a")], [
    true,
    false,
    false,
  ]);
});

Deno.test("BySize.largest() is one with at least half of the bytes of any other", () => {
  const budget = new Budget(1_000_000);
  const limits = { historySize: 1_000, historySeconds: 10 };
  const histories = range(1, 40).map(() => new History(limits, budget));
  const bytes = histories.map(() => 0);
  assertEquals(budget.histories.largest(), undefined);
  // A walk that can be played again: grows and shrinks each of them many times.
  let state = 1;
  for (let step = 1; step <= 5_000; step++) {
    state = (state * 48_271) % 2_147_483_647;
    const index = state % histories.length;
    const before = budget.bytes;
    const message = "x".repeat(state % 3_000);
    if (state % 5 < 3) histories[index].append({ seq: step, time: step, sender: "Ann", message });
    else histories[index].dropOldest();
    bytes[index] += budget.bytes - before;
    const largest = budget.histories.largest();
    const most = Math.max(...bytes);
    if (most === 0) assertEquals(largest, undefined);
    else assert(bytes[histories.indexOf(largest as History)] > most / 2);
  }
  for (const history of histories) history.clear();
  assertEquals([budget.bytes, budget.histories.largest()], [0, undefined]);
});

function tableOf(maxBytes = 1_000_000) {
  const budget = new Budget(maxBytes);
  return { budget, table: new DedupeTable(budget) };
}

function key(id: string | number, digest?: string, session = "s"): IdempotencyKey {
  return { session, id: `${id}`, digest };
}

Deno.test("DedupeTable.find() knows an id for five minutes", () => {
  const { table } = tableOf();
  assertEquals(table.find(key("a"), 0), undefined);
  table.remember(key("a"), 7, 1_000);
  assertEquals(table.find(key("a"), 1_000), { seq: 7 });
  assertEquals(table.find(key("a"), 1_000 + DEDUPE_MS - 1), { seq: 7 });
  assertEquals(table.find(key("a"), 1_000 + DEDUPE_MS), undefined);
  assertEquals(table.find(key("b"), 1_000), undefined);
  assertEquals(table.find(key("a", undefined, "t"), 1_000), undefined);
});

Deno.test("DedupeTable.find() finds a conflict where the digest differs", () => {
  const { table } = tableOf();
  table.remember(key("a", "d1"), 7, 0);
  assertEquals(table.find(key("a", "d1"), 1), { seq: 7 });
  assertEquals(table.find(key("a", "d2"), 1), "conflict");
  assertEquals(table.find(key("a"), 1), "conflict");
  assertEquals(table.find(key("a", "d2"), DEDUPE_MS), undefined);
});

Deno.test("DedupeTable.remember() forgets a session's oldest id beyond 1,000, but none with a digest", () => {
  for (const digest of [undefined, "d"]) {
    const { table } = tableOf();
    table.remember(key("other", undefined, "t"), 1, 0);
    for (const id of range(0, IDS_PER_SESSION)) table.remember(key(id, digest), id + 2, 0);
    assertEquals(table.find(key(0, digest), 1), digest ? { seq: 2 } : undefined);
    assertEquals(table.find(key(1, digest), 1), { seq: 3 });
    assertEquals(table.find(key("other", undefined, "t"), 1), { seq: 1 });
  }
});

Deno.test("DedupeTable.hasSpace() holds ids to an eighth of the budget, those with a digest to another", () => {
  const { table, budget } = tableOf(80_000);
  const fill = (digest?: string) => {
    const share = digest === undefined ? budget.ids : budget.pinnedIds;
    let count = 0;
    while (table.hasSpace(key(count, digest, digest))) {
      table.remember(key(count++, digest, digest), count, 0);
    }
    assert(count > 50 && share.used <= 10_000, `${count} ids, ${share.used} bytes`);
  };
  fill("digest");
  fill();
  assertEquals(budget.bytes, budget.ids.used + budget.pinnedIds.used);
  table.expire(DEDUPE_MS);
  assert(table.hasSpace(key("again")) && table.hasSpace(key("again", "digest")));
});

Deno.test("DedupeTable.hasSpace() leaves each address half of what the others leave of the share for keys", () => {
  const { table, budget } = tableOf(80_000);
  const fill = (address: string) => {
    const before = budget.pinnedIds.used;
    for (let n = 0; table.hasSpace(key(`${address} ${n}`, "digest"), address); n++) {
      table.remember(key(`${address} ${n}`, "digest"), 1, 0, address);
    }
    return (budget.pinnedIds.used - before) / 10_000;
  };
  const shares = ["a", "b", "c"].map(fill);
  for (const [i, share] of shares.entries()) {
    const most = 0.5 ** (i + 1);
    assert(share <= most && share > 0.7 * most, `${shares}`);
  }
  assertEquals(fill("a"), 0);
  assert(table.hasSpace(key("no digest"), "a"));
});

Deno.test("DedupeTable.expire() and clear() give back every byte, to every share", () => {
  const { table, budget } = tableOf();
  for (const id of range(1, 20)) {
    table.remember(key(id, undefined, `s${id % 3}`), id, id);
    table.remember(key(id, "digest", "http"), id, id, `address ${id % 2}`);
  }
  table.remember(key(1, undefined, "s1"), 1, 30);
  table.expire(DEDUPE_MS + 10);
  assertEquals(table.find(key(11, undefined, "s2"), DEDUPE_MS + 10), { seq: 11 });
  assertEquals(table.find(key(1, undefined, "s1"), DEDUPE_MS + 10), { seq: 1 });
  assert(budget.bytes > 0 && budget.bytes === budget.ids.used + budget.pinnedIds.used);
  table.clear();
  assertEquals([budget.bytes, budget.ids.used, budget.pinnedIds.used], [0, 0, 0]);
});
