import { assert, assertEquals, assertRejects } from "@std/assert";
import { DEFAULT_LIMITS } from "../../handlers/access/limits.ts";
import { LimitTable } from "../../handlers/access/shared_limits.ts";
import { createApp } from "../../handlers/app.ts";
import { connect, type ParleyError } from "../../handlers/client/client.js";
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { addUp } from "../../handlers/registry/counters.ts";
import { shareEngine } from "../../handlers/engine/shared.ts";
import { runApp } from "../../handlers/run_app.ts";
import { createWorkers } from "../../handlers/start/workers.ts";
import { type Clock, systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { SettingError } from "../../handlers/start/setting_error.ts";
import { ROOMY } from "../engine/contract.ts";
import { StateTraffic } from "../faults/state_traffic.ts";
import { FakeClock, RecordingLog } from "../support/fakes.ts";
import { freePort } from "../support/process.ts";
import { eventually, granted, hear, people, within } from "../support/recorder.ts";
import { sized } from "../support/run.ts";
import { range } from "../support/v1.ts";
import { type Order, type ThreadSettings, UNLIMITED } from "./workers_thread.ts";

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
    async reported(all: number) {
      const sum = async () => addUp(await workers.report({ main: 1, all: 1 }));
      return await eventually(sum, (sums) => sums.all === all);
    },
    async [Symbol.asyncDispose]() {
      await workers.stop();
      await engine.close();
    },
  };
}

// Deno checks the types of a thread's module until it has done so once: here one thread starts alone.
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

Deno.test("report() answers what each thread counted and the dead had, whichever reports", async () => {
  await using made = await launch(3);
  await made.reported(3);
  await made.order(2, "report");
  await made.recorder.until(({ chats }) => chats.length === 1);
  const worker = (index: number) => ({ [`worker-${index}`]: 1, all: 1, messagesIn: 5 });
  assertEquals(JSON.parse(made.recorder.messages[0]), [
    ...[{ main: 1, all: 1 }, worker(1), worker(2)],
    {},
  ]);
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
  await made.order(1, "isFull");
  await recorder.until(({ chats }) => chats.length === 3);
  limits.release("b");
  await made.order(1, "acquire");
  await recorder.until(({ chats }) => chats.length === 4);
  assertEquals(recorder.messages.slice(2), ["true", '"too_many_connections"']);
  await made.order(2, "throw");
  await recorder.until(({ events }) =>
    events.some((event) => event.type === "status" && event.event === "leave")
  );
  assertEquals(limits.countOf("a"), 2);
  await recorder.until(({ events }) => events.at(-1)?.type === "status" && events.length >= 8);
  assertEquals(limits.countOf("a"), 3);
});

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

const KILLS = sized(2, 20);

/** A client that talks without a pause, and writes down what it hears. */
function startTalker(port: number, name: string) {
  const heard: { epoch: string; seq: number; message: unknown }[] = [];
  const errors: ParleyError[] = [];
  const acked = new Map<number, unknown>();
  const counts = { welcomes: 0, gaps: 0 };
  let isOver = false;
  const client = connect(`ws://127.0.0.1:${port}/chat/ops`, {
    name,
    onMessage: ({ epoch, seq, message }) => void heard.push({ epoch, seq, message }),
    onWelcome: () => void counts.welcomes++,
    onGap: () => void counts.gaps++,
    onError: (error) => void errors.push(error),
  });
  const talking = (async () => {
    for (let index = 0; !isOver; index++) {
      const message = `${name} ${index}`;
      const { seq } = await client.send(message);
      acked.set(seq, message);
    }
  })();
  const stop = () => {
    isOver = true;
    return talking;
  };
  return { client, heard, errors, acked, counts, stop };
}

Deno.test(`a worker that is killed ${KILLS} times in traffic: its sockets come back, its bound keys go, no room with a file loses anything`, async () => {
  // Before Math.random is replaced: a port that is always the same would be another run's, too.
  const port = freePort();
  const { random } = Math;
  // The shortest waits before a client comes back.
  Math.random = () => 0.01;
  const folder = await Deno.makeTempDir();
  const limits = { ...ROOMY, historySize: 100_000 };
  const open = () => createDurableEngine(`${folder}/parley.db`, limits, systemClock, silentLog);
  const shared = shareEngine(await open());
  const workers = createWorkers<ThreadSettings>({
    count: 2,
    module,
    shared,
    limits: new LimitTable({ ...DEFAULT_LIMITS, ...UNLIMITED }, systemClock),
    log: new RecordingLog(),
    clock: systemClock,
  });
  await workers.launch({ port });
  const parley = runApp(createApp({ engine: workers.engine, threads: workers, limits: UNLIMITED }));
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, parley.fetch);

  const visitors = ["Ann", "Bob"].map((name) => startTalker(port, name));
  const all = [...visitors, startTalker(server.addr.port, "Cy")];
  const urlOf = (room: string) => `ws://127.0.0.1:${port}/chat/${room}`;
  const node = { urlOf, port: server.addr.port };
  await using state = new StateTraffic([node], "ops", 6);
  for (const kill of range(1, KILLS + 1)) {
    await eventually(
      () => visitors.map(({ counts, acked }) => [counts.welcomes, acked.size]),
      (counts) => counts.every(([welcomes, acks]) => welcomes >= kill && acks > 10 * kill),
    );
    await within(30_000, () => state.untilOnlyLiving(node));
    if (kill <= KILLS) {
      await workers.engine.publish("worker-1", { sender: "main", message: '"throw"' });
    }
  }
  await Promise.all(all.map(({ stop }) => stop()));
  await state.stop();
  const span = await granted(workers.engine.read("ops"));
  for (const { heard } of all) await eventually(() => heard.at(-1)?.seq, (seq) => seq === span.seq);
  for (const { client } of all) client.close();
  await workers.stop();
  await parley[Symbol.asyncDispose]();
  await server.shutdown();
  await workers.engine.close();
  Math.random = random;
  const again = await open();
  assertEquals(await again.read("ops"), span, "what the file has");
  await again.close();
  await Deno.remove(folder, { recursive: true });

  const kept = new Map(span.chats.map(({ seq, message }) => [seq, JSON.parse(message)]));
  assertEquals(kept.size, span.seq);
  for (const { heard, errors, acked, counts } of all) {
    assertEquals([errors, counts.gaps], [[], 0]);
    for (const [seq, message] of acked) assertEquals(kept.get(seq), message);
    const first = heard[0].seq;
    assertEquals(heard.map(({ seq }) => seq), range(first, span.seq));
    for (const { epoch, seq, message } of heard) {
      assertEquals([epoch, message], [span.epoch, kept.get(seq)]);
    }
  }
  const texts = new Set(kept.values());
  assertEquals(texts.size, kept.size, "a message was published twice");
});
