/**
 * What each operation costs as rooms, members, keys and messages grow: in this process, without a network.
 * Writes `growth.svg`, and prints the figures. What costs more in the middle of more is a defect.
 *
 * deno run -A tests/bench/growth.ts [--only REGEX] [--runs 5] [--svg FILE]
 *
 * @module
 */

import { historyOf, membersOf } from "../../handlers/http/rooms.ts";
import { stateOf } from "../../handlers/http/state.ts";
import { runApp } from "../../handlers/run_app.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { createTestApp, type TestApp } from "../support/fakes.ts";
import { chart, type Panel } from "./chart.ts";
import { readFlags } from "./flags.ts";
import { Talker } from "./talker.ts";

/** An operation, called again and again; of each call `per` is what it does once. */
type Operation = { run(i: number): unknown; per?: number };
type Scene = {
  title: string;
  sizes: number[];
  /** Fills a server to a size, and tells what is done there. */
  fill(test: TestApp, size: number): Record<string, Operation>;
};

const TEXT = "x".repeat(64);
const LIMITS = {
  maxRooms: 1e6,
  maxKeys: 1e5,
  maxStateBytes: 1e9,
  maxQueueBytes: 4e9,
  historyMb: 4e3,
};

const SCENES: Scene[] = [{
  title: "rooms of one member",
  sizes: [1, 10, 100, 1_000, 10_000, 100_000],
  fill({ registry, engine, clock, app }, size) {
    const members = Array.from(
      { length: size },
      (_, i) => new Talker(registry, `room-${i}`).join(`name ${i}`),
    );
    runApp(app);
    const open = (i: number) => new Talker(registry, `new-${i}`);
    return {
      "a message": { run: (i) => members[i % size].say(TEXT) },
      "a room comes and goes": { run: (i) => open(i).drop() },
      "a room comes, 1,000 are listed": {
        run: (i) => {
          const one = open(i);
          engine.rooms("", 1_000);
          one.drop();
        },
      },
      "a second without a message": { run: () => clock.tick(60_000), per: 60 },
    };
  },
}, {
  title: "members of one room",
  sizes: [10, 100, 1_000, 5_000, 20_000],
  fill({ registry }, size) {
    const members = Array.from({ length: size }, (_, i) => {
      const one = new Talker(registry, "room", `user ${i}`);
      registry.turn.flush();
      return one.join(`name ${i}`);
    });
    registry.turn.flush();
    return {
      "a message, each member": {
        run: (i) => {
          members[i % size].say(TEXT);
          registry.turn.flush();
        },
        per: size,
      },
      "a join, each member": {
        run: (i) => {
          const one = new Talker(registry, "room", `new ${i}`).join(`new ${i}`);
          one.drop();
          registry.turn.flush();
        },
        per: 2 * size,
      },
      "a listener comes and goes": { run: () => new Talker(registry, "room").drop() },
      "a member's second socket": {
        run: () => new Talker(registry, "room", "user 5").join("name 5").drop(),
      },
      "a name changes, who is here": {
        run: (i) => {
          members[i % size].join(`other ${i}`);
          return membersOf(registry, "room");
        },
      },
    };
  },
}, {
  title: "keys of one room's state",
  sizes: [10, 100, 1_000, 10_000, 50_000],
  fill({ registry }, size) {
    const room = registry.room("room");
    new Talker(registry, "room");
    const set = (key: number, ttlSeconds?: number) =>
      room.change({ key: `key/${key}`, value: `"${TEXT}"`, sender: "Ann", ttlSeconds });
    for (let key = 0; key < size; key++) set(key, 1_000 + key);
    const before = ({ epoch, rev }: { epoch: string; rev: number }) => `${epoch}:${rev - 1}`;
    return {
      "a key is set": { run: (i) => set(i % size) },
      "a key is set for a time": { run: (i) => set(i % size, 1_000 + i % size) },
      "what changed last": {
        run: (i) =>
          stateOf(registry, "room", before(set(i % size) as { epoch: string; rev: number })),
      },
      "the whole state, each key": { run: () => stateOf(registry, "room"), per: size },
    };
  },
}, {
  title: "messages kept of one room",
  sizes: [10, 100, 1_000, 10_000, 100_000],
  fill({ registry }, size) {
    const one = new Talker(registry, "room").join("Ann");
    const say = (i: number) => one.say(TEXT, { session: `session ${i % 1_000}`, id: `id ${i}` });
    for (let i = 0; i < size; i++) say(i);
    return {
      "a message": { run: () => one.say(TEXT) },
      "a message with an id": { run: (i) => say(size + i) },
      "the newest 10": { run: () => historyOf(registry, "room", { limit: 10 }) },
    };
  },
}];

/** So long it runs before it is measured: V8 compiles meanwhile. */
const WARM_MS = 30;

/** Microseconds of one operation: the least of some runs, as others use the machine. */
async function measure({ run, per = 1 }: Operation, runs: number): Promise<number> {
  let count = 1;
  let calls = 0;
  let least = Infinity;
  for (const start = performance.now(); performance.now() < start + WARM_MS;) await run(calls++);
  for (let done = 0; done < runs;) {
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      const result = run(calls++);
      if (result instanceof Promise) await result;
    }
    const took = performance.now() - start;
    if (took < 2 && count < 1e6) count *= 2;
    else done++;
    if (took >= 2 || done > 0) least = Math.min(least, took * 1_000 / count);
  }
  return least / per;
}

const flags = readFlags(import.meta.url, "only", "runs", "svg");
const { only = "", runs = "5", svg = new URL("growth.svg", import.meta.url).pathname } = flags;
const wanted = SCENES.filter(({ title }) => new RegExp(only).test(title));
const panels: Panel[] = [];
for (const { title, sizes, fill } of wanted) {
  const lines = new Map<string, number[]>();
  for (const size of sizes) {
    const historySize = title.startsWith("messages") ? size : 10;
    const test = createTestApp({ limits: { ...LIMITS, historySize }, log: silentLog });
    for (const [name, operation] of Object.entries(fill(test, size))) {
      lines.set(name, [...lines.get(name) ?? [], await measure(operation, Number(runs))]);
    }
  }
  console.log(`\n${title}: ${sizes.join(", ")}`);
  for (const [name, values] of lines) {
    console.log(`  ${name}: ${values.map((us) => `${Number(us.toPrecision(3))} µs`).join(", ")}`);
  }
  panels.push({ title, sizes, lines });
}
await Deno.writeTextFile(svg, chart(panels));
Deno.exit();
