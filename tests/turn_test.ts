import { assertEquals } from "@std/assert";
import { type Due, Turn } from "../handlers/registry/turn.ts";

/** A turn whose end the test brings about. */
function createTurn() {
  const ends: (() => void)[] = [];
  const calls: string[] = [];
  const turn = new Turn((task) => ends.push(task));
  const due = (name: string, alsoDo?: () => void): Due => ({
    flush() {
      calls.push(name);
      alsoDo?.();
    },
  });
  return { turn, ends, calls, due };
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
  const { turn, ends, calls, due } = createTurn();
  turn.addRoom(due("first", () => turn.addRoom(due("second"))));
  ends[0]();
  assertEquals(calls, ["first"]);
  assertEquals(ends.length, 2);
  ends[1]();
  assertEquals(calls, ["first", "second"]);
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
  new Turn().addRoom({ flush: () => order.push("flush") });
  order.push("code");
  await timer.promise;
  assertEquals(order, ["code", "flush", "timer"]);
});
