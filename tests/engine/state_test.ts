/** A room's state in the memory engine: what it costs, when it goes, and any schedule of it against a model. */
import { assert, assertEquals } from "@std/assert";
import { type Change, isRefusal } from "../../handlers/engine/engine.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import type { HistoryLimits } from "../../handlers/engine/room_rules.ts";
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import { remoteEngine } from "../../handlers/engine/remote.ts";
import { shareEngine } from "../../handlers/engine/shared.ts";
import { StateMap } from "../../handlers/engine/state_map.ts";
import type { StateCursor } from "../../handlers/protocol/position.ts";
import type { Span } from "../../handlers/protocol/page.ts";
import type { StateSpan } from "../../handlers/protocol/room_event.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { FakeClock } from "../support/fakes.ts";
import { MemoryStore } from "../support/memory_store.ts";
import { sized } from "../support/run.ts";
import { SCHEDULE_LIMITS, schedules } from "./state_schedule.ts";
import { ROOMY } from "./contract.ts";

/** A memory engine, and calls of it that answer at once. */
function stage(limits: Partial<HistoryLimits> = {}) {
  const clock = new FakeClock();
  const engine = createMemoryEngine({ ...ROOMY, ...limits }, clock);
  const set = (change: Partial<Change>, room = "r") => {
    const whole = { key: "k", value: "1", sender: "Ann", ...change };
    return engine.set(room, whole) as StateCursor | { refused: string; rev?: number };
  };
  const state = (since?: StateCursor) => engine.state("r", since) as StateSpan;
  return { clock, engine, set, state };
}

const values = ({ entries }: StateSpan) => entries.map(({ key, value }) => [key, value]);

Deno.test("one owner has at most an eighth of the state, all together half of HISTORY_MB", () => {
  const { set, engine } = stage({ historyMb: 1, maxKeys: 10_000, maxStateBytes: 1e9 });
  const value = JSON.stringify("x".repeat(1_000));
  const fill = (owner: string) => {
    for (let count = 0;; count++) {
      const answer = set({ key: `${owner}/${count}`, value, owner }, `room-${owner}`);
      if (isRefusal(answer)) return [answer.refused, count];
    }
  };
  const [refused, count] = fill("a");
  assertEquals(refused, "too_many_keys");
  assert(count as number >= 24 && count as number <= 31, `${count} keys of 2 kB in 62 kB`);
  for (const owner of "bcdefgh") fill(owner);
  const [, left] = fill("z");
  assert(left as number < 24, "only what the others' shares left over");
  assert(engine.stats().historyBytes <= 500_000, `${engine.stats().historyBytes} bytes`);
  // Whoever sets another's key pays for it.
  const taken = "bc".split("").flatMap((owner) =>
    Array.from(
      { length: 24 },
      (_, i) => set({ key: `${owner}/${i}`, value, owner: "z" }, `room-${owner}`),
    )
  ).filter((answer) => !isRefusal(answer)).length;
  assert(taken + (left as number) <= 31, `${taken} taken`);
  // What is removed makes space.
  set({ key: "a/0", value: "null", owner: "a" }, "room-a");
  assertEquals(isRefusal(set({ key: "a/1", value: '"y"', owner: "a" }, "room-a")), false);
});

Deno.test("no history pays for keys: beyond what is free, state has an eighth of HISTORY_MB", () => {
  const { set, engine } = stage({ historyMb: 0.1, historySize: 10_000, maxStateBytes: 1e9 });
  const publish = (i: number) =>
    engine.publish(`room-${i % 10}`, { sender: "Ann", message: `"${"x".repeat(100)}${i}"` });
  const kept = () =>
    Array.from({ length: 10 }, (_, i) => (engine.read(`room-${i}`) as Span).chats.length);
  for (let i = 0; i < 1_000; i++) publish(i);
  const before = kept();
  const answers = Array.from({ length: 100 }, (_, i) => set({ key: `k${i}` }));
  const made = answers.filter((answer) => !isRefusal(answer)).length;
  assert(made > 20 && made < 50, `${made} keys of 300 bytes in 12,500`);
  assertEquals(kept(), before);
  assertEquals(answers.at(-1), { refused: "too_many_keys" });
});

Deno.test("a room that goes gives back all the bytes of its state", () => {
  const { set, engine, clock } = stage({ historySeconds: 10 });
  for (let i = 0; i < 50; i++) set({ key: `k${i}`, ttlSeconds: 60, owner: "a" });
  for (let i = 0; i < 20; i++) set({ key: `k${i}`, value: "null", owner: "b" });
  assert(engine.stats().historyBytes > 0);
  clock.tick(20_000);
  assertEquals(engine.stats(), { rooms: 0, historyBytes: 0, isFull: false });
  const { timerCount } = clock;
  clock.tick(120_000);
  assertEquals(clock.timerCount, timerCount - 1, "the timer of the keys has ended");
});

Deno.test("any number of keys with a ttl go by one timer, each once", () => {
  const { set, state, clock } = stage();
  const { timerCount } = clock;
  for (let i = 0; i < 1_000; i++) set({ key: `k${i}`, ttlSeconds: 1 + i % 3 });
  assertEquals(clock.timerCount, timerCount + 1);
  clock.tick(1_000);
  assertEquals(state().entries.length, 666);
  // Set again, it lives as long as that says.
  set({ key: "k2", ttlSeconds: 10 });
  set({ key: "k5" });
  clock.tick(3_000);
  assertEquals(values(state()), [["k2", "1"], ["k5", "1"]]);
  assertEquals(state().rev, 1_000 + 2 + 998);
});

Deno.test("no read shows what is over, and a removal of nothing leaves nothing", () => {
  const { set, state, clock, engine } = stage();
  clock.tick(50);
  set({ ttlSeconds: 1 });
  clock.tick(1_000);
  assertEquals(state().entries, []);
  set({ ttlSeconds: 1 });
  clock.tick(1_000);
  assertEquals(isRefusal(set({ if: 0 })), false);
  set({ value: "null" }, "other");
  assertEquals(engine.stats().rooms, 1);
});

Deno.test("what is over takes no space, though its timer is late", () => {
  const { set, state, clock } = stage({ maxKeys: 1 });
  set({ key: "old", ttlSeconds: 60 });
  assertEquals(set({ key: "new" }), { refused: "too_many_keys" });
  // The system's clock is set: timers come by the other one.
  clock.setByMs = 60_000;
  assertEquals(isRefusal(set({ key: "new" })), false);
  assertEquals(values(state()), [["new", "1"]]);
});

Deno.test("StateMap knows the last 1,000 removals", () => {
  const map = new StateMap();
  let rev = 0;
  const apply = (key: string, value: string) => {
    map.apply({ key, value, sender: "", time: 0, rev: ++rev });
    map.trim();
  };
  for (let i = 0; i < 1_500; i++) apply(`k${i}`, "1");
  for (let i = 0; i < 1_001; i++) apply(`k${i}`, "null");
  assertEquals([map.knows(1_500), map.knows(1_501), map.knows(rev + 1)], [false, true, false]);
  assertEquals(map.since(1_501).length, 1_000);
  assertEquals(map.size, 499);
});

schedules("memory", 2_000, (stack) => {
  const clock = new FakeClock();
  const engine = createMemoryEngine(SCHEDULE_LIMITS, clock);
  stack.defer(() => engine.close());
  return { nodes: [engine], clock };
});

schedules("threads that die", sized(100, 2_000), (stack) => {
  const clock = new FakeClock();
  const shared = shareEngine(createMemoryEngine(SCHEDULE_LIMITS, clock));
  stack.defer(() => shared.close());
  const stops: (() => void)[] = [];
  const add = (index: number) => {
    const { port1, port2 } = new MessageChannel();
    stops[index] = shared.serve(port1);
    return remoteEngine(port2);
  };
  const nodes = [shared.here, add(1), add(2)];
  const kill = (index: number) => {
    if (index === 0) return Promise.resolve(false);
    stops[index]();
    nodes[index] = add(index);
    return Promise.resolve(true);
  };
  return { nodes, clock, kill };
});

schedules("a store that outlives its process", sized(100, 2_000), async (stack) => {
  const clock = new FakeClock();
  let store = new MemoryStore();
  const open = () =>
    createDurableEngine("memory", SCHEDULE_LIMITS, clock, silentLog, (_file, take) => {
      store.read(take);
      return Promise.resolve(store);
    });
  const nodes = [await open()];
  stack.defer(() => nodes[0].close());
  const kill = async () => {
    store = store.killed();
    nodes[0] = await open();
    return true;
  };
  return { nodes, clock, kill };
});
