import { assert, assertEquals } from "@std/assert";
import { DEDUPE_MS, DedupeTable, IDS_PER_SESSION } from "../../handlers/engine/dedupe.ts";
import type { IdempotencyKey } from "../../handlers/engine/engine.ts";
import { Budget } from "../../handlers/engine/budget.ts";
import { range } from "./contract.ts";

function tableOf(maxBytes = 1_000_000) {
  const budget = new Budget(maxBytes);
  return { budget, table: new DedupeTable(budget) };
}

function key(id: string | number, digest?: string, session = "s"): IdempotencyKey {
  return { session, id: `${id}`, digest };
}

Deno.test("DedupeTable.find() knows an id for five minutes", () => {
  const { table } = tableOf();
  assertEquals(table.find(key("a"), 0), undefined);
  table.remember(key("a"), 7, 1_000);
  assertEquals(table.find(key("a"), 1_000), { seq: 7 });
  assertEquals(table.find(key("a"), 1_000 + DEDUPE_MS - 1), { seq: 7 });
  assertEquals(table.find(key("a"), 1_000 + DEDUPE_MS), undefined);
  assertEquals(table.find(key("b"), 1_000), undefined);
  assertEquals(table.find(key("a", undefined, "t"), 1_000), undefined);
});

Deno.test("DedupeTable.find() finds a conflict where the digest differs", () => {
  const { table } = tableOf();
  table.remember(key("a", "d1"), 7, 0);
  assertEquals(table.find(key("a", "d1"), 1), { seq: 7 });
  assertEquals(table.find(key("a", "d2"), 1), "conflict");
  assertEquals(table.find(key("a"), 1), "conflict");
  assertEquals(table.find(key("a", "d2"), DEDUPE_MS), undefined);
});

Deno.test("DedupeTable.remember() forgets a session's oldest id beyond 1,000, but none with a digest", () => {
  for (const digest of [undefined, "d"]) {
    const { table } = tableOf();
    table.remember(key("other", undefined, "t"), 1, 0);
    for (const id of range(0, IDS_PER_SESSION)) table.remember(key(id, digest), id + 2, 0);
    assertEquals(table.find(key(0, digest), 1), digest ? { seq: 2 } : undefined);
    assertEquals(table.find(key(1, digest), 1), { seq: 3 });
    assertEquals(table.find(key("other", undefined, "t"), 1), { seq: 1 });
  }
});

Deno.test("DedupeTable.hasSpace() holds ids to an eighth of the budget, those with a digest to another", () => {
  const { table, budget } = tableOf(80_000);
  const fill = (digest?: string) => {
    const share = digest === undefined ? budget.ids : budget.pinnedIds;
    let count = 0;
    while (table.hasSpace(key(count, digest, digest))) {
      table.remember(key(count++, digest, digest), count, 0);
    }
    assert(count > 50 && share.used <= 10_000, `${count} ids, ${share.used} bytes`);
  };
  fill("digest");
  fill();
  assertEquals(budget.bytes, budget.ids.used + budget.pinnedIds.used);
  table.expire(DEDUPE_MS);
  assert(table.hasSpace(key("again")) && table.hasSpace(key("again", "digest")));
});

Deno.test("DedupeTable.hasSpace() leaves each address half of what the others leave of the share for keys", () => {
  const { table, budget } = tableOf(80_000);
  const fill = (address: string) => {
    const before = budget.pinnedIds.used;
    for (let n = 0; table.hasSpace(key(`${address} ${n}`, "digest"), address); n++) {
      table.remember(key(`${address} ${n}`, "digest"), 1, 0, address);
    }
    return (budget.pinnedIds.used - before) / 10_000;
  };
  const shares = ["a", "b", "c"].map(fill);
  for (const [i, share] of shares.entries()) {
    const most = 0.5 ** (i + 1);
    assert(share <= most && share > 0.7 * most, `${shares}`);
  }
  assertEquals(fill("a"), 0);
  assert(table.hasSpace(key("no digest"), "a"));
});

Deno.test("DedupeTable.expire() and clear() give back every byte, to every share", () => {
  const { table, budget } = tableOf();
  for (const id of range(1, 20)) {
    table.remember(key(id, undefined, `s${id % 3}`), id, id);
    table.remember(key(id, "digest", "http"), id, id, `address ${id % 2}`);
  }
  table.remember(key(1, undefined, "s1"), 1, 30);
  table.expire(DEDUPE_MS + 10);
  assertEquals(table.find(key(11, undefined, "s2"), DEDUPE_MS + 10), { seq: 11 });
  assertEquals(table.find(key(1, undefined, "s1"), DEDUPE_MS + 10), { seq: 1 });
  assert(budget.bytes > 0 && budget.bytes === budget.ids.used + budget.pinnedIds.used);
  table.clear();
  assertEquals([budget.bytes, budget.ids.used, budget.pinnedIds.used], [0, 0, 0]);
});
