import { assert, assertEquals, assertRejects } from "@std/assert";
import { DEFAULT_LIMITS } from "../../handlers/access/limits.ts";
import { LimitTable } from "../../handlers/access/shared_limits.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { shareEngine } from "../../handlers/engine/shared.ts";
import { createWorkers } from "../../handlers/start/workers.ts";
import { type Clock, systemClock } from "../../handlers/util/clock.ts";
import { SettingError } from "../../handlers/start/setting_error.ts";
import { ROOMY } from "../engine/contract.ts";
import { FakeClock, RecordingLog } from "../support/fakes.ts";
import { eventually, granted, hear, people } from "../support/recorder.ts";
import type { Order, ThreadSettings } from "./workers_thread.ts";

const module = import.meta.resolve("./workers_thread.ts");

/** Limits of the process; each worker holds a client of the address `a`. */
const LIMITS = { maxConnections: 4, maxConnectionsPerIp: 3, postRate: 2 };

/** Real workers, and the engine in this thread, which is the main thread. */
async function launch(count: number, clock: Clock = systemClock, settings: ThreadSettings = {}) {
  const log = new RecordingLog();
  const shared = shareEngine(createMemoryEngine(ROOMY, systemClock));
  const limits = new LimitTable({ ...DEFAULT_LIMITS, ...LIMITS }, clock);
  const workers = createWorkers<ThreadSettings>({ count, module, shared, limits, log, clock });
  const { engine } = workers;
  const { recorder } = await hear(engine, "said");
  try {
    await workers.launch(settings);
  } catch (error) {
    await workers.stop();
    await engine.close();
    throw error;
  }
  return {
    workers,
    engine,
    limits,
    log,
    /** What is said by the workers. */
    recorder,
    async order(worker: number, order: Order): Promise<void> {
      const message = JSON.stringify(order);
      await granted(engine.publish(`worker-${worker}`, { sender: "main", message }));
    },
    /** Waits until the sums of all that report are those of so many. */
    reported: (all: number) =>
      eventually(() => workers.report({ main: 1, all: 1 }), (sums) => sums.all === all),
    async [Symbol.asyncDispose]() {
      await workers.stop();
      await engine.close();
    },
  };
}

Deno.test("report() answers the sum of all threads, whichever reports", async () => {
  await using made = await launch(3);
  const sums = { main: 1, "worker-1": 1, "worker-2": 1, all: 3, messagesIn: 10 };
  assertEquals(await made.reported(3), sums);
  await made.order(2, "report");
  await made.recorder.until(({ chats }) => chats.length === 1);
  assertEquals(JSON.parse(made.recorder.messages[0]), sums);
});

Deno.test("stop() stops every worker before it ends it", async () => {
  await using made = await launch(3);
  await made.workers.stop();
  const senders = made.recorder.chats.map(({ sender }) => sender);
  assertEquals(senders.toSorted(), ["worker-1", "worker-2"]);
  assertEquals(await made.engine.members("said"), people());
});

Deno.test("limits count over all threads; those of a worker that dies are free again", async () => {
  // The fake clock fills no bucket.
  await using made = await launch(3, new FakeClock());
  const { limits, recorder } = made;
  assertEquals([limits.count, limits.countOf("a")], [2, 2]);
  assertEquals([limits.acquire("a"), limits.acquire("b")], [undefined, undefined]);
  await made.order(1, "acquire");
  await made.order(2, "publish");
  await recorder.until(({ chats }) => chats.length === 2);
  const said = Object.fromEntries(recorder.chats.map(({ sender, message }) => [sender, message]));
  assertEquals(said, { "worker-1": '"full"', "worker-2": "[0,0,500]" });
  assertEquals(limits.tryPublish("a", 1), 500);
  limits.release("b");
  await made.order(1, "acquire");
  await recorder.until(({ chats }) => chats.length === 3);
  assertEquals(recorder.messages[2], '"too_many_connections"');
  await made.order(2, "throw");
  await recorder.until(({ events }) =>
    events.some((event) => event.type === "status" && event.event === "leave")
  );
  assertEquals(limits.countOf("a"), 2);
  await recorder.until(({ events }) => events.at(-1)?.type === "status" && events.length >= 7);
  assertEquals(limits.countOf("a"), 3);
});

for (const order of ["throw", "reject"] as const) {
  Deno.test(`a worker that dies (${order}) loses its members and nothing else, and is replaced`, async () => {
    await using made = await launch(2);
    const { engine, recorder, log } = made;
    await made.reported(2);
    const before = await granted(engine.publish("said", { sender: "Ann", message: '"before"' }));
    await made.order(1, order);
    await recorder.until(({ events }) => events.at(-1)?.type === "status" && events.length >= 4);
    const told = recorder.events.map((event) => event.type === "status" ? event.event : event.type);
    assertEquals(told.slice(0, 4), ["join", "chat", "leave", "join"]);
    assertEquals(await engine.members("said"), people("Worker 1"));
    const after = await granted(engine.publish("said", { sender: "Ann", message: '"after"' }));
    assertEquals(after, { epoch: before.epoch, seq: before.seq + 1 });
    assertEquals(log.of("worker_died").map(({ level, fields }) => [level, fields.peer]), [
      ["error", 1],
    ]);
    // What the dead worker counted counts on; what it had is gone.
    const sums = await made.reported(2);
    assertEquals([sums["worker-1"], sums.messagesIn], [1, 10]);
    await made.order(1, "report");
    await recorder.until(({ chats }) => chats.at(-1)?.sender === "worker-1");
  });
}

for (const order of ["close", "hang"] as const) {
  Deno.test(`a worker that falls silent (${order}) is replaced`, async () => {
    const clock = new FakeClock();
    await using made = await launch(2, clock);
    for (let beat = 0; beat < 4; beat++) {
      clock.tick(5_000);
      // Whoever is forgotten and counts again has reported since the beat.
      await made.order(1, "report");
      await made.recorder.until(({ chats }) => chats.length === beat + 1);
    }
    assertEquals(made.log.of("worker_died"), []);
    await made.order(1, order);
    const isGone = () =>
      made.recorder.events.some((e) => e.type === "status" && e.event === "leave");
    await eventually(() => clock.tick(5_000), isGone);
    await made.recorder.until(({ events }) => events.at(-1)?.type === "status");
    await made.reported(2);
    assertEquals(made.log.of("worker_died").length, 1);
  });
}

Deno.test("a worker that takes nothing any more is replaced before what it is sent fills the memory", async () => {
  await using made = await launch(2, new FakeClock());
  const { engine, recorder } = made;
  await made.order(1, "hang");
  const message = JSON.stringify("x".repeat(1_000_000));
  let sent = 0;
  const isGone = () => recorder.events.some((e) => e.type === "status" && e.event === "leave");
  while (!isGone() && sent < 100) {
    await granted(engine.publish("worker-1", { sender: "main", message }));
    sent++;
  }
  assert(sent > 60 && sent < 70, `${sent} MB were sent`);
  assertEquals(made.log.of("worker_died").length, 1);
  await made.reported(2);
});

Deno.test("launch() fails if a worker dies before it serves", async () => {
  await assertRejects(
    () => launch(3, systemClock, { failing: 2 }),
    SettingError,
    "Cannot start the workers: Uncaught (in promise) Error: no port is free",
  );
});
