import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { OPEN_RIGHTS } from "../../handlers/access/grants.ts";
import { DEFAULT_LIMITS } from "../../handlers/access/limits.ts";
import { guardMemory, processMemory } from "../../handlers/access/memory_guard.ts";
import { Allowance, RateTable, TokenBucket } from "../../handlers/access/rate_limit.ts";
import { LimitTable } from "../../handlers/access/shared_limits.ts";
import { type Slot, type SlotHandler, withSlot } from "../../handlers/access/slot.ts";
import type { App, Call } from "../../handlers/app.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import type { Settings } from "../../handlers/start/settings.ts";
import { createTestApp, FakeClock } from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";
import { range } from "../support/v1.ts";

/** What a bucket of 10 units a second, full at 0 ms, answers to calls in turn. */
function waitsMs(burst: number, ...calls: [units: number, atMs: number][]): number[] {
  const bucket = new TokenBucket(10, burst, 0);
  return calls.map((call) => bucket.tryConsume(...call));
}

Deno.test("TokenBucket.tryConsume() lets a burst through, then the rate", () => {
  const waits = waitsMs(3, [1, 0], [1, 0], [1, 0], [1, 0], [1, 40], [1, 100], [1, 100]);
  assertEquals(waits, [0, 0, 0, 100, 60, 0, 100]);
});

Deno.test("TokenBucket.tryConsume() takes nothing when it refuses", () => {
  assertEquals(waitsMs(10, [8, 0], [5, 0], [2, 0]), [0, 300, 0]);
});

Deno.test("TokenBucket never holds more than its burst", () => {
  const bucket = new TokenBucket(1_000, 2, 0);
  assertEquals(bucket.tryConsume(2, 3_600_000), 0);
  assertEquals(bucket.tryConsume(1, 3_600_000), 1);
});

Deno.test("TokenBucket.tryConsume() lets more than a burst through when it is full, and makes up for it", () => {
  assertEquals(waitsMs(10, [25, 0], [1, 0], [25, 1_000], [25, 2_500]), [0, 1_600, 1_500, 0]);
});

Deno.test("TokenBucket.refund() undoes what was taken, a debt too", () => {
  const bucket = new TokenBucket(10, 10, 0);
  for (const units of [3, 10, 25]) {
    assertEquals(bucket.tryConsume(units, 0), 0);
    bucket.refund(units);
  }
  assertEquals([bucket.tryConsume(10, 0), bucket.tryConsume(1, 0)], [0, 100]);
});

Deno.test("TokenBucket of rate 0 refuses nothing", () => {
  const bucket = new TokenBucket(0, 0, 0);
  for (let i = 0; i < 1_000; i++) assertEquals(bucket.tryConsume(1_000_000, 0), 0);
});

Deno.test("TokenBucket loses nothing when the clock goes back", () => {
  const bucket = new TokenBucket(10, 2, 10_000);
  assertEquals(bucket.tryConsume(1, 5_000), 0);
  assertEquals(bucket.tryConsume(1, 5_000), 0);
  assertEquals(bucket.tryConsume(1, 5_000), 100);
  assertEquals(bucket.tryConsume(1, 5_100), 0);
});

const calls = fc.array(fc.record({ units: fc.integer({ min: 1, max: 9 }), ms: fc.nat(500) }));

Deno.test("TokenBucket lets through at most burst and rate times time", () => {
  fc.assert(fc.property(calls, (calls) => {
    const [rate, burst] = [20, 10];
    const bucket = new TokenBucket(rate, burst, 0);
    let now = 0;
    let taken = 0;
    for (const { units, ms } of calls) {
      now += ms;
      if (bucket.tryConsume(units, now) === 0) taken += units;
      assert(taken <= burst + rate * now / 1_000 + 1e-3);
    }
  }));
});

Deno.test("TokenBucket.tryConsume() tells a wait after which the same is let through", () => {
  fc.assert(
    fc.property(calls, fc.integer({ min: 1, max: 1_000 }), (calls, rate) => {
      const bucket = new TokenBucket(rate, 10, 0);
      let now = 0;
      for (const { units, ms } of calls) {
        now += ms;
        now += bucket.tryConsume(units, now) || 1e9;
        assertEquals(bucket.tryConsume(units, now), 0);
      }
    }),
    { numRuns: 1_000 },
  );
});

Deno.test("TokenBucket.tryConsume() tells no wait that is longer than it must be", () => {
  fc.assert(fc.property(calls, fc.integer({ min: 1, max: 1_000 }), (calls, rate) => {
    const bucket = new TokenBucket(rate, 10, 0);
    let now = 0;
    for (const { units, ms } of calls) {
      now += ms;
      const wait = bucket.tryConsume(units, now);
      // Fractions of a token may cost one ms.
      if (wait > 2) assert(bucket.tryConsume(units, now + wait - 2) > 0);
    }
  }));
});

Deno.test("RateTable lets each key have its own rate and burst", () => {
  const table = new RateTable(2);
  assertEquals([1, 2, 3].map(() => table.tryConsume("a", 0)), [0, 0, 500]);
  assertEquals([1, 2, 3].map(() => table.tryConsume("b", 0)), [0, 0, 500]);
  assertEquals(table.tryConsume("a", 500), 0);
  assertEquals(table.tryConsume("a", 500), 500);
});

Deno.test("RateTable lets all through at a rate of 0", () => {
  const table = new RateTable(0);
  assertEquals(
    Array.from({ length: 1_000 }, () => table.tryConsume("a", 0)).every((ms) => ms === 0),
    true,
  );
});

Deno.test("RateTable knows 10,000 keys at most, and forgets the least recently used first", () => {
  const table = new RateTable(1);
  table.tryConsume("first", 0);
  table.tryConsume("second", 0);
  for (let index = 0; index < 9_998; index++) table.tryConsume(`other ${index}`, 0);
  assertEquals(table.tryConsume("first", 0), 1_000, "10,000 keys are known");
  table.tryConsume("one too many", 0);
  assertEquals(table.tryConsume("second", 0), 0, "forgotten: it starts anew");
  assertEquals(table.tryConsume("first", 0), 1_000, "used since: still known");
});

const RATES = {
  ...DEFAULT_LIMITS,
  messageRate: 2,
  byteRate: 100,
  joinRate: 1,
  maxRoomsPerConnection: 2,
};

Deno.test("Allowance.tryConsume() refuses by the bucket that has least, and takes nothing from the others", () => {
  const allowance = new Allowance(RATES, 1);
  assertEquals(allowance.tryConsume(100, false, 1), 0);
  assertEquals(allowance.tryConsume(50, true, 1), 500);
  assertEquals(allowance.isRefusing, true);
  assertEquals(allowance.tryConsume(0, true, 1), 0);
  assertEquals(allowance.isRefusing, false);
  assertEquals(allowance.tryConsume(0, true, 1), 500);
});

Deno.test("Allowance.tryConsume() gives back to each bucket what another one refused", () => {
  const rates = { ...RATES, messageRate: 3, byteRate: 100, joinRate: 1 };
  const joins = new Allowance(rates, 1);
  assertEquals([0, 0].map(() => joins.tryConsume(0, true, 1)), [0, 0]);
  for (let refused = 0; refused < 9; refused++) assert(joins.tryConsume(100, true, 1) > 0);
  assertEquals(joins.tryConsume(100, false, 1), 0, "neither its message nor its bytes were taken");
  const messages = new Allowance(rates, 1);
  assertEquals([0, 0, 0].map(() => messages.tryConsume(0, false, 1)), [0, 0, 0]);
  for (let refused = 0; refused < 9; refused++) assert(messages.tryConsume(90, true, 1) > 0);
  assertEquals(messages.tryConsume(90, true, 335), 0, "neither its bytes nor its join were taken");
});

Deno.test("Allowance.isOver() after ten seconds of refusals that no message interrupts", () => {
  const allowance = new Allowance({ ...RATES, messageRate: 1 }, 1);
  assertEquals([allowance.tryConsume(0, false, 1), allowance.isOver(1)], [0, false]);
  const refuse = (now: number) =>
    allowance.tryConsume(1_000, false, now) > 0 && allowance.isOver(now);
  assertEquals(allowance.tryConsume(0, false, 1) > 0, true);
  assertEquals(allowance.isOver(10_000), false);
  assertEquals(allowance.isOver(10_001), true);
  assertEquals(allowance.tryConsume(0, false, 10_001), 0);
  assertEquals([allowance.isOver(30_000), refuse(10_002)], [false, false]);
});

/** A handler behind {@link withSlot} that keeps its slots. */
function makeHandler(
  settings: Partial<Settings>,
  inner: SlotHandler<Call, App> = () => new Response("in"),
) {
  const { app, registry } = createTestApp({ settings });
  const slots: Slot[] = [];
  const handler = withSlot<Call, App>((call, app, slot) => {
    slots.push(slot);
    return inner(call, app, slot);
  });
  const ask = async (address: string) =>
    await handler({ visitor: { address, rights: OPEN_RIGHTS } } as Call, app);
  return { ask, registry, slots };
}

const refused = (answer: () => Promise<Response>) => assertRejects(answer, HttpError);

Deno.test("withSlot<Call>() answers 503 with Retry-After while the server is full, drains or has no memory", async () => {
  const { ask, registry, slots } = makeHandler({ MAX_CONNECTIONS: 1, DRAIN_SECONDS: 7 });
  await ask("a");
  const full = await refused(() => ask("b"));
  assertEquals([full.status, full.code, full.headers], [503, "full", { "retry-after": "5" }]);
  slots[0].release();
  registry.isDraining = true;
  const draining = await refused(() => ask("b"));
  assertEquals([draining.status, draining.code], [503, "draining"]);
  assertEquals(draining.headers, { "retry-after": "7" });
  registry.isDraining = false;
  registry.isOverMemory = true;
  const overloaded = await refused(() => ask("b"));
  assertEquals([overloaded.status, overloaded.code], [503, "overloaded"]);
  assertEquals([slots.length, registry.heldCount], [1, 0]);
});

Deno.test("withSlot<Call>() answers 429 to an address that has MAX_CONNECTIONS_PER_IP", async () => {
  const { ask, slots } = makeHandler({ MAX_CONNECTIONS_PER_IP: 2 });
  await ask("a");
  await ask("a");
  const error = await refused(() => ask("a"));
  assertEquals([error.status, error.code], [429, "too_many_connections"]);
  assert("retry-after" in error.headers);
  await ask("b");
  slots[0].release();
  await ask("a");
});

Deno.test("withSlot<Call>() takes the slot back from a handler that throws, once", async () => {
  for (const isReleased of [false, true]) {
    const { ask, registry } = makeHandler({ MAX_CONNECTIONS: 1 }, (_call, _app, slot) => {
      if (isReleased) slot.release();
      return Promise.reject(new HttpError(426, "upgrade_required", "Upgrade."));
    });
    await refused(() => ask("a"));
    assertEquals([registry.heldCount, registry.isFull], [0, false]);
  }
});

Deno.test("LimitTable.releaseAll() counts out the clients of a thread that died, and no others", () => {
  const limits = { ...DEFAULT_LIMITS, maxConnections: 4, maxConnectionsPerIp: 3 };
  const table = new LimitTable(limits, new FakeClock());
  const thread = new LimitTable(limits, table.clock, table);
  for (const address of ["a", "a", "b"]) assertEquals(thread.acquire(address), undefined);
  assertEquals(table.acquire("a"), undefined);
  assertEquals([table.isFull, thread.acquire("c")], [true, "full"]);
  thread.release("b");
  assertEquals([table.isFull, thread.acquire("a")], [false, "too_many_connections"]);
  thread.releaseAll();
  assertEquals([table.count, table.countOf("a"), table.countOf("b")], [1, 1, 0]);
  thread.releaseAll();
  assertEquals(table.count, 1);
});

Deno.test("LimitTable counts users over threads, too", () => {
  const limits = { ...DEFAULT_LIMITS, maxConnectionsPerUser: 2, messageRatePerUser: 2 };
  const table = new LimitTable(limits, new FakeClock());
  const [one, two] = range(1, 2).map(() => new LimitTable(limits, table.clock, table));
  assertEquals([one.acquire("a", "u"), two.acquire("b", "u")], [undefined, undefined]);
  assertEquals(table.acquire("c", "u"), "too_many_connections_of_user");
  assertEquals([table.acquire("c"), table.acquire("c", "user u")], [undefined, undefined]);
  one.releaseAll();
  assertEquals([table.acquire("a", "u"), two.acquire("a", "u")], [
    undefined,
    "too_many_connections_of_user",
  ]);
  assertEquals([one.trySend("u"), two.trySend("u"), table.trySend("u")], [0, 0, 500]);
});

Deno.test("LimitTable knows no address longer than it has clients", () => {
  const table = new LimitTable(DEFAULT_LIMITS, new FakeClock());
  for (let index = 0; index < 100; index++) table.acquire(`address ${index}`);
  table.acquire("address 0");
  for (let index = 0; index < 100; index++) table.release(`address ${index}`);
  assertEquals([table.countsHere().size, table.countOf("address 0"), table.count], [1, 1, 1]);
  table.release("address 0");
  assertEquals(table.countsHere().size, 0);
});

/** A guard over a process that has `mb` megabytes, of which a collection leaves `kept`. */
function watch(MAX_RSS_MB: number) {
  const { registry, clock, connect } = createTestApp({ settings: { MAX_RSS_MB } });
  const process = { mb: 60, kept: 60, collections: 0 };
  const memory = {
    rss: () => process.mb * 1_000_000,
    collect() {
      process.collections++;
      process.mb = process.kept;
      return Promise.resolve();
    },
  };
  const stop = guardMemory(registry, memory);
  const look = async () => {
    clock.tick(500);
    await new Promise(setImmediate);
  };
  return { registry, clock, connect, process, look, stop };
}

Deno.test("guardMemory() gives a crowd's garbage back when all have gone", async () => {
  const { connect, process, look } = watch(0);
  const socket = await connect("/chat");
  process.mb = 110;
  await look();
  assertEquals(process.collections, 0, "not while somebody is here");
  socket.end();
  await look();
  await look();
  assertEquals(process, { mb: 60, kept: 60, collections: 1 });
});

Deno.test("guardMemory() leaves an empty server alone that has not grown by a fifth", async () => {
  const { process, look } = watch(0);
  process.mb = 71;
  await look();
  assertEquals(process.collections, 0);
});

Deno.test("guardMemory() measures growth from what the last collection left", async () => {
  const { process, look } = watch(0);
  Object.assign(process, { mb: 110, kept: 100 });
  await look();
  process.mb = 119;
  await look();
  assertEquals(process.collections, 1);
});

Deno.test("guardMemory() shuts the door over MAX_RSS_MB and opens it when memory falls", async () => {
  const { registry, clock, connect, process, look, stop } = watch(100);
  await connect("/chat");
  Object.assign(process, { mb: 150, kept: 150 });
  await look();
  assertEquals([registry.isOverMemory, process.collections], [true, 1]);
  await look();
  assertEquals(process.collections, 1, "again only after ten seconds");
  process.kept = 90;
  clock.tick(9_500);
  await look();
  await look();
  assertEquals([registry.isOverMemory, process.collections], [false, 2]);
  const { timerCount } = clock;
  stop();
  assertEquals(clock.timerCount, timerCount - 1);
});

Deno.test("processMemory.collect() frees what nobody holds", async () => {
  const garbage = new WeakRef({});
  // A new reference holds its object for the rest of its turn.
  await nextTurn();
  await processMemory.collect();
  assertEquals(garbage.deref(), undefined);
});
