import { assertEquals } from "@std/assert";
import { PendingCommands } from "../../../handlers/engine/redis/pending.ts";
import { nextTurn } from "../../support/inbox.ts";

const never = new Promise<unknown>(() => {});

/** Pending commands, and what has come of those that were added. */
function pendingWith() {
  const pending = new PendingCommands();
  const outcomes: unknown[] = [];
  const errors: string[] = [];
  const add = (answer: Promise<unknown>, bytes = 1, hasTimeout = true) => {
    const accept = (answer: unknown) => answer;
    const onError = (error: Error) => errors.push(error.message);
    pending.add(answer, bytes, hasTimeout, { accept, onError })
      .then((value) => outcomes.push(value));
  };
  return { pending, outcomes, errors, add };
}

Deno.test("PendingCommands resolves to the answer, and to nothing for an error", async () => {
  const { outcomes, errors, add } = pendingWith();
  add(Promise.resolve("yes"));
  add(Promise.resolve(null));
  add(Promise.reject(new Error("NOSCRIPT")));
  await nextTurn();
  assertEquals(outcomes, ["yes", null, undefined]);
  assertEquals(errors, ["NOSCRIPT"]);
});

Deno.test("PendingCommands times out a command after three whole ticks, but not one without a timeout", async () => {
  const { pending, outcomes, add } = pendingWith();
  add(never);
  add(never, 1, false);
  for (const expected of [0, 0, 0, 1, 1]) {
    pending.tick();
    await nextTurn();
    assertEquals(outcomes.length, expected);
  }
  assertEquals(outcomes, [undefined]);
});

Deno.test("PendingCommands.tick() returns whether the server still answers", async () => {
  const { pending, add } = pendingWith();
  assertEquals(
    [pending.tick(), pending.tick(), pending.tick(), pending.tick()],
    Array(4).fill(true),
  );
  add(never, 1, false);
  assertEquals([pending.tick(), pending.tick()], [true, true]);
  add(Promise.resolve());
  await nextTurn();
  assertEquals([pending.tick(), pending.tick(), pending.tick()], [true, true, false]);
});

Deno.test("PendingCommands.hasSpace() bounds number and bytes, until answers come", async () => {
  const { pending, add } = pendingWith();
  const { promise, resolve } = Promise.withResolvers<unknown>();
  add(promise, 60_000_000);
  assertEquals([pending.hasSpace(4_000_000), pending.hasSpace(4_000_001)], [true, false]);
  for (let i = 1; i < 10_000; i++) add(promise);
  assertEquals(pending.hasSpace(1), false);
  resolve(0);
  await nextTurn();
  assertEquals(pending.hasSpace(64_000_000), true);
});

Deno.test("PendingCommands.hasSpace() lets no queue grow that could not be answered in time", async () => {
  const { pending, add } = pendingWith();
  const { promise, resolve } = Promise.withResolvers<unknown>();
  for (let i = 0; i < 300; i++) add(promise);
  pending.tick();
  assertEquals(pending.hasSpace(1), true);
  pending.tick();
  assertEquals(pending.hasSpace(1), false);
  resolve(0);
  await nextTurn();
  assertEquals(pending.hasSpace(1), true);
});
