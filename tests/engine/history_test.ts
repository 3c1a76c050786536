import { assertEquals } from "@std/assert";
import { Budget } from "../../handlers/engine/budget.ts";
import { History } from "../../handlers/engine/history.ts";
import type { Chat } from "../../handlers/protocol/room_event.ts";
import { range } from "./contract.ts";

function chat(seq: number, time = seq, message = "x"): Chat {
  return { seq, time, sender: "Ann", message };
}

function historyOf(count: number, historySize = 100) {
  const budget = new Budget(1_000_000);
  const history = new History({ historySize, historySeconds: 10 }, budget);
  for (const seq of range(1, count)) history.append(chat(seq, seq * 1_000));
  return { budget, history };
}

function seqs(chats: Chat[]): number[] {
  return chats.map((chat) => chat.seq);
}

Deno.test("History.since() gives what follows a number, oldest first", () => {
  const { history } = historyOf(5);
  assertEquals(seqs(history.since(0)), [1, 2, 3, 4, 5]);
  assertEquals(seqs(history.since(3)), [4, 5]);
  assertEquals(seqs(history.since(5)), []);
  assertEquals(seqs(history.since(9)), []);
  assertEquals(history.seq, 5);
});

Deno.test("History keeps the newest HISTORY_SIZE messages, however many there were", () => {
  const { history } = historyOf(1_000, 3);
  assertEquals(seqs(history.since(0)), [998, 999, 1_000]);
  assertEquals(seqs(history.since(998)), [999, 1_000]);
});

Deno.test("History of size 0 keeps the number alone", () => {
  const { history, budget } = historyOf(4, 0);
  assertEquals([history.seq, history.since(0), budget.bytes], [4, [], 0]);
});

Deno.test("History.expire() drops what is older than HISTORY_SECONDS, and no more", () => {
  const { history } = historyOf(5);
  history.expire(12_000);
  assertEquals(seqs(history.since(0)), [2, 3, 4, 5]);
  history.expire(60_000);
  assertEquals([history.seq, history.since(0)], [5, []]);
});

Deno.test("History.dropOldest() drops one message until none is left", () => {
  const { history } = historyOf(2);
  assertEquals([history.dropOldest(), seqs(history.since(0))], [true, [2]]);
  assertEquals([history.dropOldest(), history.dropOldest()], [true, false]);
  history.append(chat(3));
  assertEquals(seqs(history.since(0)), [3]);
});

Deno.test("History counts its bytes in the budget and gives them back", () => {
  const { history, budget } = historyOf(50, 10);
  const { bytes } = budget;
  history.append(chat(51, 51_000, "x".repeat(1_000)));
  assertEquals(budget.bytes - bytes, 2 * 999);
  history.clear();
  assertEquals([budget.bytes, history.seq, history.since(0)], [0, 51, []]);
});
