import { assertEquals } from "@std/assert";
import { DEDUPE_MS } from "../../../handlers/engine/dedupe.ts";
import type { Refusal } from "../../../handlers/engine/engine.ts";
import { KeyBudget, ReadQueue, SharedReads } from "../../../handlers/engine/redis/engine.ts";
import type { Span } from "../../../handlers/protocol/page.ts";
import type { Cursor } from "../../../handlers/protocol/position.ts";
import { range } from "../contract.ts";

/** Reads of rooms in epoch `e`; each waits until the test answers it. */
function openReads() {
  const sent: { room: string; after?: Cursor; answer: (value: Span | Refusal) => void }[] = [];
  const reads = new SharedReads(
    new ReadQueue(),
    (room, after) => new Promise((answer) => sent.push({ room, after, answer })),
  );
  const read = async (room: string, after?: Cursor) => {
    const span = await reads.read(room, after);
    return "refused" in span ? span.refused : span.chats.map(({ seq }) => seq);
  };
  /** As many reads as can be sent at once, so that the next ones wait. */
  const fill = () => range(1, 4).map((i) => read(`filler ${i}`));
  /** Answers the oldest read with what the room keeps, up to `head`. */
  const answer = async (head: number) => {
    const { room, after, answer } = sent.shift()!;
    const first = after?.epoch === "e" && after.seq <= head ? after.seq + 1 : 1;
    const chats = range(first, head).map((seq) => ({ seq, time: 0, sender: "", message: "" }));
    answer({ epoch: "e", seq: head, chats });
    await new Promise((resolve) => setTimeout(resolve));
    return { room, after };
  };
  return { sent, read, fill, answer };
}

function at(seq: number, epoch = "e"): Cursor {
  return { epoch, seq };
}

Deno.test("SharedReads sends four reads at a time, in the order of the calls", async () => {
  const { sent, read, fill, answer } = openReads();
  fill();
  const more = [read("a"), read("b")];
  assertEquals(sent.length, 4);
  await answer(1);
  assertEquals(sent.map(({ room }) => room), ["filler 2", "filler 3", "filler 4", "a"]);
  for (let i = 0; i < 5; i++) await answer(2);
  assertEquals(await Promise.all(more), [[1, 2], [1, 2]]);
});

Deno.test("SharedReads sends one read for all who wait for a room, each from its position", async () => {
  const { sent, read, fill, answer } = openReads();
  fill();
  const all = [5, 2, 8].map((seq) => read("r", at(seq)));
  for (let i = 0; i < 4; i++) await answer(1);
  assertEquals(sent.length, 1);
  assertEquals(await answer(9), { room: "r", after: at(2) });
  assertEquals(await Promise.all(all), [[6, 7, 8, 9], range(3, 9), [9]]);
});

Deno.test("SharedReads shares no read that was already sent", async () => {
  const { sent, read, answer } = openReads();
  const both = [read("r"), read("r")];
  assertEquals(sent.length, 2);
  await answer(1);
  await answer(2);
  assertEquals(await Promise.all(both), [[1], [1, 2]]);
});

Deno.test("SharedReads reads all where one of them needs all", async () => {
  for (const after of [undefined, at(1, "another")]) {
    const { read, fill, answer } = openReads();
    fill();
    const all = [read("r", at(2)), read("r", after), read("r", at(1))];
    for (let i = 0; i < 4; i++) await answer(1);
    assertEquals((await answer(3)).after, undefined);
    assertEquals(await Promise.all(all), [[3], [1, 2, 3], [2, 3]]);
  }
});

Deno.test("SharedReads reads all for a caller beyond the newest message", async () => {
  const { read, fill, answer } = openReads();
  fill();
  const both = [read("r", at(2)), read("r", at(7))];
  for (let i = 0; i < 4; i++) await answer(1);
  assertEquals((await answer(3)).after, at(2));
  assertEquals((await answer(3)).after, undefined);
  assertEquals(await Promise.all(both), [[3], [1, 2, 3]]);
});

Deno.test("SharedReads goes on after a refusal", async () => {
  const { sent, read, fill, answer } = openReads();
  const first = fill();
  const next = read("r");
  sent.shift()!.answer({ refused: "unavailable" });
  for (let i = 0; i < 4; i++) await answer(1);
  assertEquals([await first[0], await next], ["unavailable", [1]]);
});

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
    await new Promise((resolve) => setTimeout(resolve));
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
