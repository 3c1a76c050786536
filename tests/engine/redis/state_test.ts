import { assertEquals, assertNotEquals } from "@std/assert";
import type { Engine } from "../../../handlers/engine/engine.ts";
import { createRedisEngine } from "../../../handlers/engine/redis/engine.ts";
import { silentLog } from "../../../handlers/util/log.ts";
import { Proxy } from "../../support/proxy.ts";
import { granted, hear, untilGranted } from "../../support/recorder.ts";
import { RedisCluster } from "../../support/redis_cluster.ts";
import { patientClock, RedisServer, redisTest } from "../../support/redis_server.ts";
import { IS_FULL, sized } from "../../support/run.ts";
import { together } from "../../support/together.ts";
import { range, ROOMY } from "../contract.ts";
import { put, setsOf, stateOf } from "../state_contract.ts";
import { SCHEDULE_LIMITS, schedules } from "../state_schedule.ts";

const step = together("state in Redis");

/** Two nodes with one Redis. */
function stateTest(
  name: string,
  fn: (one: Engine, two: Engine, server: RedisServer) => Promise<void>,
): void {
  redisTest(`redis state: ${name}`, async () => {
    await using server = await RedisServer.start();
    const one = await createRedisEngine(server.url, ROOMY, patientClock, silentLog);
    const two = await createRedisEngine(server.url, ROOMY, patientClock, silentLog);
    try {
      await fn(one, two, server);
    } finally {
      await one.close();
      await two.close();
    }
  }, step);
}

stateTest("a room has at most MAX_STATE_BYTES of keys", async (one) => {
  assertEquals(await put(one, "k", "x".repeat(270_000)), { refused: "too_many_keys" });
  await granted(put(one, "k", "x".repeat(250_000)));
  assertEquals(await put(one, "l", "x".repeat(20_000)), { refused: "too_many_keys" });
  await granted(put(one, "k", 1));
  await granted(put(one, "l", "x".repeat(20_000)));
});

stateTest("the last 1,000 removals are known, and no older ones", async (one) => {
  const { epoch } = await granted(put(one, "stays", 1));
  for (const value of [1, null]) {
    await Promise.all(range(1, 999).map((i) => put(one, `k${i}`, value)));
  }
  await granted(put(one, "last", 1));
  const all = await granted(one.state("r", { epoch, rev: 1 }));
  assertEquals([all.since, all.entries.length], [1, 1_000]);
  for (const key of ["last", "stays"]) await granted(put(one, key, null));
  assertEquals((await granted(one.state("r", { epoch, rev: 1 }))).since, undefined);
  // The oldest of the 1,001 removals was the change behind all of `k`.
  assertEquals((await granted(one.state("r", { epoch, rev: 1_001 }))).entries.length, 1_000);
});

stateTest(
  "no read shows a key that has ended, in a room that nobody hosts",
  async (one, two, server) => {
    await granted(put(one, "k", 1, { ttlSeconds: 100 }));
    await server.command("ZADD", "parley:{r}:ends", "1", "k");
    assertEquals(await stateOf(two), "2");
  },
);

stateTest("keys bound to the members of a node that ends go with it", async (one, _, server) => {
  const other = await createRedisEngine(server.url, ROOMY, patientClock, silentLog);
  await granted(put(one, "stays", 1));
  await hear(other, "r");
  await other.join("r", "m", "Ann");
  await granted(put(other, "gone", 1, { member: "m" }));
  await other.close();
  assertEquals(await stateOf(one), "3 stays=1");
});

stateTest(
  "what a node missed comes as sets, or as a reset where a later one replaced it",
  async (_, two, server) => {
    await using proxy = new Proxy(server.port);
    const clock = { ...patientClock };
    const one = await createRedisEngine(`redis://127.0.0.1:${proxy.port}`, ROOMY, clock, silentLog);
    const { recorder } = await hear(one, "r");
    await granted(put(two, "a", 1));
    await recorder.until(({ events }) => events.length === 1);
    const away = async (...changes: [string, number | null][]) => {
      proxy.cut();
      for (const [key, value] of changes) await granted(put(two, key, value));
      proxy.heal();
    };
    await away(["b", 1], ["a", null]);
    await recorder.until(({ events }) => events.length === 3);
    assertEquals(setsOf(recorder), ["1 a=1", "2 b=1", "3 a=null"]);
    await away(["b", 2], ["b", 3]);
    await recorder.until(({ events }) => events.length === 4);
    const [{ epoch }, last] = [await granted(two.state("r")), recorder.events.at(-1)];
    assertEquals(last, { type: "reset", epoch, seq: 0, rev: 5, members: 0 });
    await one.close();
  },
);

stateTest("a new epoch begins without state", async (one, _, server) => {
  const { epoch } = await granted(put(one, "k", 1, { id: { session: "s", id: "1" } }));
  const { recorder } = await hear(one, "r");
  await server.command("HSET", "parley:{r}", "run", "another");
  const place = await granted(put(one, "k", 2, { if: 0, id: { session: "s", id: "1" } }));
  assertEquals(place.rev, 1);
  assertNotEquals(place.epoch, epoch);
  await recorder.until(({ events }) => events.some(({ type }) => type === "reset"));
  assertEquals(await stateOf(one), "1 k=2");
});

/** Two nodes, each of which may end and come again. */
const onRedis = (
  name: string,
  count: number,
  start: () => Promise<AsyncDisposable & { url: string }>,
) =>
  schedules(`two nodes on ${name}`, count, async (stack) => {
    const server = stack.use(await start());
    const open = async () => {
      const node = await createRedisEngine(server.url, SCHEDULE_LIMITS, patientClock, silentLog);
      // One on each primary of a cluster.
      for (const room of ["one", "two", "three"]) await untilGranted(() => node.read(room));
      return node;
    };
    const nodes = [await open(), await open()];
    stack.defer(async () => {
      for (const node of nodes) await node.close();
    });
    const kill = async (index: number) => {
      await nodes[index].close();
      nodes[index] = await open();
      return true;
    };
    return { nodes, kill };
  }, (name, fn) => redisTest(name, fn, step));

onRedis("Redis", sized(20, 2_000), () => RedisServer.start());
if (IS_FULL) onRedis("a Redis Cluster", 200, () => RedisCluster.start());
