import { assert, assertEquals } from "@std/assert";
import { Budget, FairShare } from "../../handlers/engine/budget.ts";
import { History } from "../../handlers/engine/history.ts";
import { range } from "./contract.ts";

Deno.test("FairShare.hasSpace() lets an address use half of what the others leave", () => {
  const share = new FairShare(100);
  const fill = (address: string) => {
    let own = 0;
    for (; share.hasSpace(1, address); own++) share.count(1, address);
    return own;
  };
  assertEquals(["a", "b", "c", "a"].map(fill), [50, 25, 12, 0]);
  share.count(-50, "a");
  assertEquals(fill("d"), 31);
});

Deno.test("FairShare.hasSpace() without an address asks for the whole alone", () => {
  const share = new FairShare(10);
  share.count(9);
  assertEquals([share.hasSpace(1), share.hasSpace(2), share.hasSpace(1, "a")], [
    true,
    false,
    false,
  ]);
});

Deno.test("BySize.largest() is one with at least half of the bytes of any other", () => {
  const budget = new Budget(1_000_000);
  const limits = { historySize: 1_000, historySeconds: 10 };
  const histories = range(1, 40).map(() => new History(limits, budget));
  const bytes = histories.map(() => 0);
  assertEquals(budget.histories.largest(), undefined);
  // A walk that can be played again: grows and shrinks each of them many times.
  let state = 1;
  for (let step = 1; step <= 5_000; step++) {
    state = (state * 48_271) % 2_147_483_647;
    const index = state % histories.length;
    const before = budget.bytes;
    const message = "x".repeat(state % 3_000);
    if (state % 5 < 3) histories[index].append({ seq: step, time: step, sender: "Ann", message });
    else histories[index].dropOldest();
    bytes[index] += budget.bytes - before;
    const largest = budget.histories.largest();
    const most = Math.max(...bytes);
    if (most === 0) assertEquals(largest, undefined);
    else assert(bytes[histories.indexOf(largest as History)] > most / 2);
  }
  for (const history of histories) history.clear();
  assertEquals([budget.bytes, budget.histories.largest()], [0, undefined]);
});
