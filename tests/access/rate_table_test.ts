import { assertEquals } from "@std/assert";
import { RateTable } from "../../handlers/access/rate_limit.ts";

Deno.test("RateTable lets each key have its own rate and burst", () => {
  const table = new RateTable(2);
  assertEquals([1, 2, 3].map(() => table.take("a", 0)), [0, 0, 500]);
  assertEquals([1, 2, 3].map(() => table.take("b", 0)), [0, 0, 500]);
  assertEquals(table.take("a", 500), 0);
  assertEquals(table.take("a", 500), 500);
});

Deno.test("RateTable lets all through at a rate of 0", () => {
  const table = new RateTable(0);
  assertEquals(
    Array.from({ length: 1_000 }, () => table.take("a", 0)).every((ms) => ms === 0),
    true,
  );
});

Deno.test("RateTable knows 10,000 keys at most, and forgets the least recently used first", () => {
  const table = new RateTable(1);
  table.take("first", 0);
  table.take("second", 0);
  for (let index = 0; index < 9_998; index++) table.take(`other ${index}`, 0);
  assertEquals(table.take("first", 0), 1_000, "10,000 keys are known");
  table.take("one too many", 0);
  assertEquals(table.take("second", 0), 0, "forgotten: it starts anew");
  assertEquals(table.take("first", 0), 1_000, "used since: still known");
});
