import { assertEquals } from "@std/assert";
import { DEDUPE_MS } from "../../../handlers/engine/dedupe.ts";
import { KeyBudget } from "../../../handlers/engine/redis/key_budget.ts";
import { ReadQueue } from "../../../handlers/engine/redis/reads.ts";
import { nextTurn } from "../../support/inbox.ts";
import { range } from "../contract.ts";

Deno.test("ReadQueue runs four reads at a time; a call shares one that has not started", async () => {
  const queue = new ReadQueue();
  const started: string[] = [];
  const ends: (() => void)[] = [];
  const share = (key: string) =>
    queue.share(key, () => {
      started.push(key);
      return new Promise<string>((resolve) => ends.push(() => resolve(`${key} ${started.length}`)));
    });
  const all = ["1", "2", "3", "4", "a", "1", "b", "a"].map(share);
  assertEquals(started, ["1", "2", "3", "4"]);
  while (started.length < 7) {
    ends.shift()!();
    await nextTurn();
  }
  for (const end of ends) end();
  assertEquals(started, ["1", "2", "3", "4", "a", "1", "b"]);
  const answers = await Promise.all(all);
  assertEquals(answers[7], answers[4]);
});

Deno.test("KeyBudget.tryConsume() holds two periods of five minutes within its bytes", () => {
  const budget = new KeyBudget(1_000);
  const count = (calls: number, now: number) =>
    range(1, calls).filter(() => budget.tryConsume(300, now)).length;
  assertEquals(count(3, 0), 3);
  assertEquals(count(3, DEDUPE_MS), 0);
  assertEquals(count(3, 2 * DEDUPE_MS), 3);
  assertEquals(count(9, 4 * DEDUPE_MS), 3);
});

Deno.test("KeyBudget.tryConsume() leaves an address no more than half of what the others leave", () => {
  const budget = new KeyBudget(1_000);
  const count = (address: string) =>
    range(1, 20).filter(() => budget.tryConsume(50, 0, address)).length;
  assertEquals([count("192.0.2.1"), count("192.0.2.2"), count("192.0.2.1")], [10, 5, 0]);
});

Deno.test("ReadQueue goes on behind reads that fail", async () => {
  const queue = new ReadQueue();
  const failing = Array.from(
    { length: 4 },
    (_, i) => queue.share(`bad ${i}`, () => Promise.reject(new Error("It cannot be read"))),
  );
  const next = queue.share("good", () => Promise.resolve(1));
  assertEquals(
    (await Promise.allSettled(failing)).map(({ status }) => status),
    Array(4).fill("rejected"),
  );
  assertEquals(await next, 1);
});
