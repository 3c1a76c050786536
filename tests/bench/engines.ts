/**
 * What the engines cost: acks a second, what an ack waits for, how late timers come, and what fan-out
 * keeps of the memory engine's. The durable engine's file lies in a folder of `--folder` (default: the
 * system's for temporary files), where a bare fdatasync is measured, too.
 *
 *     deno run -A tests/bench/engines.ts [--folder DIR] [--only REGEX] [--seconds S]
 *
 * @module
 */
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import { type Engine, isRefusal } from "../../handlers/engine/engine.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { RedisCluster } from "../support/redis_cluster.ts";
import { RedisServer, type RedisSettings } from "../support/redis_server.ts";
import { freePort } from "../support/process.ts";
import { Client } from "./client.ts";
import { readFlags } from "./flags.ts";
import { measureRow } from "./measure.ts";
import { figureOf } from "./results.ts";
import { ROWS } from "./rows.ts";
import { ANY_CORE, ServerProcess } from "./server_process.ts";
import { parleyCommand, type Server, SERVERS } from "./servers.ts";

const flags = readFlags(import.meta.url, "folder", "only", "seconds");
const LIMITS = { historySize: 100, historySeconds: 3_600, historyMb: 10_000, maxRooms: 20_000 };
const ROOMS = Array.from({ length: 20 }, (_, i) => `room-${i}`);
const MESSAGE = JSON.stringify("x".repeat(100));
const WARM_UP_MS = 1_000;
const SECONDS = Number(flags.seconds ?? 4);
/** Once its lease has lasted, a node looks through all rooms for what dead nodes left: that is over by then. */
const SETTLE_MS = 35_000;
const folder = await Deno.makeTempDir({ dir: flags.folder, prefix: "parley-bench-" });
let fileCount = 0;

/** Where a durable engine may begin anew. */
const newFile = () => `${folder}/${++fileCount}.db`;
const isWanted = (name: string) => new RegExp(flags.only ?? "").test(name);

function quantile(sorted: ArrayLike<number>, share: number): string {
  return sorted[Math.floor(share * (sorted.length - 1))].toFixed(2);
}

/** Has so many callers publish one message after the other on each node; each has an id, is kept and heard. */
async function measureAcks(label: string, nodes: Engine[], callers: number): Promise<void> {
  let heard = 0;
  const host = { subscriberCount: 1, deliver: () => heard++ };
  const distinct = [...new Set(nodes)];
  for (const node of distinct) {
    for (const room of ROOMS) await node.host(room, host);
  }
  let isOver = false;
  let acked = 0;
  let refused = 0;
  let waits: number[] = [];
  let turnedAt = 0;
  let turn: Promise<void> | undefined;
  const nextTurn = () =>
    turn ??= new Promise((resolve) =>
      setTimeout(() => {
        turnedAt = performance.now();
        turn = undefined;
        resolve();
      })
    );
  const publish = async (node: Engine, caller: number) => {
    const session = `session of caller ${caller}`;
    for (let i = 0; !isOver; i++) {
      const start = performance.now();
      const key = { session, id: String(i) };
      const room = ROOMS[(caller + i) % ROOMS.length];
      const place = await node.publish(room, { sender: "Ann", message: MESSAGE, key });
      if (isRefusal(place)) {
        refused++;
        await new Promise((resolve) => setTimeout(resolve, 10));
        continue;
      }
      acked++;
      waits.push(performance.now() - start);
      // An engine that answers at once must let the event loop go on.
      if (performance.now() - turnedAt > 5) await nextTurn();
    }
  };
  const all = nodes.flatMap((node, n) =>
    Array.from({ length: callers }, (_, i) => publish(node, n * callers + i))
  );
  await new Promise((resolve) => setTimeout(resolve, WARM_UP_MS));
  let [latestMs, lastTick] = [0, performance.now()];
  const ticking = setInterval(() => {
    const now = performance.now();
    latestMs = Math.max(latestMs, now - lastTick - 1);
    lastTick = now;
  }, 1);
  const start = performance.now();
  [acked, heard, waits] = [0, 0, []];
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1_000));
  clearInterval(ticking);
  const seconds = (performance.now() - start) / 1_000;
  const [acks, events] = [acked / seconds, heard / seconds].map(Math.round);
  const sorted = new Float64Array(waits).sort();
  console.log(
    `${label}, ${all.length} callers: ${acks} acks/s (${refused} refused), ${events} events/s on ${distinct.length} ` +
      `nodes; an ack waits ${quantile(sorted, 0.5)} ms (median), ${quantile(sorted, 0.99)} ms ` +
      `(99 %); a timer came at most ${latestMs.toFixed(1)} ms late`,
  );
  isOver = true;
  await Promise.all(all);
  await Promise.all(distinct.map((node) => node.close()));
}

/** What one write of a page and its fdatasync take on this disk. */
function measureDisk(): void {
  using file = Deno.openSync(`${folder}/disk`, { create: true, write: true });
  const page = new Uint8Array(4_096);
  const waits = Array.from({ length: 1_000 }, () => {
    const start = performance.now();
    file.writeSync(page);
    file.syncDataSync();
    return performance.now() - start;
  }).sort((a, b) => a - b);
  console.log(
    `disk: fdatasync takes ${quantile(waits, 0.5)} ms (median), ${quantile(waits, 0.99)} ms (99 %)`,
  );
}

/** How long a start takes that reads 10,000 rooms of 100 messages. */
async function measureStart(): Promise<void> {
  const file = newFile();
  const open = () => createDurableEngine(file, LIMITS, systemClock, silentLog);
  const engine = await open();
  for (let i = 0; i < 100; i++) {
    await Promise.all(
      Array.from(
        { length: 10_000 },
        (_, room) => engine.publish(`room-${room}`, { sender: "Ann", message: MESSAGE }),
      ),
    );
  }
  await engine.close();
  const start = performance.now();
  const again = await open();
  const seconds = (performance.now() - start) / 1_000;
  console.log(
    `durable: ${again.stats().rooms} rooms of 100 messages are read in ${seconds.toFixed(2)} s`,
  );
  await again.close();
}

/** What the durable engine leaves of the memory engine's fan-out over `parley.v1` sockets. */
async function measureFanOut(): Promise<void> {
  const memory = SERVERS.find(({ name }) => name === "parley-v1")!;
  const durable: Server = {
    ...memory,
    name: "durable",
    label: "durable",
    command: (address) => parleyCommand(address, { DATA_FILE: newFile() }),
  };
  const effort = { turns: 3, retries: 0, warmupSeconds: 0.5, seconds: SECONDS / 2 };
  for (const row of ROWS.filter(({ name }) => /^chat (200x200|10→1000)$/.test(name))) {
    const result = await measureRow(row, [memory, durable], effort, () => {});
    const [one, other] = ["parley-v1", "durable"].map((name) =>
      figureOf(result, name, "perSecond")
    );
    if (!one || !other) throw new Error(`Cannot measure ${row.name}: ${result.failures}`);
    console.log(
      `${row.name}: ${Math.round(one)} deliveries/s with memory, ${Math.round(other)} durable: ` +
        `${(other / one).toFixed(2)}`,
    );
  }
}

/** What 100,000 idle rooms on two nodes cost Redis. */
async function measureIdle(): Promise<void> {
  await using server = await RedisServer.start({ appendonly: "no" });
  const limits = { ...LIMITS, maxRooms: 100_000 };
  const make = () => createRedisEngine(server.url, limits, systemClock, silentLog);
  const nodes = [await make(), await make()];
  const host = { subscriberCount: 1, deliver() {} };
  for (let first = 0; first < 50_000; first += 1_000) {
    await Promise.all(
      nodes.flatMap((node, n) =>
        Array.from({ length: 1_000 }, (_, i) => node.host(`room-${n}-${first + i}`, host))
      ),
    );
  }
  const read = async () => {
    const info = await server.command("INFO", "cpu");
    const cpu = [...info.matchAll(/used_cpu_(?:user|sys):([\d.]+)/g)].map(([, s]) => Number(s));
    const commands = nodes.map((node) => node.stats().remote!.commands);
    return { cpu: cpu[0] + cpu[1], commands: commands[0] + commands[1] };
  };
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const [before, start] = [await read(), performance.now()];
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 5_000));
  const [after, seconds] = [await read(), (performance.now() - start) / 1_000];
  console.log(
    `redis: 100,000 idle rooms on 2 nodes send ${
      ((after.commands - before.commands) / seconds).toFixed(1)
    } commands/s, and take ${(100 * (after.cpu - before.cpu) / seconds).toFixed(1)} % of its core`,
  );
  await Promise.all(nodes.map((node) => node.close()));
}

/** How long 10,000 clients of 1,000 rooms wait for `welcome` and what they missed, once Redis has started again. */
async function measureReturn(): Promise<void> {
  await using redis = await RedisServer.start({ appendfsync: "always" });
  const node = await createRedisEngine(redis.url, LIMITS, systemClock, silentLog);
  const paths = await Promise.all(Array.from({ length: 1_000 }, async (_, i) => {
    const place = await node.publish(`room-${i}`, { sender: "Ann", message: MESSAGE });
    if (isRefusal(place)) throw new Error(`Cannot publish to room ${i}: ${place.refused}`);
    return `/chat/room-${i}?after=${place.epoch}:0`;
  }));
  await node.close();
  const address = freePort();
  const command = parleyCommand(address, { REDIS_URL: redis.url });
  const server = await ServerProcess.start(command, address, ANY_CORE);
  const countCommands = async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${address}/metrics`)).text();
    return Number(/^parley_engine_commands_total (\d+)/m.exec(metrics)?.[1]);
  };
  const before = await countCommands();
  await redis.stop();
  await redis.start();
  const start = performance.now();
  const decoder = new TextDecoder();
  const numbers = Array.from({ length: 10_000 }, (_, i) => i).values();
  const clients: Client[] = [];
  const heard: Promise<void>[] = [];
  await Promise.all(Array.from({ length: 500 }, async () => {
    for (const i of numbers) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      heard.push(promise);
      const target = { address, path: paths[i % paths.length], protocol: "parley.v1" };
      const line = (bytes: Uint8Array, from: number, to: number) => {
        if (decoder.decode(bytes.subarray(from, to)).includes('"type":"chat"')) resolve();
        return false;
      };
      clients.push(await Client.connect(target, { line, failed: reject }, 4_096));
    }
  }));
  await Promise.all(heard);
  const seconds = (performance.now() - start) / 1_000;
  console.log(
    `redis: 10,000 clients of 1,000 rooms have their welcome and what they missed ${
      seconds.toFixed(2)
    } s after a restart, with ${await countCommands() - before} commands`,
  );
  for (const client of clients) client.close();
  await server.stop();
}

measureDisk();
for (const callers of [1, 500]) {
  if (isWanted("memory")) {
    const memory = createMemoryEngine(LIMITS, systemClock);
    await measureAcks("memory", callers === 1 ? [memory] : [memory, memory], callers);
  }
  if (isWanted("durable")) {
    const durable = await createDurableEngine(newFile(), LIMITS, systemClock, silentLog);
    await measureAcks("durable", callers === 1 ? [durable] : [durable, durable], callers);
  }
  const settings: RedisSettings[] = [{ appendonly: "no" }, { appendfsync: "everysec" }, {
    appendfsync: "always",
  }];
  for (const setting of isWanted("redis") ? settings : []) {
    await using server = await RedisServer.start(setting);
    const make = () => createRedisEngine(server.url, LIMITS, systemClock, silentLog);
    const [name] = Object.entries(setting);
    await measureAcks(`redis (${name.join(" ")})`, [await make(), await make()], callers);
  }
  if (isWanted("cluster")) {
    await using cluster = await RedisCluster.start();
    const make = () => createRedisEngine(cluster.url, LIMITS, systemClock, silentLog);
    await measureAcks("redis cluster of 3", [await make(), await make()], callers);
  }
}
if (isWanted("idle")) await measureIdle();
if (isWanted("return")) await measureReturn();
if (isWanted("start")) await measureStart();
if (isWanted("fan-out")) await measureFanOut();
await Deno.remove(folder, { recursive: true });
