import { assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { LoadWatch } from "../../handlers/registry/load.ts";
import { createTestApp, FakeClock, type FakeSocket } from "../support/fakes.ts";

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
  const load = new LoadWatch(clock);
  const sender = { paidAt: 0 };
  for (let n = 0; n < 1_000; n++) {
    assertEquals(load.charge(1_000_000, sender, clock.now()), 0);
    clock.tick(20);
  }
  assertEquals([load.isBehind, sender.paidAt], [false, 0]);
});

Deno.test("LoadWatch lets a beat of the loop have only so many frames, before the loop can be late", () => {
  const clock = new FakeClock();
  const load = new LoadWatch(clock);
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
  const load = new LoadWatch(clock);
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
  const load = new LoadWatch(clock);
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
