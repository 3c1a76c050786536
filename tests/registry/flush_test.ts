import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { Backlog } from "../../handlers/registry/backlog.ts";
import { type PendingRoom, Turn } from "../../handlers/registry/flush.ts";
import { LoadWatch } from "../../handlers/registry/load.ts";
import { guardQueues } from "../../handlers/registry/queue_guard.ts";
import { Line } from "../../handlers/registry/sender.ts";
import { createTestApp, FakeClock, type FakeSocket } from "../support/fakes.ts";

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

Deno.test("Backlog.weigh() is the bytes alone for 2 s, then each frame weighs 1,000 more", () => {
  const backlog = new Backlog(10_000, 1_000_000);
  let waiting = 0;
  const send = (frame: string | Uint8Array, now: number) => {
    waiting += typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.length;
    return backlog.weigh(waiting, frame, now);
  };
  for (let count = 1; count <= 100; count++) {
    assertEquals(send("가".repeat(20), 11_999), count * 60);
  }
  assertEquals(send(new Uint8Array(60), 12_000), 101 * 1_060);
  assertEquals(send("x".repeat(60), 12_001), 102 * 1_060);
});

Deno.test("Backlog.weigh() tells small frames behind large ones that have gone", () => {
  const backlog = new Backlog(0, 1_000_000);
  for (let large = 0; large < 1_000; large++) backlog.weigh(60_000, "x".repeat(60_000), 1_000);
  let waiting = 60_000;
  let count = 0;
  for (let weight = 0; weight < 1_000_000; count++) {
    weight = backlog.weigh(waiting += 40, "x".repeat(40), 5_000);
  }
  // 28,000 of them would wait if bytes were all that counts.
  assert(count > 500 && count < 5_000, `${count} frames`);
});

Deno.test("Line.run() runs at once where nothing holds the line", () => {
  const line = new Line();
  assertEquals(line.run(() => 1), 1);
  assertEquals(line.hold(() => 2), 2);
  assertEquals(line.run(() => 3), 3, "a task that is done at once holds nothing");
});

Deno.test("Line keeps the order behind tasks that take time, also one that fails", async () => {
  const line = new Line();
  const order: string[] = [];
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const first = line.hold(async () => {
    await gates[0].promise;
    order.push("first");
    throw new Error("refused");
  }) as Promise<void>;
  const seen = first.catch(() => order.push("failed"));
  const later = line.run(() => order.push("second"));
  const held = line.hold(async () => {
    await gates[1].promise;
    order.push("third");
  });
  const last = line.run(() => order.push("last"));
  assertEquals(order, []);
  gates[1].resolve();
  gates[0].resolve();
  await Promise.all([seen, later, held, last]);
  assertEquals(order.filter((step) => step !== "failed"), ["first", "second", "third", "last"]);
  assertEquals(line.run(() => "at once again"), "at once again");
});

Deno.test("guardQueues() lets each client have less as all together near QUEUE_MB", async () => {
  const settings = { QUEUE_MB: 1, MAX_QUEUE_BYTES: 400_000 };
  const { registry, clock, connect } = createTestApp({ settings });
  const stop = guardQueues(registry);
  const sockets: FakeSocket[] = [];
  while (sockets.length < 4) sockets.push(await connect("/echo"));
  const [first, second, third, honest] = sockets;
  first.bufferedAmount = 300_000;
  clock.tick(500);
  assertEquals([registry.queueLimit, first.closes], [400_000, []]);
  for (const socket of [second, third, honest]) socket.say("more");
  second.bufferedAmount = third.bufferedAmount = 250_000;
  honest.bufferedAmount = 50_000;
  clock.tick(500);
  assertEquals(registry.queueLimit, 120_000);
  const tooSlow = [{ code: 1013, reason: "too slow" }];
  assertEquals(sockets.map(({ closes }) => closes), [tooSlow, tooSlow, tooSlow, []]);
  clock.tick(500);
  assertEquals(registry.queueLimit, 120_000, "the runtime still holds what they did not read");
  for (const socket of [first, second, third]) {
    socket.bufferedAmount = 0;
    socket.end();
  }
  clock.tick(500);
  assertEquals([registry.queueLimit, registry.clients.size], [400_000, 1]);
  stop();
});

Deno.test("guardQueues() leaves each client 64 kB, however much is unsent", async () => {
  const { registry, clock, connect } = createTestApp({ settings: { QUEUE_MB: 1 } });
  const stop = guardQueues(registry);
  const [stuck, honest] = [await connect("/echo"), await connect("/echo")];
  stuck.bufferedAmount = 10_000_000;
  honest.bufferedAmount = 60_000;
  clock.tick(500);
  assertEquals([registry.queueLimit, stuck.closes.length, honest.closes.length], [65_536, 1, 0]);
  stop();
});

/** Time whose timers a busy event loop keeps from running. */
class BusyClock extends FakeClock {
  #late = 0;

  override now(): number {
    return super.now() + this.#late;
  }

  /** The loop is busy for so long. */
  work(ms: number): void {
    this.#late += ms;
  }
}

Deno.test("LoadWatch charges nothing while the loop is in time", () => {
  const clock = new FakeClock();
  const load = new LoadWatch(clock, true);
  const sender = { paidAt: 0 };
  for (let n = 0; n < 1_000; n++) {
    assertEquals(load.charge(1_000_000, sender, clock.now()), 0);
    clock.tick(20);
  }
  assertEquals([load.isBehind, sender.paidAt], [false, 0]);
});

Deno.test("LoadWatch lets a beat of the loop have only so many frames, before the loop can be late", () => {
  const clock = new FakeClock();
  const load = new LoadWatch(clock, true);
  load.add(10_001);
  assertEquals(load.isBehind, true, "frames that nobody pays for count, too");
  clock.tick(20);
  assertEquals(load.isBehind, false);
  /** So many who have sent nothing yet say something to 300; how many are heard. */
  const crowd = (count: number) =>
    Array.from({ length: count }, () => load.charge(300, { paidAt: 0 }, clock.now()))
      .filter((retry) => retry === 0).length;
  assertEquals(crowd(100), 33);
  assertEquals(load.charge(10, { paidAt: 0 }, clock.now()), 0, "whoever causes little is heard");
  assertEquals(load.charge(300, { paidAt: 0 }, clock.now()), 20);
  clock.tick(20);
  assertEquals(crowd(100), 33);
});

Deno.test("LoadWatch sees on a message's way that the loop is late, and bounds what a sender causes", () => {
  const clock = new BusyClock();
  const load = new LoadWatch(clock, true);
  const [loud, quiet] = [{ paidAt: 0 }, { paidAt: 0 }];
  load.charge(1, quiet, clock.now());
  for (let n = 0; n < 5; n++) {
    clock.work(51);
    load.charge(1, quiet, clock.now());
  }
  assertEquals(load.isBehind, true);
  let frames = 0;
  let retry = 0;
  while (retry === 0) {
    retry = load.charge(300, loud, clock.now());
    if (retry === 0) frames += 300;
  }
  assertLessOrEqual(frames, 600);
  assertGreater(retry, 0);
  for (let n = 0; n < 20; n++) {
    assertEquals(load.charge(2, quiet, clock.now()), 0, "whoever causes little is never refused");
    clock.work(50);
  }
  clock.work(retry);
  assertEquals(load.charge(300, loud, clock.now()), 0, "after the wait it is let through");
});

Deno.test("LoadWatch recovers step by step, and ends its timer when nobody sends", () => {
  const clock = new BusyClock();
  const load = new LoadWatch(clock, true);
  load.charge(1, { paidAt: 0 }, clock.now());
  clock.work(51);
  load.charge(1, { paidAt: 0 }, clock.now());
  assertEquals([load.isBehind, clock.timerCount], [true, 1]);
  clock.tick(1_100);
  assertEquals(load.isBehind, true);
  clock.tick(1_100);
  assertEquals(load.isBehind, false);
  clock.tick(10_000);
  assertEquals(clock.timerCount, 0);
});

Deno.test("LoadWatch refuses and leaves out nothing where MESSAGE_RATE is 0", () => {
  const clock = new BusyClock();
  const load = new LoadWatch(clock, false);
  for (let n = 0; n < 100; n++) {
    load.add(1_000);
    assertEquals(load.charge(1_000, { paidAt: 0 }, clock.now()), 0);
    clock.work(100);
  }
  assertEquals([load.isBehind, clock.timerCount], [false, 0]);
});

/** A room of `count` plain sockets in a server that is behind. */
async function createBusyRoom(count: number) {
  const test = createTestApp();
  const { registry, clock, connect } = test;
  const sockets: FakeSocket[] = [];
  while (sockets.length < count) sockets.push(await connect("/chat/stadium"));
  const v1 = await connect("/chat/stadium", { dialect: "v1" });
  let isBehind = false;
  Object.defineProperty(registry.load, "isBehind", { get: () => isBehind });
  return { ...test, clock, sockets, v1, setBehind: (value: boolean) => isBehind = value };
}

Deno.test("a server that is behind leaves out statuses for plain sockets of large rooms, not for others", async () => {
  for (const [count, isLeftOut] of [[101, true], [99, false]] as const) {
    const { sockets, v1, registry, setBehind } = await createBusyRoom(count);
    registry.turn.flush();
    v1.take();
    setBehind(true);
    sockets[0].say({ type: "join", name: "Fan" });
    registry.turn.flush();
    assertEquals(sockets[1].frames.length, isLeftOut ? 0 : 1);
    assertEquals(v1.objects.length, 1);
    setBehind(false);
    sockets[0].say({ type: "join", name: "Fan again" });
    assertEquals(sockets[1].frames.length, isLeftOut ? 1 : 2);
  }
});

Deno.test("without MESSAGE_RATE nobody is charged for frames", async () => {
  const { connect, registry } = createTestApp({ settings: { MESSAGE_RATE: 0 } });
  const ann = await connect("/chat/ops");
  registry.load.charge = () => 1_000;
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "chat", message: 1 });
  assertEquals(ann.frames.length, 2);
  const rated = createTestApp();
  const bob = await rated.connect("/chat/ops", { dialect: "v1" });
  bob.say({ type: "join", name: "Bob" });
  rated.registry.load.charge = () => 1_000;
  bob.say({ type: "chat", message: 1, id: "1" });
  rated.registry.turn.flush();
  const errors = (bob.objects as Record<string, unknown>[]).filter(({ type }) => type === "error")
    .map(({ code, retry, id }) => [code, retry, id]);
  assertEquals(errors, [["rate_limited", 1_000, "1"]]);
});
