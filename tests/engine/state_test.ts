/** A room's state in the memory engine: what it costs, when it goes, and any schedule of it against a model. */
import { assert, assertEquals } from "@std/assert";
import { type Change, isRefusal } from "../../handlers/engine/engine.ts";
import { createMemoryEngine, type HistoryLimits } from "../../handlers/engine/memory.ts";
import { StateMap } from "../../handlers/engine/state_map.ts";
import type { StateCursor } from "../../handlers/protocol/position.ts";
import type { Entry, RoomEvent, StateSpan } from "../../handlers/protocol/room_event.ts";
import { FakeClock } from "../support/fakes.ts";
import { Random } from "../support/random.ts";
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

Deno.test("StateMap knows the last 1,000 removals", () => {
  const map = new StateMap();
  let rev = 0;
  const apply = (key: string, value: string) =>
    map.apply({ key, value, sender: "", time: 0, rev: ++rev });
  for (let i = 0; i < 1_500; i++) apply(`k${i}`, "1");
  for (let i = 0; i < 1_001; i++) apply(`k${i}`, "null");
  assertEquals([map.knows(1_500), map.knows(1_501), map.knows(rev + 1)], [false, true, false]);
  assertEquals(map.since(1_501).length, 1_000);
  assertEquals(map.size, 499);
});

Deno.test("any schedule leaves every subscriber with the room's map, at each rev it was told", () => {
  for (let seed = 0; seed < 2_000; seed++) checkSchedule(new Random(seed), seed);
});

/** What a subscriber has, and from where on. */
interface Copy {
  epoch: string;
  rev: number;
  map: Map<string, string>;
}

function checkSchedule(random: Random, seed: number): void {
  const { clock, engine } = stage({ maxKeys: 6 });
  /** The truth: key by key, with whom it goes and when. */
  const model = new Map<string, { value: string; rev: number; member?: string; endsAt: number }>();
  const history: Map<string, string>[] = [new Map()];
  const copy: Copy = { epoch: "", rev: 0, map: new Map() };
  let isConnected = false;
  const members = new Set<string>();
  const apply = ({ key, value, rev }: Entry) => {
    assertEquals(rev, history.length, `seed ${seed}: revs grow by 1`);
    if (value === "null") model.delete(key);
    const now = new Map(history.at(-1));
    if (value === "null") now.delete(key);
    else now.set(key, value);
    history.push(now);
  };
  const host = {
    listenerCount: 1,
    deliver(event: RoomEvent) {
      if (event.type !== "set") return;
      apply(event.entry);
      if (!isConnected) return;
      const { key, value, rev } = event.entry;
      if (value === "null") copy.map.delete(key);
      else copy.map.set(key, value);
      copy.rev = rev;
      assertEquals(copy.map, history[rev], `seed ${seed}: a live subscriber at ${rev}`);
    },
  };
  engine.host("r", host);
  const resume = () => {
    const span = engine.state("r", copy) as StateSpan;
    if (span.since === undefined) copy.map.clear();
    for (const { key, value } of span.entries) {
      if (value === "null") copy.map.delete(key);
      else copy.map.set(key, value);
    }
    Object.assign(copy, { epoch: span.epoch, rev: span.rev });
    isConnected = true;
    assertEquals(copy.map, history[span.rev], `seed ${seed}: a resumed one at ${span.rev}`);
  };
  for (let step = 0; step < 25; step++) {
    const member = `m${random.below(2)}`;
    const key = `k${random.below(8)}`;
    switch (random.below(6)) {
      case 0:
        engine.join("r", member, "Ann");
        members.add(member);
        break;
      case 1: {
        engine.leave("r", member);
        members.delete(member);
        const left = [...model.values()].filter((kept) => kept.member === member);
        assertEquals(left, [], `seed ${seed}: bound keys go with ${member}`);
        break;
      }
      case 2:
        clock.tick(random.below(2_500));
        engine.state("r");
        break;
      case 3:
        if (isConnected) isConnected = false;
        else resume();
        break;
      default: {
        const value = random.below(4) === 0 ? "null" : String(step);
        const isBound = members.has(member) && random.below(3) === 0;
        const ttlSeconds = random.below(3) === 0 ? 1 + random.below(3) : undefined;
        const condition = random.below(3) === 0 ? random.below(history.length) : undefined;
        const known = model.get(key);
        const before = history.length;
        if (value !== "null") {
          // The event, which comes first, has the value alone.
          const endsAt = ttlSeconds === undefined ? Infinity : clock.now() + 1_000 * ttlSeconds;
          model.set(key, { value, rev: before, member: isBound ? member : undefined, endsAt });
        }
        const answer = engine.set("r", {
          key,
          value,
          sender: "Ann",
          if: condition,
          ttlSeconds,
          member: isBound ? member : undefined,
        }) as StateCursor | { refused: string; rev?: number };
        if ("refused" in answer) {
          if (known) model.set(key, known);
          else model.delete(key);
          if (answer.refused === "rev_conflict") assertEquals(answer.rev, known?.rev ?? 0);
          else assertEquals([answer.refused, model.size], ["too_many_keys", 6]);
        } else {
          assert(condition === undefined || condition === (known?.rev ?? 0), `seed ${seed}: if`);
          assertEquals(answer.rev, history.length - 1);
        }
      }
    }
    for (const [key, { endsAt }] of model) {
      assert(endsAt > clock.now(), `seed ${seed}: ${key} outlived its ttl`);
    }
    const kept = Object.fromEntries([...model].map(([key, { value }]) => [key, value]));
    assertEquals(kept, Object.fromEntries(history.at(-1)!), `seed ${seed}`);
  }
  if (!isConnected) resume();
  engine.close();
}
