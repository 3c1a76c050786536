import { assert, assertEquals } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { Allowance, RateTable, TokenBucket } from "../../handlers/access/rate_limit.ts";

Deno.test("TokenBucket.tryConsume() lets a burst through, then the rate", () => {
  const bucket = new TokenBucket(10, 3, 0);
  assertEquals([1, 2, 3].map(() => bucket.tryConsume(1, 0)), [0, 0, 0]);
  assertEquals(bucket.tryConsume(1, 0), 100);
  assertEquals(bucket.tryConsume(1, 40), 60);
  assertEquals(bucket.tryConsume(1, 100), 0);
  assertEquals(bucket.tryConsume(1, 100), 100);
});

Deno.test("TokenBucket.tryConsume() takes nothing when it refuses", () => {
  const bucket = new TokenBucket(10, 10, 0);
  assertEquals(bucket.tryConsume(8, 0), 0);
  assertEquals(bucket.tryConsume(5, 0), 300);
  assertEquals(bucket.tryConsume(2, 0), 0);
});

Deno.test("TokenBucket never holds more than its burst", () => {
  const bucket = new TokenBucket(1_000, 2, 0);
  assertEquals(bucket.tryConsume(2, 3_600_000), 0);
  assertEquals(bucket.tryConsume(1, 3_600_000), 1);
});

Deno.test("TokenBucket.tryConsume() lets more than a burst through when it is full, and makes up for it", () => {
  const bucket = new TokenBucket(10, 10, 0);
  assertEquals(bucket.tryConsume(25, 0), 0);
  assertEquals(bucket.tryConsume(1, 0), 1_600);
  assertEquals(bucket.tryConsume(25, 1_000), 1_500);
  assertEquals(bucket.tryConsume(25, 2_500), 0);
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

const RATES = { messageRate: 2, byteRate: 100, joinRate: 1, maxRoomsPerConnection: 2 };

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
