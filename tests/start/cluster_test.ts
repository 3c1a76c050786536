import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { createWorkersEngine } from "../../handlers/engine/workers.ts";
import { homeOf } from "../../handlers/engine/workers_home.ts";
import { addUp, checkWorkers, type Figures } from "../../handlers/start/cluster.ts";
import { createWorkers } from "../../handlers/start/threads.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { SettingError } from "../../handlers/util/setting_error.ts";
import { Client } from "../support/clients.ts";
import type { Order, ThreadSettings } from "./cluster_thread.ts";
import { range, ROOMY } from "../engine/contract.ts";
import { FakeClock, RecordingLog } from "../support/fakes.ts";
import { eventually, granted, hear } from "../support/recorder.ts";
import { ServerProcess } from "../support/process.ts";

const module = import.meta.resolve("./cluster_thread.ts");

/** Real workers, and an engine in this thread, which is worker 0. */
async function launch(count: number, clock = systemClock as typeof systemClock | FakeClock) {
  const log = new RecordingLog();
  const workers = createWorkers<ThreadSettings>({ count, module, log, clock });
  const { ports } = workers;
  const engine = createWorkersEngine({ ports, limits: ROOMY, clock: systemClock, log: silentLog });
  let drains = 0;
  workers.serve({
    figures: () => ({ index: 0, rooms: engine.stats().rooms }),
    drain: () => Promise.resolve(void drains++),
    replacePeer: engine.replacePeer,
  });
  await workers.launch({ limits: ROOMY });
  const { recorder } = await hear(engine, "said");
  return {
    workers,
    engine,
    log,
    recorder,
    drains: () => drains,
    /** The worker does it when it hears it. */
    async order(worker: number, order: Order): Promise<void> {
      const message = JSON.stringify(order);
      await granted(engine.publish(`worker-${worker}`, { sender: "main", message }));
    },
    /** Tells a worker something that it dies of, whose answer may be lost with it. */
    tell(worker: number, order: Order): void {
      void engine.publish(`worker-${worker}`, { sender: "main", message: JSON.stringify(order) });
    },
    async [Symbol.asyncDispose]() {
      workers.end();
      await engine.close();
    },
  };
}

async function indexes(figures: () => Promise<Figures[]>): Promise<unknown[]> {
  return (await figures()).map(({ index }) => index);
}

Deno.test("addUp() adds number by number, those of one worker alone too", () => {
  const sum = addUp([
    { clients: 1, refusals: { bad_json: 2 } },
    { clients: 2, refusals: { bad_json: 3, forbidden: 1 } },
    { clients: 4, refusals: {}, late: 8 },
  ]);
  assertEquals(sum, { clients: 7, refusals: { bad_json: 5, forbidden: 1 }, late: 8 });
  assertEquals(addUp([]), {});
});

Deno.test("figures() brings those of all workers, whichever is asked", async () => {
  await using made = await launch(3);
  assertEquals(await indexes(made.workers.figures), [0, 1, 2]);
  await made.order(2, "figures");
  await made.recorder.until(({ chats }) => chats.length === 1);
  const figures = JSON.parse(made.recorder.messages[0]) as Record<string, number>[];
  assertEquals(figures.map(({ index }) => index), [0, 1, 2]);
  assert(figures.reduce((sum, { rooms }) => sum + rooms, 0) >= 3);
});

Deno.test("drain() drains every worker; their engines go on", async () => {
  await using made = await launch(3);
  await made.workers.drain();
  await made.recorder.until(({ chats }) => chats.length === 2);
  assertEquals(made.drains(), 1);
  assertEquals(made.recorder.chats.map(({ sender }) => sender).toSorted(), [
    "worker-1",
    "worker-2",
  ]);
});

for (const order of ["throw", "reject"] as const) {
  Deno.test(`a worker that dies (${order}) is replaced, and its rooms begin anew`, async () => {
    await using made = await launch(3);
    const { engine, workers, log } = made;
    const room = range(1, 100).map((i) => `room-${i}`)
      .find((room) => homeOf(room, [0, 1, 2]) === 1)!;
    const { recorder } = await hear(engine, room);
    await engine.join(room, "m1", "Ann");
    made.tell(1, order);
    await recorder.until(({ events }) => events.some(({ type }) => type === "reset"));
    assertEquals(await engine.members(room), { names: ["Ann"], count: 1 });
    await eventually(() => indexes(workers.figures), (all) => all.join() === "0,1,2");
    const [line] = log.of("worker_died");
    assertEquals([line.level, line.fields.peer], ["error", 1]);
    await made.order(1, "figures");
    await made.order(2, "figures");
    await made.recorder.until(({ chats }) => chats.length === 2);
  });
}

for (const order of ["close", "hang"] as const) {
  Deno.test(`a worker that falls silent (${order}) is replaced`, async () => {
    const clock = new FakeClock();
    await using made = await launch(2, clock);
    for (let beat = 0; beat < 4; beat++) {
      clock.tick(5_000);
      assertEquals(await indexes(made.workers.figures), [0, 1]);
    }
    assertEquals(made.log.of("worker_died"), []);
    made.tell(1, order);
    const figures = made.workers.figures();
    for (let beat = 0; beat < 3; beat++) clock.tick(5_000);
    assertEquals(await indexes(() => figures), [0]);
    await eventually(() => indexes(made.workers.figures), (all) => all.join() === "0,1");
    assertEquals(made.log.of("worker_died").length, 1);
  });
}

Deno.test("launch() fails if a worker dies before it serves", async () => {
  const workers = createWorkers<ThreadSettings>({
    count: 3,
    module,
    log: silentLog,
    clock: systemClock,
  });
  await assertRejects(
    () => workers.launch({ limits: ROOMY, failing: 2 }),
    Error,
    "Cannot start the workers: Uncaught (in promise) Error: no port is free",
  );
  workers.end();
  for (const port of workers.ports) port?.close();
});

Deno.test("checkWorkers() takes one worker anywhere, several where a port can be shared", () => {
  checkWorkers(1, "/run/parley.sock");
  checkWorkers(2, "");
  assertThrows(() => checkWorkers(2, "/run/parley.sock"), SettingError, "SOCKET_PATH");
  const { listenDatagram } = Deno;
  Reflect.deleteProperty(Deno, "listenDatagram");
  try {
    assertThrows(() => checkWorkers(2, ""), SettingError, "--unstable-net");
  } finally {
    Object.assign(Deno, { listenDatagram });
  }
});

Deno.test("WORKERS=2 is one server: its rooms, figures and signals are those of both", async () => {
  await using server = await ServerProcess.start(["--workers", "2", "--drain-seconds", "0"]);
  const clients: Client[] = [];
  // The system spreads connections by chance: it is one in 2 ** 23 that one worker has them all.
  for (const i of range(1, 24)) clients.push(await Client.open(`${server.ws}/chat/room-${i % 2}`));
  const lines = server.lines();
  assert(lines.some((line) => /parley 1: Client connected/.test(line)), "worker 1 has none");
  assert(lines.some((line) => /parley(?: 0)?: Client connected/.test(line)), "worker 0 has none");
  for (const client of clients.slice(0, 2)) client.send({ type: "join", name: "Ann" });
  for (const client of clients) {
    assertEquals(await client.nextObject(), { type: "status", message: "Ann joined the chat." });
  }
  for (let i = 0; i < 4; i++) {
    const { rooms } = await (await fetch(`${server.url}/rooms`)).json();
    assertEquals(
      rooms,
      [0, 1].map((n) => (
        { room: `room-${n}`, members: 1, listeners: 12, seq: 0 }
      )),
    );
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    assert(metrics.includes('parley_connections{dialect="plain"} 24\n'), metrics);
  }
  server.kill("SIGTERM");
  for (const { closed } of clients) assertEquals((await closed).code, 1001);
  assertEquals((await server.status).code, 0);
});
