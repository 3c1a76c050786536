/** Redis is killed, loses data, stalls, or is cut off, in the middle of traffic on two nodes. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { type Engine, isRefusal } from "../../handlers/engine/engine.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { draft, range, ROOMY } from "../engine/contract.ts";
import {
  eventually,
  granted,
  hear,
  type Recorder,
  untilGranted,
  within,
} from "../support/recorder.ts";
import {
  patientClock,
  RedisServer,
  type RedisSettings,
  redisTest,
} from "../support/redis_server.ts";
import { Proxy } from "../support/proxy.ts";
import { IS_FULL, sized } from "../support/run.ts";
import { Traffic } from "./traffic.ts";
import { addFault } from "./add_fault.ts";

/** How often Redis is killed in each test. */
const ROUNDS = sized(2, 20);
const ROOMS = ["one", "two", "three"];

type Node = Engine & AsyncDisposable;

/**
 * A node that a test need not close. It keeps every message. By `clock` it sees that Redis is silent:
 * where nothing is, a busy machine must not count as that.
 */
async function startNode(
  port: number,
  { historySize = 1_000_000, clock = IS_FULL ? systemClock : patientClock, isAway = false } = {},
): Promise<Node> {
  const limits = { ...ROOMY, historySize };
  const engine = await createRedisEngine(`redis://127.0.0.1:${port}`, limits, clock, silentLog);
  if (!isAway) await untilReady(engine);
  return Object.assign(engine, { [Symbol.asyncDispose]: () => engine.close() });
}

async function untilReady(...nodes: Engine[]): Promise<void> {
  for (const node of nodes) await eventually(() => node.isReady(), (isReady) => isReady);
}

function resetsOf({ events }: Recorder) {
  return events.filter((event) => event.type === "reset");
}

/** Kills Redis again and again in the middle of traffic on two nodes; returns what those heard. */
async function killInTraffic(settings: RedisSettings, mayReset: boolean) {
  await using server = await RedisServer.start(settings);
  await using one = await startNode(server.port);
  await using two = await startNode(server.port);
  await using traffic = await Traffic.start([one, two], ROOMS);
  for (let round = 0; round < ROUNDS; round++) {
    await untilReady(one, two);
    await traffic.flow(100);
    await server.stop("SIGKILL");
    await server.start();
  }
  await traffic.flow(100);
  await traffic.stop();
  await traffic.check({ mayReset });
  assert(traffic.refusals > 0, "Redis was never missed");
  return traffic.views;
}

/** Cuts the way to Redis of one of two nodes, twice, in the middle of traffic. */
async function loseWay(fault: "cut" | "swallow"): Promise<void> {
  await using server = await RedisServer.start();
  await using proxy = new Proxy(server.port);
  await using one = await startNode(proxy.port, { clock: systemClock });
  await using two = await startNode(server.port);
  await using traffic = await Traffic.start([one, two], ROOMS);
  for (let round = 0; round < 2; round++) {
    await traffic.flow(200);
    proxy[fault]();
    await within(1_000, () => eventually(() => one.isReady(), (isReady) => !isReady));
    await traffic.flow(200);
    proxy.heal();
    await untilReady(one);
  }
  await traffic.flow(200);
  await traffic.stop();
  await traffic.check({ mayReset: false });
  assert(traffic.refusals > 0, "Redis was never missed");
}

const faultTest = (name: string, fn: () => Promise<void>) => redisTest(name, fn, addFault);

faultTest(
  "a node whose way to Redis is cut catches up without gap or repeat",
  () => loseWay("cut"),
);
faultTest(
  "a node whose way to Redis is swallowed catches up without gap or repeat",
  () => loseWay("swallow"),
);
faultTest("what hung on a lost connection is not done later", async () => {
  await using server = await RedisServer.start();
  await using proxy = new Proxy(server.port);
  await using one = await startNode(proxy.port, { clock: systemClock });
  await hear(one, "r");
  proxy.stall();
  const late = one.publish("r", draft("late"));
  assertEquals(await late, { refused: "unavailable" });
  const now = draft("now", { session: "a session", id: "1" });
  await untilGranted(() => one.publish("r", now));
  proxy.heal();
  await eventually(() => proxy.connectionCount, (count) => count === 1);
  const { chats } = await untilGranted(() => one.read("r"));
  assertEquals(chats.map(({ message }) => message), ["now"]);
});

faultTest(
  "a Redis that pauses makes senders wait less than a second, and nobody leave",
  async () => {
    await using server = await RedisServer.start();
    await using one = await startNode(server.port, { clock: systemClock });
    await using two = await startNode(server.port, { clock: systemClock });
    await using traffic = await Traffic.start([one, two], ROOMS);
    await traffic.flow(200);
    // Its answer to QUIT has to wait, too.
    const paused = server.command("CLIENT", "PAUSE", "1500", "ALL");
    await within(
      1_000,
      () => eventually(() => one.isReady() || two.isReady(), (isReady) => !isReady),
    );
    await paused;
    await untilReady(one, two);
    await traffic.flow(200);
    await traffic.stop();
    await traffic.check({ mayReset: false });
    assert(traffic.refusals > 0, "Redis was never missed");
  },
);

for (const fault of ["cut", "swallow"] as const) {
  faultTest(`behind a ${fault} everything is refused within a second`, async () => {
    await using server = await RedisServer.start();
    await using proxy = new Proxy(server.port);
    await using one = await startNode(proxy.port, { clock: systemClock });
    await hear(one, "r", 3);
    await granted(one.join("r", "m1", "Ann"));
    proxy[fault]();
    const ask = () =>
      within(1_000, () =>
        Promise.all([
          one.publish("r", draft("x")),
          one.join("r", "m2", "Bob"),
          one.members("r"),
          one.read("r"),
          one.rooms("", 10),
        ]));
    const unavailable = { refused: "unavailable" } as const;
    assertEquals<unknown[]>(await ask(), Array(5).fill(unavailable));
    await eventually(() => one.isReady(), (isReady) => !isReady);
    assertEquals<unknown[]>(await ask(), Array(5).fill(unavailable));
  });
}

faultTest("members come back with their node, and those who left meanwhile do not", async () => {
  await using server = await RedisServer.start({ appendonly: "no" });
  await using proxy = new Proxy(server.port);
  await using one = await startNode(proxy.port, { clock: systemClock });
  await using two = await startNode(server.port);
  for (const node of [one, two]) await hear(node, "r");
  for (const name of ["Ann", "Bob", "Cleo"]) await untilGranted(() => one.join("r", name, name));
  await granted(two.join("r", "Dan", "Dan"));
  const names = async () => {
    const members = await two.members("r");
    return isRefusal(members) ? members.refused : members.members.map(({ name }) => name).join();
  };
  proxy.swallow();
  const refused = one.join("r", "Eve", "Eve");
  one.leave("r", "Ann");
  assertEquals(await refused, { refused: "unavailable" });
  proxy.heal();
  await eventually(names, (names) => names === "Bob,Cleo,Dan");
  await server.stop();
  one.leave("r", "Bob");
  await server.start();
  await eventually(names, (names) => names === "Cleo,Dan");
});

faultTest("killed with appendfsync always, Redis loses no ack and keeps the epoch", async () => {
  await killInTraffic({ appendfsync: "always" }, false);
});

faultTest("killed with appendfsync everysec, Redis comes back with a new epoch", async () => {
  for (const { recorder } of await killInTraffic({ appendfsync: "everysec" }, true)) {
    assert(resetsOf(recorder).length > 0, "no new epoch");
  }
});

faultTest("a Redis that comes back empty begins new epochs at 1", async () => {
  for (const { recorder } of await killInTraffic({ appendonly: "no" }, true)) {
    assertEquals(resetsOf(recorder).map(({ seq }) => seq), Array(ROUNDS).fill(0));
  }
});

faultTest("a restart that lost its tail shows as a new epoch, whatever the setting", async () => {
  await using server = await RedisServer.start({ appendfsync: "always" });
  await using one = await startNode(server.port);
  await using two = await startNode(server.port);
  const views = [await hear(one, "r"), await hear(two, "r")];
  const { epoch } = views[0].head;
  for (const i of range(1, 10)) await granted(one.publish("r", draft(`text ${i}`)));
  for (const { recorder } of views) await recorder.until(({ chats }) => chats.length === 10);
  await server.stop("SIGKILL");
  await server.loseTail("text 7");
  await server.start();
  await untilReady(one, two);
  const place = await granted(two.publish("r", draft("again")));
  assertNotEquals(place.epoch, epoch);
  assertEquals(place.seq, 7);
  for (const { recorder } of views) {
    await recorder.until(({ messages }) => messages.at(-1) === "again");
    assertEquals(recorder.events.slice(10), [
      { type: "reset", epoch: place.epoch, seq: 6, rev: 0, members: 0 },
      { type: "chat", chat: recorder.chats.at(-1)! },
    ]);
  }
  const span = await granted(one.read("r", { epoch, seq: 10 }));
  const kept = [...range(1, 6).map((i) => `text ${i}`), "again"];
  assertEquals(span.chats.map((chat) => chat.message), kept);
});

faultTest(
  "what Redis brings back from a torn write takes no number from an acked message",
  async () => {
    await using server = await RedisServer.start({ appendfsync: "always" });
    await using one = await startNode(server.port);
    const { recorder, head: { epoch } } = await hear(one, "r");
    const { recorder: quiet } = await hear(one, "quiet");
    for (const room of ["r", "quiet"]) await granted(one.publish(room, draft("1")));
    await server.stop("SIGKILL");
    const now = Date.now();
    await server.tearTail(
      ["MULTI"],
      ["XADD", "parley:{quiet}:log", "2-1", "m", `${now} 3 Anntorn`],
      ["XADD", "parley:{r}:log", "2-1", "m", `${now} 3 Anntorn`],
      ["HSET", "parley:{r}", "seq", "2"],
      ["HSET", "parley:{r}:ids", "1 s", "1", "1 storn", `2-1 ${now} 1 `],
      ["EXEC"],
    );
    await server.start();
    await untilReady(one);
    for (const i of [2, 3]) {
      assertEquals(await one.publish("r", draft(`${i}`)), { epoch, seq: i });
      await server.stop("SIGKILL");
      await server.start();
      await untilReady(one);
    }
    const key = { session: "s", id: "torn" };
    assertEquals(await one.publish("r", draft("4", key)), { epoch, seq: 4 });
    await recorder.until(({ chats }) => chats.length === 4);
    assertEquals(recorder.messages, ["1", "2", "3", "4"]);
    assertEquals((await granted(one.read("r"))).chats, recorder.chats);
    assertEquals((await granted(one.read("quiet"))).chats, quiet.chats);
    assertEquals([recorder.events.length, quiet.events.length], [4, 1]);
  },
);

faultTest(
  "a number that others got while its first message was lost shows as a new epoch",
  async () => {
    await using server = await RedisServer.start({ appendfsync: "always" });
    await using proxy = new Proxy(server.port);
    await using one = await startNode(proxy.port);
    const { recorder, head: { epoch } } = await hear(one, "r");
    for (const text of ["text 1", "text 2"]) await granted(one.publish("r", draft(text)));
    await recorder.until(({ chats }) => chats.length === 2);
    proxy.cut();
    await server.stop("SIGKILL");
    await server.loseTail("text 2");
    await server.start();
    await using two = await startNode(server.port);
    for (const text of ["other 2", "text 3"]) await granted(two.publish("r", draft(text)));
    proxy.heal();
    await recorder.until(({ messages }) => messages.at(-1) === "text 3");
    assertEquals(recorder.messages, ["text 1", "text 2", "other 2", "text 3"]);
    const [reset] = resetsOf(recorder);
    assert(reset.epoch !== epoch && reset.seq === 1);
  },
);

faultTest("a promoted replica begins a new epoch", async () => {
  await using primary = await RedisServer.start({
    appendfsync: "always",
    "repl-diskless-sync-delay": "0",
  });
  await using replica = await RedisServer.start({ appendfsync: "always" });
  await using proxy = new Proxy(primary.port);
  await using one = await startNode(proxy.port);
  const { recorder, head } = await hear(one, "r");
  await replica.command("REPLICAOF", "127.0.0.1", String(primary.port));
  await granted(one.publish("r", draft("1")));
  await eventually(() => replica.command("HGET", "parley:{r}", "seq"), (seq) => seq === "1");
  await primary.stop("SIGKILL");
  proxy.targetPort = replica.port;
  await eventually(() => one.isReady(), (isReady) => !isReady);
  assertEquals(await one.publish("r", draft("lost")), { refused: "unavailable" });
  await replica.command("REPLICAOF", "NO", "ONE");
  await untilReady(one);
  const place = await granted(one.publish("r", draft("2")));
  assertNotEquals(place.epoch, head.epoch);
  await recorder.until(({ messages }) => messages.at(-1) === "2");
  assertEquals(resetsOf(recorder).map(({ epoch, seq }) => ({ epoch, seq })), [
    { epoch: place.epoch, seq: 1 },
  ]);
});

faultTest("a node that missed more than is kept hears what is kept behind a reset", async () => {
  await using server = await RedisServer.start();
  await using proxy = new Proxy(server.port);
  await using one = await startNode(proxy.port, { historySize: 10 });
  await using two = await startNode(server.port, { historySize: 10 });
  const { recorder, head: { epoch } } = await hear(one, "r");
  await granted(two.publish("r", draft("1")));
  await recorder.until(({ chats }) => chats.length === 1);
  proxy.cut();
  await eventually(() => one.isReady(), (isReady) => !isReady);
  for (let i = 2; i <= 30; i++) await granted(two.publish("r", draft(`${i}`)));
  proxy.heal();
  await within(2_000, () => recorder.until(({ messages }) => messages.at(-1) === "30"));
  assertEquals(recorder.events[1], { type: "reset", epoch, seq: 20, rev: 0, members: 0 });
  assertEquals(recorder.chats.map(({ seq }) => seq), [1, ...range(21, 30)]);
});

faultTest("host() waits for a Redis that is away, even from the start", async () => {
  await using server = await RedisServer.start();
  await server.stop();
  await using one = await startNode(server.port, { isAway: true });
  assertEquals(one.isReady(), false);
  const opening = hear(one, "r");
  const given = one.host("given up", { subscriberCount: 0, deliver() {} });
  one.release("given up");
  assertEquals(await given, { refused: "unavailable" });
  await server.start();
  const { recorder, head } = await opening;
  assertEquals(head.seq, 0);
  await granted(one.publish("r", draft("1")));
  await recorder.until(({ messages }) => messages.at(-1) === "1");
});

faultTest("members that a restart lost, or brought back, are put right", async () => {
  await using server = await RedisServer.start({ appendfsync: "always" });
  await using one = await startNode(server.port);
  await hear(one, "r");
  for (const name of ["Ann", "Bob", "Cleo"]) await granted(one.join("r", name, name));
  const names = async () => {
    const members = await one.members("r");
    return isRefusal(members) ? members.refused : members.members.map(({ name }) => name).join();
  };
  one.leave("r", "Ann");
  await granted(one.publish("r", draft("after it")));
  await server.stop();
  await server.loseTail("HDEL");
  await server.start();
  await within(2_000, () => eventually(names, (names) => names === "Bob,Cleo"));
  await server.stop();
  await server.loseTail("/Cleo");
  await server.start();
  await within(2_000, () => eventually(names, (names) => names === "Bob,Cleo"));
});

faultTest("scripts that Redis forgot are loaded again", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.port);
  await using two = await startNode(server.port);
  await using traffic = await Traffic.start([one, two], ROOMS);
  for (let round = 0; round < 3; round++) {
    await traffic.flow(100);
    await server.command("SCRIPT", "FLUSH");
  }
  await traffic.flow(100);
  await traffic.stop();
  await traffic.check({ mayReset: false });
});

faultTest("a Redis without memory refuses; listeners go on as soon as it has some", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.port);
  const { recorder } = await hear(one, "r");
  await server.command("CONFIG", "SET", "maxmemory", "1");
  assertEquals(await one.publish("r", draft("lost")), { refused: "unavailable" });
  await server.command("CONFIG", "SET", "maxmemory", "0");
  assertEquals((await granted(one.publish("r", draft("1")))).seq, 1);
  await recorder.until(({ messages }) => messages.join() === "1");
});

faultTest(
  "flushed while it runs, Redis begins a new epoch and learns the members again",
  async () => {
    await using server = await RedisServer.start();
    await using one = await startNode(server.port);
    const { recorder, head } = await hear(one, "r");
    await granted(one.join("r", "m1", "Ann"));
    await granted(one.publish("r", draft("1")));
    await server.command("FLUSHALL");
    const place = await granted(one.publish("r", draft("2")));
    assertNotEquals(place.epoch, head.epoch);
    assertEquals(place.seq, 1);
    await recorder.until(({ messages }) => messages.join() === "1,2");
    await eventually(
      async () => (await granted(one.members("r"))).members.map(({ name }) => name).join(),
      (names) => names === "Ann",
    );
  },
);
