import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { TokenBucket } from "../../handlers/access/rate_limit.ts";

Deno.test("TokenBucket.take() lets a burst through, then the rate", () => {
  const bucket = new TokenBucket(10, 3, 0);
  assertEquals([1, 2, 3].map(() => bucket.take(1, 0)), [0, 0, 0]);
  assertEquals(bucket.take(1, 0), 100);
  assertEquals(bucket.take(1, 40), 60);
  assertEquals(bucket.take(1, 100), 0);
  assertEquals(bucket.take(1, 100), 100);
});

Deno.test("TokenBucket.take() takes nothing when it refuses", () => {
  const bucket = new TokenBucket(10, 10, 0);
  assertEquals(bucket.take(8, 0), 0);
  assertEquals(bucket.take(5, 0), 300);
  assertEquals(bucket.take(2, 0), 0);
});

Deno.test("TokenBucket never holds more than its burst", () => {
  const bucket = new TokenBucket(1_000, 2, 0);
  assertEquals(bucket.take(2, 3_600_000), 0);
  assertEquals(bucket.take(1, 3_600_000), 1);
});

Deno.test("TokenBucket.take() lets more than a burst through when it is full, and makes up for it", () => {
  const bucket = new TokenBucket(10, 10, 0);
  assertEquals(bucket.take(25, 0), 0);
  assertEquals(bucket.take(1, 0), 1_600);
  assertEquals(bucket.take(25, 1_000), 1_500);
  assertEquals(bucket.take(25, 2_500), 0);
});

Deno.test("TokenBucket.giveBack() undoes what was taken, a debt too", () => {
  const bucket = new TokenBucket(10, 10, 0);
  for (const units of [3, 10, 25]) {
    assertEquals(bucket.take(units, 0), 0);
    bucket.giveBack(units);
  }
  assertEquals([bucket.take(10, 0), bucket.take(1, 0)], [0, 100]);
});

Deno.test("TokenBucket of rate 0 refuses nothing", () => {
  const bucket = new TokenBucket(0, 0, 0);
  for (let i = 0; i < 1_000; i++) assertEquals(bucket.take(1_000_000, 0), 0);
});

Deno.test("TokenBucket loses nothing when the clock goes back", () => {
  const bucket = new TokenBucket(10, 2, 10_000);
  assertEquals(bucket.take(1, 5_000), 0);
  assertEquals(bucket.take(1, 5_000), 0);
  assertEquals(bucket.take(1, 5_000), 100);
  assertEquals(bucket.take(1, 5_100), 0);
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
      if (bucket.take(units, now) === 0) taken += units;
      assert(taken <= burst + rate * now / 1_000 + 1e-3);
    }
  }));
});

Deno.test("TokenBucket.take() tells a wait after which the same is let through", () => {
  fc.assert(
    fc.property(calls, fc.integer({ min: 1, max: 1_000 }), (calls, rate) => {
      const bucket = new TokenBucket(rate, 10, 0);
      let now = 0;
      for (const { units, ms } of calls) {
        now += ms;
        now += bucket.take(units, now) || 1e9;
        assertEquals(bucket.take(units, now), 0);
      }
    }),
    { numRuns: 1_000 },
  );
});

Deno.test("TokenBucket.take() tells no wait that is longer than it must be", () => {
  fc.assert(fc.property(calls, fc.integer({ min: 1, max: 1_000 }), (calls, rate) => {
    const bucket = new TokenBucket(rate, 10, 0);
    let now = 0;
    for (const { units, ms } of calls) {
      now += ms;
      const wait = bucket.take(units, now);
      // Fractions of a token may cost one ms.
      if (wait > 2) assert(bucket.take(units, now + wait - 2) > 0);
    }
  }));
});
