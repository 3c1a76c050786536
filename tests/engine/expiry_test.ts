import { assertEquals } from "@std/assert";
import { Expiry } from "../../handlers/engine/expiry.ts";
import { FakeClock } from "../support/fakes.ts";

Deno.test("Expiry ends what is over, however many end at other times", () => {
  const clock = new FakeClock();
  const ended: number[] = [];
  const expiry = new Expiry<number>(clock, (one) => ended.push(one));
  // More than a call takes arguments.
  for (let i = 1; i <= 200_000; i++) expiry.add(i, clock.now() + i * 1_000);
  clock.tick(3_000);
  assertEquals(ended, [1, 2, 3]);
  expiry.clear();
  assertEquals(clock.timerCount, 0);
});
