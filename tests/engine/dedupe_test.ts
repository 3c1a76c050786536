import { assert, assertEquals } from "@std/assert";
import {
  REPEAT_MS,
  RepeatBudget,
  REPEATS_PER_SESSION,
  RepeatTable,
} from "../../handlers/engine/dedupe.ts";
import type { RepeatKey } from "../../handlers/engine/engine.ts";
import { Budget } from "../../handlers/engine/history.ts";
import { range } from "./contract.ts";

function tableOf(maxBytes = 1_000_000) {
  const budget = new Budget(maxBytes);
  return { budget, table: new RepeatTable(budget) };
}

function key(id: string | number, digest?: string, session = "s"): RepeatKey {
  return { session, id: `${id}`, digest };
}

Deno.test("RepeatTable.find() knows an id for five minutes", () => {
  const { table } = tableOf();
  assertEquals(table.find(key("a"), 0), undefined);
  table.remember(key("a"), 7, 1_000);
  assertEquals(table.find(key("a"), 1_000), { seq: 7 });
  assertEquals(table.find(key("a"), 1_000 + REPEAT_MS - 1), { seq: 7 });
  assertEquals(table.find(key("a"), 1_000 + REPEAT_MS), undefined);
  assertEquals(table.find(key("b"), 1_000), undefined);
  assertEquals(table.find(key("a", undefined, "t"), 1_000), undefined);
});

Deno.test("RepeatTable.find() finds a conflict where the digest differs", () => {
  const { table } = tableOf();
  table.remember(key("a", "d1"), 7, 0);
  assertEquals(table.find(key("a", "d1"), 1), { seq: 7 });
  assertEquals(table.find(key("a", "d2"), 1), "conflict");
  assertEquals(table.find(key("a"), 1), "conflict");
  assertEquals(table.find(key("a", "d2"), REPEAT_MS), undefined);
});

Deno.test("RepeatTable.remember() forgets a session's oldest id beyond 1,000, but none with a digest", () => {
  for (const digest of [undefined, "d"]) {
    const { table } = tableOf();
    table.remember(key("other", undefined, "t"), 1, 0);
    for (const id of range(0, REPEATS_PER_SESSION)) table.remember(key(id, digest), id + 2, 0);
    assertEquals(table.find(key(0, digest), 1), digest ? { seq: 2 } : undefined);
    assertEquals(table.find(key(1, digest), 1), { seq: 3 });
    assertEquals(table.find(key("other", undefined, "t"), 1), { seq: 1 });
  }
});

Deno.test("RepeatTable.hasSpace() holds ids to a quarter of the budget", () => {
  const { table, budget } = tableOf(40_000);
  let count = 0;
  while (table.hasSpace(key(count))) table.remember(key(count++), count, 0);
  assert(count > 50 && budget.idBytes <= 10_000, `${count} ids, ${budget.idBytes} bytes`);
  table.expire(REPEAT_MS);
  assert(table.hasSpace(key("again")));
});

Deno.test("RepeatTable.expire() and clear() give back every byte", () => {
  const { table, budget } = tableOf();
  for (const id of range(1, 20)) table.remember(key(id, undefined, `s${id % 3}`), id, id);
  table.remember(key(1, undefined, "s1"), 1, 30);
  table.expire(REPEAT_MS + 10);
  assertEquals(table.find(key(11, undefined, "s2"), REPEAT_MS + 10), { seq: 11 });
  assertEquals(table.find(key(1, undefined, "s1"), REPEAT_MS + 10), { seq: 1 });
  assert(budget.bytes > 0 && budget.bytes === budget.idBytes);
  table.clear();
  assertEquals([budget.bytes, budget.idBytes], [0, 0]);
});

Deno.test("RepeatBudget.take() holds the ids of ten minutes within its bytes", () => {
  const budget = new RepeatBudget(1_000);
  const take = (count: number, now: number) =>
    range(1, count).filter((id) => budget.take(key(id), now)).length;
  assertEquals(take(3, 0), 3);
  assertEquals(take(3, REPEAT_MS), 1);
  assertEquals(take(3, 2 * REPEAT_MS), 3);
  assertEquals(take(9, 4 * REPEAT_MS), 4);
});
