import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import process from "node:process";
import { isRefusal, type RemoteStats } from "../../handlers/engine/engine.ts";
import { readFigures, total } from "../../handlers/http/metrics.ts";
import { type NodeRow, publishStats, type Stats } from "../../handlers/http/stats.ts";
import { NODES_ROOM, STATS_ROOM } from "../../handlers/protocol/parse.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { subscribe } from "../../handlers/registry/membership.ts";
import { Program } from "../../handlers/registry/stream_subscriber.ts";
import {
  createTestApp,
  RecordingLog,
  type TestApp,
  type TestAppOptions,
} from "../support/fakes.ts";
import { range } from "../support/v1.ts";

/** One metric of the text format: its type, its help, and its samples by name and labels. */
interface Family {
  type: string;
  help: string;
  samples: Map<string, number>;
}

/** Reads the text format. https://prometheus.io/docs/instrumenting/exposition_formats/ */
function parse(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  let family: Family | undefined;
  assert(text.endsWith("\n"), "the last line ends, too");
  for (const line of text.split("\n")) {
    const [, kind, name, rest] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (kind === "HELP") {
      assert(!families.has(name), `${name} stands twice`);
      families.set(name, family = { type: "", help: rest, samples: new Map() });
    } else if (kind === "TYPE") family!.type = rest;
    else if (line !== "") {
      const [, sample, value] = /^([a-z_]+(?:\{[a-z]+="[^"\\\n]*"\})?) (\S+)$/.exec(line) ?? [];
      assert(sample, `no sample: ${line}`);
      family!.samples.set(sample, Number(value));
    }
  }
  return families;
}

async function scrape(server: TestApp): Promise<Map<string, Family>> {
  const response = await server.ask("/metrics");
  assertEquals(response.status, 200);
  assertMatch(response.headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
  assertEquals(response.headers.get("cache-control"), "no-store");
  return parse(await response.text());
}

/** The samples of a scrape, by what names them behind `parley_`. */
async function samples(server: TestApp): Promise<(name: string) => number | undefined> {
  const families = await scrape(server);
  const all = new Map([...families.values()].flatMap(({ samples }) => [...samples]));
  return (name) => all.get(`parley_${name}`);
}

Deno.test("/metrics counts what the server does", async () => {
  const turn = new Turn(() => {});
  const server = createTestApp({ turn, settings: { MAX_QUEUE_BYTES: 5_000 } });
  const ann = await server.connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  turn.flush();
  const bob = await server.connect("/chat/ops");
  await server.connect("/echo");
  const events = await server.ask("/rooms/ops/events");
  const say = '{"type":"chat","message":"Hi"}';
  ann.say(range(1, 3).map(() => say).join("\n"));
  turn.flush();
  bob.say("{");
  bob.bufferedAmount = 5_001;
  ann.say({ type: "chat", message: "x".repeat(1_000) });
  turn.flush();
  const seq = 4;
  const { epoch } = ann.objects[0] as { epoch: string };
  for (const after of [`${epoch}:${seq}`, `${epoch}:2`, "other:1"]) {
    await server.connect(`/chat/ops?after=${after}`, { dialect: "v1" });
  }
  turn.flush();
  await new Promise((resolve) => setImmediate(resolve));

  const read = await samples(server);
  const expect = (all: Record<string, number>) => {
    for (const [name, value] of Object.entries(all)) {
      assertEquals([name, read(name)], [name, value]);
    }
  };
  expect({
    'connections{dialect="v1"}': 4,
    'connections{dialect="plain"}': 0,
    'connections{dialect="echo"}': 1,
    'connections{dialect="events"}': 1,
    held_connections: 7,
    rooms: 1,
    members: 1,
    received_messages_total: 6,
    'closes_total{reason="too_slow"}': 1,
    'closes_total{reason="going_away"}': 0,
    'refusals_total{code="bad_json"}': 1,
    'recoveries_total{result="complete"}': 2,
    'recoveries_total{result="partial"}': 1,
    'engine_ready{engine="memory"}': 1,
    engine_rooms: 1,
    // The status alone, three messages together, the long one.
    'batch_messages_bucket{le="1"}': 2,
    'batch_messages_bucket{le="2"}': 2,
    'batch_messages_bucket{le="4"}': 3,
    'batch_messages_bucket{le="+Inf"}': 3,
    batch_messages_sum: 5,
    batch_messages_count: 3,
    fan_out_seconds_count: 1,
  });
  const joined = 1, each = 3, missed = 2 + 4;
  // Ann hears all; Bob and the stream hear the chats.
  assertEquals(read("deliveries_total"), joined + 3 * (each + 1) + missed);
  assertGreater(read("history_bytes")!, 1_000);
  assertGreater(read("received_bytes_total")!, 1_000);
  assertGreater(read("sent_bytes_total")!, read("received_bytes_total")!);
  assertEquals(read("sent_frames_total"), [ann, bob].flatMap(({ frames }) => frames).length + 3);
  assertGreater(read("fan_out_seconds_sum")!, 0);
  // The stream that nobody reads.
  assertGreater(read("queue_bytes")!, 1_000);
  await events.body!.cancel();
});

Deno.test("/metrics tells of the engine's servers, whichever thread is asked", async () => {
  const main = createTestApp();
  assertEquals((await samples(main))("engine_commands_total"), undefined);
  const stats = main.engine.stats();
  const remote = { commands: 7, reconnects: 2, roundTrips: 4, roundTripSeconds: 0.5 };
  main.engine.stats = () => ({ ...stats, remote });
  const worker = createTestApp();
  worker.app.threads = {
    index: 1,
    engine: worker.engine,
    limits: worker.app.sharedLimits,
    report: (figures) => Promise.resolve([readFigures(main.app), figures]),
  };
  for (const server of [main, worker]) {
    const read = await samples(server);
    assertEquals(
      ["commands", "reconnects", "round_trips", "round_trip_seconds"].map((name) =>
        read(`engine_${name}_total`)
      ),
      [7, 2, 4, 0.5],
    );
  }
});

Deno.test("/metrics keeps the conventions of Prometheus", async () => {
  const families = await scrape(createTestApp());
  assert(families.size > 20);
  for (const [name, { type, help, samples }] of families) {
    assertMatch(name, /^(parley|process)_[a-z]+(_[a-z]+)*$/);
    // Base units, and `_total` behind what only grows. https://prometheus.io/docs/practices/naming/
    assert(!/_(ms|milliseconds|kb|mb|kilobytes|megabytes)(_|$)/.test(name), name);
    assertEquals(name.endsWith("_total"), type === "counter", name);
    assertMatch(help, /^[A-Z].*\.$/);
    for (const sample of samples.keys()) assert(sample.startsWith(name));
    if (type !== "histogram") continue;
    const counts = [...samples].filter(([key]) => key.includes("_bucket")).map(([, n]) => n);
    assertEquals(counts, counts.toSorted((a, b) => a - b));
    assertEquals(counts.at(-1), samples.get(`${name}_count`));
  }
  const { samples } = families.get("process_resident_memory_bytes")!;
  assertGreater([...samples.values()][0], 10_000_000);
  assertGreater([...families.get("process_cpu_seconds_total")!.samples.values()][0], 0.01);
  const [start] = families.get("process_start_time_seconds")!.samples.values();
  // Both are read from clocks that a machine may set: hours apart they would be, were it another.
  assertLess(Math.abs(start - (Date.now() / 1_000 - process.uptime())), 60);
});

Deno.test("/metrics has no label that grows with rooms, names or addresses", async () => {
  const server = createTestApp();
  const count = async () =>
    [...(await scrape(server)).values()].reduce((sum, { samples }) => sum + samples.size, 0);
  await server.connect("/chat/a");
  const before = await count();
  for (const index of range(1, 50)) {
    const info = {
      remoteAddr: { transport: "tcp", hostname: `10.0.0.${index}`, port: 1 },
    } as const;
    const socket = await server.connect(`/chat/room${index}`, { dialect: "v1", info });
    socket.say({ type: "join", name: `Name ${index}` });
    socket.say({ type: "chat", message: `Text ${index}` });
  }
  assertEquals(await count(), before);
  const text = await (await server.ask("/metrics")).text();
  for (const word of ["room5", "Name", "Text", "10.0"]) assert(!text.includes(word), word);
});

Deno.test("counting costs a message's way nothing but increments: one in 64 is timed", async () => {
  const turn = new Turn(() => {});
  const server = createTestApp({ turn, settings: { MESSAGE_RATE: 0 } });
  const ann = await server.connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  for (const _ of range(1, 640)) ann.say({ type: "chat", message: 1 });
  await new Promise((resolve) => setImmediate(resolve));
  assertEquals(total(server.registry.counters.fanOutSeconds.counts), 10);
  assertStringIncludes(await (await server.ask("/metrics")).text(), "fan_out_seconds_count 10\n");
});

Deno.test("/metrics counts failed reads of the keys and dropped lines of the log", async () => {
  const figures = { keyFailures: 3 };
  const authorize = Object.assign(() => ({ admin: true }), { figures });
  const log = Object.assign(new RecordingLog(), { droppedCount: 7 });
  const read = await samples(createTestApp({ authorize, log }));
  assertEquals([read("key_failures_total"), read("log_dropped_total")], [3, 7]);
});

Deno.test("/metrics that failed once are there at the next scrape", async () => {
  const server = createTestApp();
  const { stats } = server.engine;
  server.engine.stats = () => {
    throw new Error("not now");
  };
  const failed = await server.ask("/metrics");
  assertEquals([failed.status, await failed.json()], [500, {
    type: "error",
    code: "internal",
    message: "Server error.",
  }]);
  server.engine.stats = stats;
  assertEquals((await samples(server))("engine_rooms"), 0);
});

/** A server whose figures are published, and a look at the last ones. */
function createWatched(options: TestAppOptions = {}) {
  const server = createTestApp(options);
  const { app, registry, clock } = server;
  const machine = { cpu: 0, cpuSeconds: () => machine.cpu, rssBytes: () => 123_456_789, host: "h" };
  const stop = publishStats(app, machine);
  const state = async (room: string) => {
    const span = await registry.engineOf(room).state(room);
    const entries = isRefusal(span) ? [] : span.entries.toSorted((a, b) => a.rev - b.rev);
    return entries.map(({ key, value }) => ({ key, value: JSON.parse(value) }));
  };
  const all = async (): Promise<Stats[]> => (await state(STATS_ROOM)).map(({ value }) => value);
  return {
    ...server,
    machine,
    stop,
    all,
    nodes: async (): Promise<NodeRow[]> => (await state(NODES_ROOM)).map(({ value }) => value),
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
    report: (figures) => Promise.resolve(Array(count).fill(figures)),
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

Deno.test("the state of the room _stats can be heard by everybody: the last five minutes", async () => {
  const { connect, clock, second, all } = createWatched();
  clock.tick(302_000);
  assertEquals((await all()).length, 300);
  const socket = await connect("/chat/_stats?state=1", { dialect: "v1" });
  await second();
  const heard = socket.objects as {
    type: string;
    entries?: { key: string }[];
    sender?: string;
    key?: string;
    value?: Stats;
  }[];
  const [welcome, ...state] = heard.slice(0, -1);
  assertEquals([welcome.type, state.flatMap(({ entries }) => entries).length], ["welcome", 300]);
  const { key, sender, value } = heard.at(-1)!;
  assertEquals([key, sender, value?.watchers], ["seconds/2", "parley", 1]);
});

Deno.test("seconds of the longest figures fit into the state, however small that is", async () => {
  for (const maxStateBytes of [262_144, 10_000]) {
    const { registry, machine, clock, all } = createWatched({
      settings: { MAX_STATE_BYTES: maxStateBytes },
    });
    machine.host = "h".repeat(64);
    const { counters } = registry;
    registry.isDraining = true;
    for (const _ of range(1, 302)) {
      for (const kind of ["messagesIn", "deliveries", "bytesOut", "members"] as const) {
        counters[kind] += 9_000_000_000;
      }
      for (const kind of ["plain", "v1", "echo", "events"] as const) {
        counters.connections[kind] = 9_000_000_000;
      }
      counters.refusals.bad_json = (counters.refusals.bad_json ?? 0) + 9_000_000_000;
      counters.fanOutSeconds.add(0.00025);
      clock.tick(1_000);
    }
    const kept = await all();
    assertEquals(kept.length, Math.min(300, Math.floor(maxStateBytes / 850)));
    assertEquals(new Set(kept.map(({ refusals }) => refusals)), new Set([9_000_000_000]));
  }
});

Deno.test("the room _nodes has each thread as it is now, while somebody listens", async () => {
  const { connect, app, registry, engine, clock, nodes, machine } = createWatched();
  const worker = readFigures(app);
  app.threads = {
    index: 0,
    engine: registry.engineOf(""),
    limits: app.sharedLimits,
    report: (figures) => Promise.resolve([figures, { ...worker }, {}]),
  };
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const second = async () => {
    clock.tick(1_000);
    await turn();
    return await nodes();
  };
  assertEquals(await second(), []);
  const viewer = await connect("/chat/_stats?state=1", { dialect: "v1" });
  viewer.say({ type: "listen", room: "_nodes", state: true });
  await connect("/chat/ops");
  await second();
  registry.counters.messagesIn += 5;
  worker.deliveries += 7;
  machine.cpu++;
  const [main, other] = await second();
  assertEquals([main.worker, main.clients, main.messagesIn, main.deliveries], [0, 1, 5, 0]);
  assertEquals([other.worker, other.clients, other.messagesIn, other.deliveries], [1, 0, 0, 7]);
  assertEquals([other.host, other.maxConnections, other.lagMs], ["h", 10_000, 0]);
  // Another thread says nothing of nodes, and a node that has ended is forgotten.
  const { threads } = app;
  app.threads = { ...threads, index: 1 };
  for (const _ of range(1, 4)) assertEquals((await second()).length, 2);
  assertEquals(await second(), []);
  // Who listens at another node counts, and where the engine is away there is no harm.
  app.threads = threads;
  viewer.end();
  assertEquals(await second(), []);
  const [{ historyBytes, rooms }, remote] = [engine.stats(), {}];
  engine.stats = () => ({ historyBytes, rooms, remote: remote as RemoteStats });
  engine.rooms = () => [];
  assertEquals(await second(), []);
  engine.rooms = () => ({ refused: "unavailable" });
  assertEquals(await second(), []);
  engine.rooms = () => [{ room: "_nodes", members: 0, listeners: 1, seq: 0 }];
  assertEquals((await second()).length, 2);
});

Deno.test("who only watches the server's own rooms is in no other figure", async () => {
  const { connect, registry, second } = createWatched();
  const quiet = await second();
  for (const dialect of ["v1", "plain"] as const) await connect("/chat/_stats", { dialect });
  await second();
  const { upSeconds: _, ...watched } = await second();
  const { upSeconds: __, ...before } = quiet;
  assertEquals(watched, { ...before, watchers: 2 });
  // Who hears another room, too, is a client like others.
  const both = await connect("/chat/_stats", { dialect: "v1" });
  both.say({ type: "listen", room: "_nodes" });
  const { watchers: three, messagesIn } = await second();
  assertEquals([three, messagesIn], [3, 0]);
  both.say({ type: "listen", room: "ops" });
  // A program is no client, whatever it hears.
  subscribe(registry.room("_stats"), new Program(registry, () => {}), {});
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
