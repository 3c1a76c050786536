import { assertEquals, assertNotEquals } from "@std/assert";
import type { Engine } from "../../../handlers/engine/engine.ts";
import { createRedisEngine } from "../../../handlers/engine/redis/engine.ts";
import { silentLog } from "../../../handlers/util/log.ts";
import { Proxy } from "../../support/proxy.ts";
import { granted, hear } from "../../support/recorder.ts";
import { patientClock, RedisServer, redisTest } from "../../support/redis_server.ts";
import { draft, range, ROOMY } from "../contract.ts";
import { put, setsOf, stateOf } from "../state_contract.ts";

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
  });
}

stateTest(
  "changes are numbered beside messages, and every host hears them in order",
  async (one, two) => {
    const { recorder } = await hear(one, "r");
    const { recorder: other, head } = await hear(two, "r");
    assertEquals(head.rev, 0);
    const calls = [
      put(one, "a/1", { "é😀": 1 }),
      one.publish("r", draft("x")),
      put(one, "b", 2),
      put(one, "b", null),
    ];
    assertEquals((await Promise.all(calls)).map((place) => "rev" in place! && place.rev), [
      1,
      false,
      2,
      3,
    ]);
    for (
      const { events, until } of [recorder, other].map((r) => ({
        events: r.events,
        until: () => r.until(({ events }) => events.length >= 4),
      }))
    ) {
      await until();
      assertEquals(events.map(({ type }) => type), ["set", "chat", "set", "set"]);
    }
    const { entries } = await granted(two.state("r"));
    const [event] = recorder.events;
    assertEquals([event], [{ type: "set", entry: entries[0] }]);
    assertEquals({ ...entries[0], time: 0 }, {
      key: "a/1",
      value: '{"é😀":1}',
      sender: "Ann",
      time: 0,
      rev: 1,
    });
    assertEquals((await hear(one, "other")).head.rev, 0);
  },
);

stateTest("a room has at most MAX_KEYS keys and MAX_STATE_BYTES of them", async (one) => {
  await Promise.all(range(1, 1_000).map((i) => put(one, `k${i}`, i)));
  assertEquals(await put(one, "more", 1), { refused: "too_many_keys" });
  await granted(put(one, "k1", "again"));
  await granted(put(one, "k1", null));
  await granted(put(one, "more", 1));
  assertEquals(await put(one, "more", "x".repeat(260_000)), { refused: "too_many_keys" });
  await Promise.all(range(1, 1_000).map((i) => put(one, `k${i}`, null)));
  await granted(put(one, "more", "x".repeat(250_000)));
  assertEquals(await put(one, "k1", "x".repeat(20_000)), { refused: "too_many_keys" });
  await granted(put(one, "more", 1));
  await granted(put(one, "k1", "x".repeat(20_000)));
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
  "a key with a ttl is removed by itself, once, and no read shows it longer",
  async (one, two, server) => {
    const { recorder } = await hear(one, "r");
    const { recorder: other } = await hear(two, "r");
    await granted(put(one, "gone", 1, { ttlSeconds: 1, sender: "Eve" }));
    await granted(put(one, "stays", 1, { ttlSeconds: 1 }));
    await granted(put(one, "stays", 2));
    for (const host of [recorder, other]) {
      await host.until(({ events }) => events.length >= 4);
      assertEquals(setsOf(host), ["1 gone=1", "2 stays=1", "3 stays=2", "4 gone=null"]);
      assertEquals(
        host.events.map((event) => event.type === "set" && event.entry.sender).at(-1),
        "Eve",
      );
    }
    // Time goes by for a key of a room that nobody hosts.
    const unheard = { key: "k", value: "1", sender: "Ann", ttlSeconds: 100 };
    await granted(one.set("quiet", unheard));
    await server.command("ZADD", "parley:{quiet}:ends", "1", "k");
    const { rev, entries } = await granted(two.state("quiet"));
    assertEquals([rev, entries], [2, []]);
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
