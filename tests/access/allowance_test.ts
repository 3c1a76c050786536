import { assertEquals } from "@std/assert";
import { Allowance } from "../../handlers/access/rate_limit.ts";

const RATES = { messageRate: 2, byteRate: 100, joinRate: 1, maxRoomsPerConnection: 2 };

Deno.test("Allowance.take() refuses by the bucket that has least, and takes nothing from the others", () => {
  const allowance = new Allowance(RATES, 1);
  assertEquals(allowance.take(100, false, 1), 0);
  assertEquals(allowance.take(50, true, 1), 500);
  assertEquals(allowance.isRefusing, true);
  assertEquals(allowance.take(0, true, 1), 0);
  assertEquals(allowance.isRefusing, false);
  assertEquals(allowance.take(0, true, 1), 500);
});

Deno.test("Allowance.isOver() after ten seconds of refusals that no message interrupts", () => {
  const allowance = new Allowance({ ...RATES, messageRate: 1 }, 1);
  assertEquals([allowance.take(0, false, 1), allowance.isOver(1)], [0, false]);
  const refuse = (now: number) => allowance.take(1_000, false, now) > 0 && allowance.isOver(now);
  assertEquals(allowance.take(0, false, 1) > 0, true);
  assertEquals(allowance.isOver(10_000), false);
  assertEquals(allowance.isOver(10_001), true);
  assertEquals(allowance.take(0, false, 10_001), 0);
  assertEquals([allowance.isOver(30_000), refuse(10_002)], [false, false]);
});
