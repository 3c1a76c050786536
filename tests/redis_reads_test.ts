import { assertEquals } from "@std/assert";
import type { Cursor, Refusal, Span } from "../handlers/engine/engine.ts";
import { SharedReads } from "../handlers/engine/redis_reads.ts";
import { range } from "./engine_contract.ts";

/** Shared reads of a room at seq `head`; each waits until the test lets it go on. */
function readsOf(epoch: string) {
  const sent: { after?: Cursor; answer: (value: Span | Refusal) => void }[] = [];
  const reads = new SharedReads((_room, after) =>
    new Promise((answer) => sent.push({ after, answer }))
  );
  const answerOldest = async (head: number) => {
    const { after, answer } = sent.shift()!;
    const first = after?.epoch === epoch ? after.seq + 1 : 1;
    const chats = range(first, head).map((seq) => ({ seq, time: 0, sender: "", message: "" }));
    answer({ epoch, seq: head, chats });
    await new Promise((resolve) => setTimeout(resolve));
  };
  const read = async (after?: Cursor) => {
    const span = await reads.read("r", after);
    return "refused" in span ? span.refused : span.chats.map(({ seq }) => seq);
  };
  return { sent, reads, answerOldest, read };
}

Deno.test("SharedReads sends the first read at once, and all that come meanwhile as one", async () => {
  const { sent, answerOldest, read } = readsOf("e");
  const first = read({ epoch: "e", seq: 7 });
  const others = [5, 2, 8].map((seq) => read({ epoch: "e", seq }));
  assertEquals(sent.length, 1);
  await answerOldest(8);
  assertEquals(await first, [8]);
  assertEquals(sent.map(({ after }) => after), [{ epoch: "e", seq: 2 }]);
  await answerOldest(9);
  assertEquals(await Promise.all(others), [[6, 7, 8, 9], range(3, 9), [9]]);
  assertEquals(sent.length, 0);
});

Deno.test("SharedReads gives nobody a read that was sent before", async () => {
  const { sent, answerOldest, read } = readsOf("e");
  const first = read();
  const second = read();
  await answerOldest(1);
  const third = read();
  await answerOldest(2);
  assertEquals(sent.length, 1);
  await answerOldest(3);
  assertEquals([await first, await second, await third], [[1], [1, 2], [1, 2, 3]]);
});

Deno.test("SharedReads reads all where one of them needs all", async () => {
  for (const after of [undefined, { epoch: "other", seq: 1 }]) {
    const { sent, answerOldest, read } = readsOf("e");
    read();
    const both = [read({ epoch: "e", seq: 2 }), read(after), read({ epoch: "e", seq: 1 })];
    await answerOldest(3);
    assertEquals(sent[0].after, undefined);
    await answerOldest(3);
    assertEquals(await Promise.all(both), [[3], [1, 2, 3], [2, 3]]);
  }
});

Deno.test("SharedReads goes on after a refusal, and reads each room for itself", async () => {
  const { sent, reads, answerOldest, read } = readsOf("e");
  const both = [read(), read()];
  const other = reads.read("another");
  assertEquals(sent.length, 2);
  sent.shift()!.answer({ refused: "unavailable" });
  await answerOldest(1);
  assertEquals((await other as Span).seq, 1);
  await answerOldest(2);
  assertEquals(await Promise.all(both), ["unavailable", [1, 2]]);
});
