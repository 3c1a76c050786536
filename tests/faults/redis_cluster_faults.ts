/** A Redis Cluster loses primaries, and a slot moves, in the middle of traffic on two nodes. */
import { assert, assertEquals } from "@std/assert";
import { isRefusal } from "../../handlers/engine/engine.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import type { HistoryLimits } from "../../handlers/engine/room_rules.ts";
import { type Cluster, draft, engineContract, range, ROOMY } from "../engine/contract.ts";
import { stateContract } from "../engine/state_contract.ts";
import { freePort } from "../support/process.ts";
import { eventually, hear, untilGranted } from "../support/recorder.ts";
import { RedisCluster } from "../support/redis_cluster.ts";
import { patientClock, RedisServer, redisTest } from "../support/redis_server.ts";
import { IS_FULL } from "../support/run.ts";
import { runTogether, type Step } from "../support/together.ts";
import { addFault } from "./add_fault.ts";
import { moveSlots, ROOMS, startNode } from "./moving_slots.ts";
import { Traffic } from "./traffic.ts";

/** What takes longer than a newcomer's patience runs in `deno task faults`. */
function fullTest(name: string, fn: () => Promise<void>): void {
  if (IS_FULL) redisTest(name, fn, addFault);
}

let shared: RedisCluster;
const statements: Step[] = [];

/** Two nodes on the shared cluster, which is empty again when they have ended. */
async function make(limits: HistoryLimits): Promise<Cluster> {
  // A list of rooms is shared for a second: less of one here.
  const clock = { ...patientClock, elapsedMs: () => 20 * performance.now() };
  const open = async () => {
    const node = await createRedisEngine(shared.url, limits, clock, silentLog);
    // A busy machine may take longer than the engine waits.
    for (const room of ROOMS) await untilGranted(() => node.read(room));
    return node;
  };
  return { nodes: [await open(), await open()], stop: () => shared.empty() };
}

for (const contract of IS_FULL ? [engineContract, stateContract] : [stateContract]) {
  contract("redis cluster", make, (name, fn) => statements.push({ name, fn }));
}

redisTest("three shards, each with a replica, hold the contract", async (t) => {
  // A server that a busy machine or disk holds up is not replaced.
  const settings = { "appendonly": "no", "cluster-node-timeout": "60000" };
  await using cluster = await RedisCluster.start({ hasReplicas: true, settings });
  shared = cluster;
  await runTogether(t, statements, 1);
}, addFault);

redisTest("all rooms of a cluster hear notes again when connections were lost", async () => {
  await using cluster = await RedisCluster.start();
  await using one = await startNode(cluster.url);
  await using two = await startNode(cluster.url);
  const rooms = [...ROOMS, "six", "seven", "eight"];
  const heard = await Promise.all(rooms.map((room) => hear(one, room)));
  for (const server of cluster.servers) await server.command("CLIENT", "KILL", "TYPE", "pubsub");
  for (const [index, { recorder }] of heard.entries()) {
    await eventually(async () => {
      const note = { time: 1, sender: "Ann", message: "1" };
      two.relay(rooms[index], { type: "note", note });
      await two.read(rooms[index]);
      return recorder.events.length;
    }, (count) => count > 0);
  }
  assert(one.stats().remote!.reconnects >= 3);
}, addFault);

redisTest(
  "a slot that moves while its room talks loses no ack, and keeps one order",
  () => moveSlots(false),
  addFault,
);
fullTest("a slot that moves between primaries with replicas leaves no silent gap", () => {
  return moveSlots(true);
});

fullTest("one address of a cluster is told in the log, with the cure", async () => {
  await using cluster = await RedisCluster.start();
  const errors: string[] = [];
  const log = { ...silentLog, error: (text: string) => void errors.push(text) };
  const [url] = cluster.url.split(",");
  const engine = await createRedisEngine(url, ROOMY, systemClock, log);
  for (const room of ROOMS) await engine.publish(room, draft("x"));
  assertEquals(errors.length, 1);
  assert(errors[0].includes("name two or more of its addresses"), errors[0]);
  await engine.close();
});

fullTest("killed with appendfsync always, a cluster without replicas loses no ack", async () => {
  await using cluster = await RedisCluster.start({ settings: { appendfsync: "always" } });
  await using one = await startNode(cluster.url);
  await using two = await startNode(cluster.url);
  await using traffic = await Traffic.start([one, two], ROOMS);
  for (const i of range(1, 10)) {
    await traffic.flow(100);
    const server = cluster.servers[i % 3];
    await server.stop("SIGKILL");
    await server.start();
    await cluster.untilWhole();
  }
  await traffic.flow(100);
  await traffic.stop();
  await traffic.check({ mayReset: false, withinMs: 10_000 });
});

fullTest(
  "a primary that is killed in traffic is replaced, 10 times, with no silent gap",
  async () => {
    await using cluster = await RedisCluster.start({ hasReplicas: true });
    await using one = await startNode(cluster.url);
    await using two = await startNode(cluster.url);
    await using traffic = await Traffic.start([one, two], ROOMS);
    for (let round = 0; round < 10; round++) {
      await traffic.flow(100);
      const room = ROOMS[round % ROOMS.length];
      const killed = await cluster.primaryOf(`parley:{${room}}`);
      await killed.stop("SIGKILL");
      const acked = () => traffic.acks.filter((ack) => ack.room === room).length;
      const before = acked();
      await eventually(acked, (count) => count > before + 20);
      await killed.start();
      await cluster.untilWhole();
      await eventually(
        () => killed.command("INFO", "replication"),
        (info) => info.includes("master_link_status:up"),
      );
    }
    await traffic.flow(100);
    await traffic.stop();
    await traffic.check({ mayReset: true, withinMs: 10_000 });
    assert(traffic.refusals > 0, "no primary was missed");
  },
);

fullTest("Sentinel names the next primary when the first one is killed", async () => {
  await using first = await RedisServer.start({ "repl-diskless-sync-delay": "0" });
  await using second = await RedisServer.start({
    replicaof: `127.0.0.1 ${first.port}`,
  });
  const directory = await Deno.makeTempDir();
  const ports = [freePort(), freePort(), freePort()];
  const sentinels = await Promise.all(ports.map(async (port) => {
    const file = `${directory}/${port}.conf`;
    await Deno.writeTextFile(
      file,
      `port ${port}\nbind 127.0.0.1\nsentinel monitor rooms 127.0.0.1 ${first.port} 2\n` +
        "sentinel down-after-milliseconds rooms 500\nsentinel failover-timeout rooms 5000\n",
    );
    const output = { stdout: "null", stderr: "null" } as const;
    return new Deno.Command("redis-server", { args: [file, "--sentinel"], ...output }).spawn();
  }));
  try {
    await eventually(
      () => second.command("INFO", "replication"),
      (info) => info.includes("master_link_status:up"),
    );
    const url = `redis+sentinel://${ports.map((port) => `127.0.0.1:${port}`).join()}/rooms`;
    await using one = await startNode(url);
    const { recorder } = await hear(one, "r");
    await eventually(() => one.publish("r", draft("1")), (place) => !isRefusal(place));
    await recorder.until(({ messages }) => messages.at(-1) === "1");
    // Each Sentinel must know the replica, and the other ones, before it can act.
    for (const port of ports) {
      await eventually(async () => {
        using connection = await Deno.connect({ port });
        await connection.write(new TextEncoder().encode("SENTINEL MASTERS\r\n"));
        const buffer = new Uint8Array(16_384);
        return new TextDecoder().decode(buffer.subarray(0, await connection.read(buffer) ?? 0));
      }, (text) => /num-slaves\r\n\$1\r\n1/.test(text) && /sentinels\r\n\$1\r\n2/.test(text));
    }
    await first.stop("SIGKILL");
    await eventually(() => one.publish("r", draft("2")), (place) => !isRefusal(place));
    await recorder.until(({ messages }) => messages.at(-1) === "2");
    assertEquals(recorder.events.map(({ type }) => type), ["chat", "reset", "chat"]);
  } finally {
    for (const sentinel of sentinels) {
      sentinel.kill();
      await sentinel.status;
    }
    await Deno.remove(directory, { recursive: true });
  }
});
