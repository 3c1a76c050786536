import { assertEquals, assertGreater, assertMatch } from "@std/assert";
import { isRefusal } from "../../handlers/engine/engine.ts";
import { publishStats, type Stats, STATS_ROOM } from "../../handlers/http/stats.ts";
import { addUp } from "../../handlers/registry/counters.ts";
import { createTestApp, type TestAppOptions } from "../support/fakes.ts";

/** A server whose figures are published, and a look at the last ones. */
function createWatched(options: TestAppOptions = {}) {
  const server = createTestApp(options);
  const { app, registry, clock } = server;
  const machine = { cpu: 0, cpuSeconds: () => machine.cpu, rssBytes: () => 123_456_789, host: "h" };
  const stop = publishStats(app, machine);
  const all = async (): Promise<Stats[]> => {
    const span = await registry.engineOf(STATS_ROOM).read(STATS_ROOM);
    return isRefusal(span) ? [] : span.chats.map(({ message }) => JSON.parse(message));
  };
  return {
    ...server,
    machine,
    stop,
    all,
    second: async () => (clock.tick(1_000), (await all()).at(-1)!),
  };
}

Deno.test("publishStats() tells once a second what happened in it", async () => {
  const { connect, second, all, registry, stop, machine } = createWatched();
  assertEquals(await all(), []);
  const first = await second();
  assertMatch(first.version, /^\d+\.\d+\.\d+$/);
  const quiet = {
    version: first.version,
    host: "h",
    upSeconds: first.upSeconds,
    workers: 1,
    maxConnections: 10_000,
    watchers: 0,
    reconnects: 0,
    lagMs: 0,
    cpu: 0,
    connections: { plain: 0, v1: 0, echo: 0, events: 0 },
    rooms: 0,
    members: 0,
    messagesIn: 0,
    deliveries: 0,
    bytesOut: 0,
    evictions: 0,
    refusals: 0,
    queueBytes: 0,
    rssMb: 123.5,
    engine: { name: "memory", isReady: true, rooms: 0, historyBytes: 0 },
  };
  assertEquals<unknown>(first, quiet);

  const ann = await connect("/chat/ops");
  const bob = await connect("/chat/ops");
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "chat", message: "Hi" });
  bob.say("{");
  machine.cpu += 0.25;
  const busy = await second();
  assertGreater(busy.engine.historyBytes, 0);
  assertEquals<unknown>(busy, {
    ...quiet,
    upSeconds: busy.upSeconds,
    cpu: 0.25,
    connections: { plain: 2, v1: 0, echo: 0, events: 0 },
    rooms: 1,
    members: 1,
    messagesIn: 3,
    // The status and the message, to both.
    deliveries: 4,
    refusals: 1,
    bytesOut: [ann, bob].flatMap(({ frames }) => frames).join("").length,
    engine: { ...busy.engine, rooms: 1 },
  });

  // The next second counts anew; what is, stays.
  bob.isStuck = true;
  bob.bufferedAmount = 500;
  const next = await second();
  assertEquals([next.messagesIn, next.bytesOut, next.refusals], [0, 0, 0]);
  assertEquals([next.connections.plain, next.queueBytes], [2, 500]);
  registry.isDraining = true;
  assertEquals((await second()).shut, "draining");
  stop();
  assertEquals((await all()).length, 4);
  await second();
  assertEquals((await all()).length, 4);
});

Deno.test("publishStats() tells rates by the second, even if a busy process looks late", async () => {
  const { registry, clock, second } = createWatched();
  registry.counters.messagesIn += 600;
  const now = clock.now.bind(clock);
  clock.now = () => now() + 2_000;
  const { messagesIn, lagMs } = await second();
  assertEquals([messagesIn, lagMs], [200, 2_000]);
});

Deno.test("publishStats() tells no rate while a worker is started again", async () => {
  const { app, registry, clock, all } = createWatched();
  let count = 2;
  app.threads = {
    index: 0,
    engine: registry.engineOf(""),
    limits: app.sharedLimits,
    report: (figures) => Promise.resolve(addUp(Array(count).fill(figures))),
  };
  const messagesIn = async () => {
    clock.tick(1_000);
    await new Promise((resolve) => setImmediate(resolve));
    return (await all()).at(-1)!.messagesIn;
  };
  await messagesIn();
  registry.counters.messagesIn += 5;
  assertEquals(await messagesIn(), 10);
  count = 1;
  assertEquals(await messagesIn(), 0);
  count = 2;
  assertEquals(await messagesIn(), 0);
  registry.counters.messagesIn = 0;
  assertEquals(await messagesIn(), 0);
});

Deno.test("publishStats() tells how long fan-out took: the bound that a share kept to", async () => {
  const { registry, second } = createWatched();
  const { fanOutSeconds } = registry.counters;
  assertEquals((await second()).fanOutMs, undefined);
  for (let i = 0; i < 98; i++) fanOutSeconds.add(0.0002);
  fanOutSeconds.add(0.003);
  fanOutSeconds.add(0.07);
  assertEquals((await second()).fanOutMs, { p50: 0.25, p99: 5 });
  fanOutSeconds.add(60);
  assertEquals((await second()).fanOutMs, { p50: 1_000, p99: 1_000 });
  assertEquals((await second()).fanOutMs, undefined);
});

Deno.test("the room _stats can be heard by everybody, with the last five minutes", async () => {
  const { connect, clock, second } = createWatched();
  clock.tick(3_000);
  const socket = await connect("/chat/_stats?history=2", { dialect: "v1" });
  await second();
  await Promise.resolve();
  const heard = socket.objects as { type: string; sender?: string; message?: Stats }[];
  assertEquals(heard.map(({ type }) => type), ["welcome", "chat", "chat", "chat"]);
  assertEquals(heard[3].sender, "parley");
  assertEquals(heard[3].message?.watchers, 1);
});

Deno.test("who only watches the room _stats is in no other figure", async () => {
  const { connect, second } = createWatched();
  const quiet = await second();
  for (const dialect of ["v1", "plain"] as const) await connect("/chat/_stats", { dialect });
  await second();
  const { upSeconds: _, ...watched } = await second();
  const { upSeconds: __, ...before } = quiet;
  assertEquals(watched, { ...before, watchers: 2 });
  // Who hears another room, too, is a client like others.
  const both = await connect("/chat/_stats", { dialect: "v1" });
  both.say({ type: "listen", room: "ops" });
  const { connections, watchers, rooms } = await second();
  assertEquals([connections.v1, watchers, rooms], [1, 2, 1]);
});

Deno.test("publishStats() tells what happened, in the second when it did", async () => {
  const { registry: { counters }, second } = createWatched();
  counters.recoveries.complete += 2;
  counters.recoveries.partial++;
  counters.refuse("bad_json");
  counters.closes.tooSlow++;
  const { reconnects, refusals, evictions } = await second();
  assertEquals([reconnects, refusals, evictions], [3, 1, 1]);
  assertEquals((await second()).reconnects, 0);
});
