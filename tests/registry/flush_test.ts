import { assertEquals } from "@std/assert";
import { type PendingRoom, Turn } from "../../handlers/registry/flush.ts";

/** A turn whose end the test brings about; `next` has what waits for the end of the next one. */
function createTurn() {
  const ends: (() => void)[] = [];
  const next: (() => void)[] = [];
  const calls: string[] = [];
  const turn = new Turn((task) => ends.push(task), (task) => next.push(task));
  /** Somebody with so many parts due; all of them are one flush. */
  const due = (name: string, alsoDo?: () => void, parts = 1): PendingRoom => ({
    flush() {
      if (parts > 0) calls.push(name);
      parts = 0;
      alsoDo?.();
    },
    flushSome() {
      if (parts > 0) calls.push(name);
      alsoDo?.();
      return --parts > 0;
    },
  });
  return { turn, ends, next, calls, due };
}

Deno.test("Turn schedules one end however much is due", () => {
  const { turn, ends, calls, due } = createTurn();
  turn.addRoom(due("a"));
  turn.addRoom(due("b"));
  turn.addConnection(due("c"));
  assertEquals(ends.length, 1);
  assertEquals(calls, []);
  ends[0]();
  assertEquals(calls, ["a", "b", "c"]);
});

Deno.test("Turn flushes rooms before connections, as rooms fill connections", () => {
  const { turn, ends, calls, due } = createTurn();
  turn.addConnection(due("own words"));
  turn.addRoom(due("room", () => turn.addConnection(due("filled by the room"))));
  ends[0]();
  assertEquals(calls, ["room", "own words", "filled by the room"]);
});

Deno.test("Turn leaves what a flush brings to rooms for the next turn", () => {
  const { turn, ends, next, calls, due } = createTurn();
  turn.addRoom(due("first", () => turn.addRoom(due("second"))));
  ends[0]();
  assertEquals(calls, ["first"]);
  assertEquals([ends.length, next.length], [1, 1]);
  next[0]();
  assertEquals(calls, ["first", "second"]);
});

Deno.test("Turn goes on with a large room in the next turns, one part each", () => {
  const { turn, ends, next, calls, due } = createTurn();
  turn.addRoom(due("large", undefined, 3));
  turn.addRoom(due("small"));
  ends[0]();
  assertEquals(calls, ["large", "small"]);
  turn.addConnection(due("came meanwhile"));
  assertEquals(ends.length, 1);
  next[0]();
  assertEquals(calls.slice(2), ["large", "came meanwhile"]);
  next[1]();
  assertEquals(calls.slice(4), ["large"]);
  assertEquals(next.length, 2);
});

Deno.test("Turn.flush() sends at once, and the end of the turn has nothing left", () => {
  const { turn, ends, calls, due } = createTurn();
  turn.addRoom(due("a"));
  turn.flush();
  assertEquals(calls, ["a"]);
  ends[0]();
  assertEquals(calls, ["a"]);
  turn.addRoom(due("b"));
  assertEquals(ends.length, 2);
});

Deno.test("Turn ends behind the code that runs, before any timer", async () => {
  const order: string[] = [];
  const timer = Promise.withResolvers<void>();
  setTimeout(() => {
    order.push("timer");
    timer.resolve();
  });
  new Turn().addConnection({ flush: () => order.push("flush") });
  order.push("code");
  await timer.promise;
  assertEquals(order, ["code", "flush", "timer"]);
});
