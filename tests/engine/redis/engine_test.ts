import { assert, assertEquals, assertNotEquals, assertObjectMatch } from "@std/assert";
import type { HistoryLimits } from "../../../handlers/engine/room_rules.ts";
import { type Engine, isRefusal } from "../../../handlers/engine/engine.ts";
import { createRedisEngine } from "../../../handlers/engine/redis/engine.ts";
import { MEMBER_EVENTS } from "../../../handlers/engine/member_events.ts";
import { EVENTS_ROOM } from "../../../handlers/protocol/parse.ts";
import type { Cursor } from "../../../handlers/protocol/position.ts";
import { type Log, silentLog } from "../../../handlers/util/log.ts";
import { draft, engineContract, range, ROOMY } from "../contract.ts";
import { setsOf, stateContract, stateOf } from "../state_contract.ts";
import { FakeClock } from "../../support/fakes.ts";
import { freePort, run } from "../../support/process.ts";
import { Proxy } from "../../support/proxy.ts";
import { eventually, granted, hear, people, Recorder } from "../../support/recorder.ts";
import {
  patientClock,
  redisDatabases,
  RedisServer,
  redisTest as aloneWithRedis,
} from "../../support/redis_server.ts";
import { together } from "../../support/together.ts";

const databaseUrl = redisDatabases();

async function make(limits: HistoryLimits) {
  const url = databaseUrl();
  // A list of rooms is shared for a second: less of one here.
  const clock = { ...patientClock, elapsedMs: () => 20 * performance.now() };
  return {
    nodes: [await startNode(url, { limits, clock }), await startNode(url, { limits, clock })],
  };
}

const step = together("nodes on one Redis");
const redisTest = (name: string, fn: () => Promise<void>) => aloneWithRedis(name, fn, step);

engineContract("redis", make, redisTest);
stateContract("redis", make, redisTest);

/** A node that a test need not close. It is connected, if it may be. */
async function startNode(
  url: string,
  { limits = ROOMY as HistoryLimits, clock = patientClock, log = silentLog, isAdmitted = true } =
    {},
): Promise<Engine & AsyncDisposable> {
  const engine = await createRedisEngine(url, limits, clock, log);
  // A busy machine may take longer than the engine waits.
  if (isAdmitted) await eventually(() => engine.isReady(), (isReady) => isReady);
  return Object.assign(engine, { [Symbol.asyncDispose]: () => engine.close() });
}

/** Lets time go by for a node, with its commands answered at each tick. */
async function advance(clock: FakeClock, seconds: number, node: Engine): Promise<void> {
  for (let tick = 0; tick < 5 * seconds; tick++) {
    clock.tick(200);
    await granted(node.read("somewhere"));
  }
}

/** The id of the only node there is, as soon as it has a lease. */
function idOfOnlyNode(server: RedisServer): Promise<string> {
  const read = () => evaluate(server, "redis.call('ZRANGE', 'parley:nodes', 0, -1)[1]");
  return eventually(read, (id) => id !== "nil");
}

/** Runs Lua in Redis; a list comes back with commas. */
function evaluate(server: RedisServer, lua: string): Promise<string> {
  return server.command("EVAL", `local answer = ${lua} ; return tostring(answer)`, "0");
}

redisTest("a password is used, and a wrong one is told without being shown", async () => {
  await using server = await RedisServer.start({ requirepass: "right secret" });
  const lines: string[] = [];
  const write = (text: string, fields?: unknown) => lines.push(text + JSON.stringify(fields));
  const log: Log = { debug: write, info: write, warn: write, error: write };
  const address = `127.0.0.1:${server.port}`;
  await using right = await startNode(`redis://:right%20secret@${address}`, { log });
  assertEquals((await granted(right.publish("r", draft("1")))).seq, 1);
  assertEquals(lines, []);
  await using wrong = await startNode(`redis://:wrong%20secret@${address}`, {
    log,
    isAdmitted: false,
  });
  assertEquals(wrong.isReady(), false);
  assertEquals(await wrong.publish("r", draft("2")), { refused: "unavailable" });
  assertEquals(lines.length, 1);
  assert(lines[0].startsWith(`Cannot reach Redis at ${address}: WRONGPASS`), lines[0]);
  assert(!lines[0].includes("secret"));
});

redisTest("rediss:// goes over TLS", async () => {
  const [certificate, key] = ["pem", "key"].map((end) => {
    return new URL(`../../tls/localhost.${end}`, import.meta.url).pathname;
  });
  const port = freePort();
  await using _server = await RedisServer.start({
    "tls-port": String(port),
    "tls-cert-file": certificate,
    "tls-key-file": key,
    "tls-auth-clients": "no",
  });
  const code = `
    import { systemClock } from "./handlers/util/clock.ts";
    import { createRedisEngine } from "./handlers/engine/redis/engine.ts";
    const limits = { historySize: 1, historySeconds: 60, historyMb: 1, maxRooms: 1 };
    const node = await createRedisEngine("rediss://localhost:${port}", limits, systemClock, console);
    console.log(JSON.stringify(await node.publish("r", { sender: "Ann", message: "1" })));
    await node.close();`;
  const printed = await run(["eval", "--cert", certificate, code]);
  assertEquals(JSON.parse(printed.split("\n")[0]).seq, 1, printed);
});

redisTest("two databases of one Redis are two systems", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url);
  await using two = await startNode(`${server.url}/2`);
  const { recorder } = await hear(one, "r");
  await hear(two, "r");
  assertEquals((await granted(two.publish("r", draft("2")))).seq, 1);
  two.relay("r", { type: "binary", bytes: new Uint8Array(1), from: "m1" });
  assertEquals((await granted(one.publish("r", draft("1")))).seq, 1);
  await recorder.until(({ messages }) => messages.length === 1);
  assertEquals(recorder.events.map(({ type }) => type), ["chat"]);
});

redisTest("a reconnect ends the old connection, with what hangs on it", async () => {
  await using server = await RedisServer.start();
  await using proxy = new Proxy(server.port);
  const clock = new FakeClock();
  await using node = await startNode(`redis://127.0.0.1:${proxy.port}`, { clock });
  const idOf = () => server.command("CLIENT", "LIST").then((list) => list.match(/\bid=\d+/)?.[0]);
  const first = await idOf();
  proxy.stall();
  const late = node.publish("r", draft("late"));
  clock.tick(1_000);
  assertEquals([await late, node.isReady()], [{ refused: "unavailable" }, false]);
  await eventually(() => (clock.tick(10), node.isReady()), (isReady) => isReady);
  const list = await server.command("CLIENT", "LIST");
  assertEquals(list.match(/\bid=\d+/g)?.length, 2, list);
  assertNotEquals(await idOf(), first);
});

redisTest("a node hears the channels of the rooms that it hosts, and no others", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url);
  const channels = () =>
    evaluate(server, "table.concat(redis.call('PUBSUB', 'SHARDCHANNELS'), ',')");
  await hear(one, "a");
  await granted(one.publish("b", draft("1")));
  await granted(one.join("c", "m1", "Ann"));
  assertEquals(await channels(), "parley:{a}");
  one.release("a");
  await eventually(channels, (channels) => channels === "");
});

redisTest(
  "a node counts its first connection as no reconnect, and takes its lease along",
  async () => {
    await using server = await RedisServer.start();
    const count = () => evaluate(server, "redis.call('ZCARD', 'parley:nodes')");
    {
      await using one = await startNode(server.url);
      await hear(one, "r");
      assertEquals([one.stats().remote?.reconnects, await count()], [0, "1"]);
    }
    assertEquals(await count(), "0");
  },
);

redisTest(
  "all keys of a room bear its hash tag, and its epoch and log expire together",
  async () => {
    await using server = await RedisServer.start();
    await using one = await startNode(server.url);
    await hear(one, "r");
    await one.join("r", "m1", "Ann");
    await granted(one.publish("r", draft("1", { session: "s", id: "1" })));
    const keys = await evaluate(
      server,
      "(function() local k = redis.call('KEYS', '*') table.sort(k) return table.concat(k, ',') end)()",
    );
    const own = ["", ":ids", ":log", ":members", ":nodes"].map((end) => `parley:{r}${end}`);
    assertEquals(keys.split(","), ["parley:nodes", "parley:rooms", ...own].sort());
    const difference = await evaluate(
      server,
      "redis.call('PTTL', 'parley:{r}') - redis.call('PTTL', 'parley:{r}:log')",
    );
    // Each command in a script of Redis 7.0 reads the clock, and Redis may have to wait for its turn.
    assert(Math.abs(Number(difference)) < 5_000, `${difference} ms apart`);
    const ttl = Number(await server.command("PTTL", "parley:{r}"));
    assert(ttl > 3_590_000 && ttl <= 3_600_000, `${ttl}`);
  },
);

redisTest("messages of one turn go out together", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url);
  const reads = async () => {
    const info = await server.command("INFO", "stats");
    return Number(/total_reads_processed:(\d+)/.exec(info)?.[1]);
  };
  await granted(one.publish("r", draft("0")));
  const before = await reads();
  await Promise.all(range(1, 500).map((i) => one.publish(`r${i % 7}`, draft(`${i}`))));
  const count = await reads() - before;
  assert(count < 50, `Redis read ${count} times`);
});

aloneWithRedis("a command sets no timer of its own: they cost more than the command", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url);
  const { timeout } = AbortSignal;
  let timers = 0;
  AbortSignal.timeout = (ms) => (timers++, timeout.call(AbortSignal, ms));
  try {
    for (let i = 0; i < 10; i++) await granted(one.publish("r", draft("x")));
  } finally {
    AbortSignal.timeout = timeout;
  }
  assertEquals(timers, 0);
});

redisTest("refuses at once what is more than Redis can take in time", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url, { clock: new FakeClock() });
  const answered: number[] = [];
  const publish = async (i: number) => {
    const outcome = await one.publish("r", draft(`${i}`));
    answered.push(i);
    return outcome;
  };
  const answers = range(1, 12_000).map(publish);
  assertEquals(await answers[11_999], { refused: "unavailable" });
  // A few commands are the node's own.
  assert(answered[0] > 9_990 && answered[0] <= 10_001, `first answered: ${answered[0]}`);
  const outcomes = await Promise.all(answers);
  const places = outcomes.filter((outcome): outcome is Cursor => !isRefusal(outcome));
  assert(places.length > 1_000 && places.length <= 10_000, `${places.length} places`);
  assertEquals(places.map(({ seq }) => seq), range(1, places.length));
});

redisTest("ids are remembered five minutes, over two generations, and then forgotten", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url);
  const publish = (id: string) => granted(one.publish("r", draft("x", { session: "s", id })));
  const grow = () => server.command("HINCRBY", "parley:{r}", "since", "-300000");
  const age = (key: string) =>
    evaluate(
      server,
      `redis.call('HSET', '${key}', '1 sa', (string.gsub(` +
        `redis.call('HGET', '${key}', '1 sa'), '^(%S+) %d+', '%1 1')))`,
    );
  assertEquals((await publish("a")).seq, 1);
  await grow();
  assertEquals((await publish("b")).seq, 2);
  assertEquals(await server.command("EXISTS", "parley:{r}:ids:old"), "1");
  assertEquals((await publish("a")).seq, 1);
  await age("parley:{r}:ids:old");
  assertEquals((await publish("a")).seq, 3);
  assertEquals((await publish("a")).seq, 3);
  await grow();
  await grow();
  assertEquals((await publish("b")).seq, 2);
  await grow();
  assertEquals((await publish("c")).seq, 4);
  assertEquals((await publish("b")).seq, 5);
  const ttl = Number(await server.command("PTTL", "parley:{r}:ids"));
  assert(ttl > 590_000 && ttl <= 600_000, `${ttl}`);
});

redisTest(
  "ids of sockets never stop publishing; a session's new ids replace its oldest",
  async () => {
    await using server = await RedisServer.start();
    await using one = await startNode(server.url, { limits: { ...ROOMY, historyMb: 0.01 } });
    const publish = (id: number) => one.publish("r", draft("x", { session: "s", id: `${id}` }));
    const outcomes = await Promise.all(range(1, 2_500).map(publish));
    assertEquals(outcomes.filter(isRefusal), []);
    // A field a place in the ring, one an id, and the session's own.
    assertEquals(await server.command("HLEN", "parley:{r}:ids"), "2001");
    assertEquals(await publish(1_501), outcomes[1_500]);
    assertEquals((await granted(publish(1_500))).seq, 2_501);
  },
);

redisTest("a room with very many ids forgets the oldest early, but no key of a POST", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url);
  const publish = (id: string, digest?: string) =>
    granted(one.publish("r", draft("x", { session: "s", id, digest })));
  // In parts, so that Redis is never busy for long.
  const fill = async (first = 1) => {
    const set = `redis.call('HSET', 'parley:{r}:ids', i, i)`;
    await evaluate(server, `(function() for i = ${first}, ${first + 9_999} do ${set} end end)()`);
    if (first < 190_000) await fill(first + 10_000);
  };
  const hasOld = () => server.command("EXISTS", "parley:{r}:ids:old");
  const { seq } = await publish("key", "digest");
  await fill();
  await publish("a");
  assertEquals([(await publish("key", "digest")).seq, await hasOld()], [seq, "0"]);
  await server.command("HINCRBY", "parley:{r}", "pinned", "-300000");
  const b = await publish("b");
  assertEquals([await server.command("HLEN", "parley:{r}:ids"), await hasOld()], ["3", "1"]);
  assertEquals((await publish("a")).seq + 1, b.seq);
});

redisTest(
  "refuses a key of a POST that Redis could not remember, but knows those it does",
  async () => {
    await using server = await RedisServer.start();
    await using one = await startNode(server.url, { limits: { ...ROOMY, historyMb: 0.01 } });
    const publish = (id: number) =>
      one.publish("r", draft("x", { session: "s", id: `${id}`, digest: "d" }));
    const outcomes = await Promise.all(range(1, 20).map(publish));
    const places = outcomes.filter((outcome) => !isRefusal(outcome));
    assertEquals(places.length, 12);
    assertEquals(outcomes[19], { refused: "unavailable" });
    assertEquals(await publish(1), outcomes[0]);
    assertEquals((await granted(one.publish("r", draft("no id")))).seq, 13);
  },
);

redisTest("one address opens half of MAX_ROOMS at most, until it gives some back", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url, { limits: { ...ROOMY, maxRooms: 10 } });
  const open = async (room: string, address: string) =>
    !isRefusal(await one.host(room, new Recorder(), address));
  const opened = [];
  for (const i of range(1, 7)) opened.push(await open(`a${i}`, "10.0.0.1"));
  assertEquals(opened, [true, true, true, true, true, false, false]);
  assertEquals(await open("b", "10.0.0.2"), true);
  one.release("a1");
  one.release("a2");
  assertEquals(await open("a9", "10.0.0.1"), true);
});

redisTest("many reads at once take no message's place", async () => {
  await using server = await RedisServer.start();
  await using one = await startNode(server.url);
  const reads = range(1, 5_500).flatMap((i) => [one.members(`r${i}`), one.read(`r${i}`)]);
  assertEquals((await granted(one.publish("r", draft("x")))).seq, 1);
  assertEquals((await Promise.all(reads)).filter(isRefusal), []);
});

redisTest(
  "a list of rooms is shared for a second",
  async () => {
    await using server = await RedisServer.start();
    let laterMs = 0;
    const clock = { ...patientClock, elapsedMs: () => laterMs };
    await using one = await startNode(server.url, { clock });
    await Promise.all(range(1, 501).map((i) => hear(one, `r${i}`)));
    const count = async (name: string) => {
      const stats = await server.command("INFO", "commandstats");
      return Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
    };
    const before = await count("hlen");
    for (const calls of [64, 1]) {
      const lists = await Promise.all(range(1, calls).map(() => granted(one.rooms("", 1_000))));
      for (const list of lists) assertEquals(list.length, 501);
    }
    assertEquals(await count("hlen") - before, 501);
    laterMs = 1_000;
    await one.rooms("", 1_000);
    assertEquals(await count("hlen") - before, 1_002);
    // Whoever asks for one room has one read.
    assertEquals((await granted(one.rooms("r1", 1))).map(({ room }) => room), ["r10"]);
    assertEquals(await count("hlen") - before, 1_003);
  },
);

redisTest(
  "messages whose events were lost are found within a minute, in a quiet room too",
  async () => {
    await using server = await RedisServer.start();
    const clock = new FakeClock();
    await using one = await startNode(server.url, { clock });
    const rooms = range(1, 30).map((i) => `r${i}`);
    const heard = await Promise.all(rooms.map((room) => hear(one, room)));
    for (const room of rooms) {
      await server.command("HSET", `parley:{${room}}`, "seq", "1");
      await server.command("XADD", `parley:{${room}}:log`, "1-0", "m", "5 3 Annone");
    }
    await advance(clock, 60, one);
    for (const { recorder } of heard) {
      await recorder.until(({ events }) => events.length > 0);
      const chat = { seq: 1, time: 5, sender: "Ann", message: "one" };
      assertEquals(recorder.events, [{ type: "chat", chat }]);
    }
  },
);

/** Drops the one push in a chunk that contains `text`. */
function withoutPush(chunk: Uint8Array, text: string): Uint8Array {
  const all = new TextDecoder("latin1").decode(chunk);
  const start = all.lastIndexOf(">3\r\n", all.indexOf(text));
  if (!all.includes(text) || start < 0) return chunk;
  const end = all.indexOf("\r\n", all.indexOf(text)) + 2;
  return Uint8Array.from(all.slice(0, start) + all.slice(end), (letter) => letter.charCodeAt(0));
}

for (const when of ["within a minute", "when a heartbeat is late", "with the next message"]) {
  redisTest(`a single push that is lost on the way is found ${when}`, async () => {
    await using server = await RedisServer.start();
    await using proxy = new Proxy(server.port);
    const clock = new FakeClock();
    await using one = await startNode(`redis://127.0.0.1:${proxy.port}`, { clock });
    await using two = await startNode(server.url);
    const { recorder } = await hear(one, "r");
    let dropped = 0;
    proxy.filter = (chunk) => {
      const rest = withoutPush(chunk, "Annlost");
      if (rest !== chunk) dropped++;
      return dropped === 1 ? rest : chunk;
    };
    await granted(two.publish("r", draft("first")));
    await granted(two.publish("r", draft("lost")));
    await recorder.until(({ messages }) => messages.length === 1);
    await eventually(() => dropped, (count) => count === 1);
    const isQuiet = when !== "with the next message";
    if (when === "within a minute") await advance(clock, 60, one);
    else if (isQuiet) {
      proxy.stall();
      clock.tick(1_000);
      await eventually(() => (clock.tick(10), one.isReady()), (isReady) => isReady);
    } else await granted(two.publish("r", draft("next")));
    await recorder.until(({ messages }) => messages.length === (isQuiet ? 2 : 3));
    assertEquals(recorder.messages, ["first", "lost", "next"].slice(0, isQuiet ? 2 : 3));
    assertEquals(recorder.events.length, recorder.messages.length);
  });
}

redisTest("idle rooms cost no commands of their own", async () => {
  await using server = await RedisServer.start();
  const clock = new FakeClock();
  await using one = await startNode(server.url, { clock });
  await Promise.all(range(1, 1_000).map((i) => hear(one, `r${i}`)));
  const { commands } = one.stats().remote!;
  await advance(clock, 55, one);
  const perSecond = (one.stats().remote!.commands - commands) / 55;
  // Of them 10 a second are pings and the test's own.
  assert(perSecond < 25, `${perSecond} commands a second`);
});

redisTest(
  "an idle room that is heard outlives HISTORY_SECONDS; an unused one does not",
  async () => {
    await using server = await RedisServer.start();
    const clock = new FakeClock();
    await using one = await startNode(server.url, {
      clock,
      limits: { ...ROOMY, historySeconds: 1 },
    });
    await hear(one, "r");
    const ttl = async () => Number(await server.command("PTTL", "parley:{r}"));
    assert(await ttl() > 150_000);
    await server.command("PEXPIRE", "parley:{r}", "60000");
    await advance(clock, 55, one);
    assert(await ttl() > 150_000);
    one.release("r");
    await eventually(ttl, (ttl) => ttl <= 1_000);
  },
);

redisTest("Redis learns of listeners that came and went, within five seconds", async () => {
  await using server = await RedisServer.start();
  const clock = new FakeClock();
  await using one = await startNode(server.url, { clock });
  await using two = await startNode(server.url);
  const { recorder } = await hear(one, "r", 1);
  recorder.subscriberCount = 5;
  await advance(clock, 5, one);
  const [room] = await granted(two.rooms("", 10));
  assertEquals(room, { room: "r", members: 0, listeners: 5, seq: 0 });
});

redisTest(
  "a node that missed much fetches it in parts, and of one number the last entry",
  async () => {
    await using server = await RedisServer.start();
    await using one = await startNode(server.url);
    const { recorder } = await hear(one, "r");
    const kept = range(1, 120).map((seq) => `${seq}-2`);
    // The first part ends with 50.
    const torn = ["50-1", "51-1"];
    const ids = [...kept, ...torn].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const add = (id: string) =>
      `redis.call('XADD', 'parley:{r}:log', '${id}', 'm', '5 3 Ann${id}')`;
    await server.command("EVAL", ids.map(add).join(" "), "0");
    await server.command("HSET", "parley:{r}", "seq", "120");
    await server.command("SPUBLISH", "parley:{r}", "cnudge 1 ");
    await recorder.until(({ chats }) => chats.length >= 120);
    assertEquals(recorder.messages, kept);
  },
);

redisTest("a silent node loses its members, and has them back when it speaks again", async () => {
  await using server = await RedisServer.start();
  await using proxy = new Proxy(server.port);
  const clocks = [new FakeClock(), new FakeClock()];
  await using one = await startNode(`redis://127.0.0.1:${proxy.port}`, { clock: clocks[0] });
  const id = await idOfOnlyNode(server);
  await using two = await startNode(server.url, { clock: clocks[1] });
  await hear(one, "r");
  const { recorder } = await hear(two, "r");
  await granted(one.join("r", "m1", "Ann"));
  await granted(two.join("r", "m2", "Bob"));
  proxy.swallow();
  clocks[0].tick(1_000);
  assertEquals(one.isReady(), false);
  // As if 15 s had gone by in Redis.
  await server.command("ZREM", "parley:nodes", id);
  await server.command("HSET", "parley:{r}:nodes", id, "1 1");
  await advance(clocks[1], 14, two);
  assertEquals(await two.members("r"), people("Ann", "Bob"));
  await advance(clocks[1], 7, two);
  await recorder.until(({ events }) => events.length === 3);
  const leave = {
    type: "status",
    event: "leave",
    name: "Ann",
    members: 1,
  } as const;
  assertObjectMatch(recorder.events[2], leave);
  assertEquals(await two.members("r"), people("Bob"));
  proxy.heal();
  await eventually(() => (clocks[0].tick(10), one.isReady()), (isReady) => isReady);
  await recorder.until(({ events }) => events.length === 4);
  assertObjectMatch(recorder.events[3], { ...leave, event: "join", members: 2 });
});

redisTest("a killed node is missed in every room, with the keys bound to its members", async () => {
  await using server = await RedisServer.start();
  const clock = new FakeClock();
  // Its clock stands still, so it renews nothing.
  await using one = await startNode(server.url, { clock: new FakeClock() });
  const id = await idOfOnlyNode(server);
  await using two = await startNode(server.url, { clock });
  const rooms = ["r1", "r2", "r3"];
  const heard = await Promise.all(rooms.map((room) => hear(two, room)));
  await advance(clock, 21, two);
  // Nobody else hosts this one.
  await hear(one, "r");
  for (const room of [...rooms, "r"]) {
    await granted(one.join(room, "m1", "Ann"));
    await granted(one.set(room, { key: "k", value: "1", sender: "Ann", member: "m1" }));
    await server.command("HSET", `parley:{${room}}:nodes`, id, "1 -1");
  }
  await server.command("ZREM", "parley:nodes", id);
  await advance(clock, 6, two);
  for (const { recorder } of heard) {
    await recorder.until(({ events }) => events.length === 4);
    const all = recorder.events.map((event) => "event" in event ? event.event : event.type);
    assertEquals(all, ["join", "set", "leave", "set"]);
    assertEquals(setsOf(recorder), ["1 k=1", "2 k=null"]);
  }
  await eventually(() => stateOf(two), (state) => state === "2");
  assertEquals(await two.members("r"), people());
});

redisTest(
  "a dead node's members leave in _events, too, in rooms that nobody else hosts",
  async () => {
    await using server = await RedisServer.start();
    const limits = { ...ROOMY, events: MEMBER_EVENTS };
    const clock = new FakeClock();
    // Its clock stands still, so it renews nothing.
    await using one = await startNode(server.url, { clock: new FakeClock(), limits });
    const id = await idOfOnlyNode(server);
    await using two = await startNode(server.url, { clock, limits });
    const { recorder } = await hear(two, EVENTS_ROOM);
    await advance(clock, 21, two);
    await hear(one, "r");
    for (const name of ["Ann", "Bo"]) await granted(one.join("r", name, name));
    for (const socket of ["1", "2"]) await granted(one.join("r", socket, "Cy", "u1"));
    await recorder.until(({ chats }) => chats.length === 4);
    await server.command("HSET", "parley:{r}:nodes", id, "1 1");
    // It had written this down, but not published it.
    await server.command("RPUSH", "parley:{left}:events", "7 leave 0 3 Cyn", "8 vacated 0 ");
    await server.command("ZADD", "parley:rooms", "0", "left");
    await server.command("ZREM", "parley:nodes", id);
    // Who lists the rooms meanwhile does not make these forgotten.
    assertEquals((await granted(two.rooms("", 10))).map(({ room }) => room), [EVENTS_ROOM, "r"]);
    await advance(clock, 6, two);
    await recorder.until(({ chats }) => chats.length === 10);
    const events = recorder.chats.map(({ message }) => JSON.parse(message));
    const ofRoom = (name: string) =>
      events.filter(({ room }) => room === name).map(({ event, members }) => `${event} ${members}`);
    assertEquals(ofRoom("r"), [
      "occupied 1",
      "join 1",
      "join 2",
      "join 3",
      "leave 2",
      "leave 1",
      "leave 0",
      "vacated 0",
    ]);
    const cy = events.filter(({ user }) => user === "u1").map(({ event, name }) => [event, name]);
    assertEquals(cy, [["join", "Cy"], ["leave", "Cy"]]);
    assertEquals(events.filter(({ room }) => room === "left"), [
      { event: "leave", room: "left", n: 7, name: "Cyn", members: 0 },
      { event: "vacated", room: "left", n: 8, members: 0 },
    ]);
    const left = () => server.command("EXISTS", "parley:{r}:events", "parley:{left}:events");
    await eventually(left, (count) => count === "0");
  },
);

redisTest(
  "an event that two nodes publish counts once; one that failed is tried again",
  async () => {
    await using server = await RedisServer.start();
    await using proxy = new Proxy(server.port);
    const clock = new FakeClock();
    const limits = { ...ROOMY, events: MEMBER_EVENTS };
    await using one = await startNode(`redis://127.0.0.1:${proxy.port}`, { clock, limits });
    await using two = await startNode(server.url, { limits });
    const { recorder } = await hear(two, EVENTS_ROOM);
    await granted(one.join("r", "a", "Ann"));
    await recorder.until(({ chats }) => chats.length === 2);
    const { n } = JSON.parse(recorder.messages[0]);
    await server.command("RPUSH", "parley:{r}:events", `${n} occupied 1 `);
    await granted(two.join("r", "b", "Bo"));
    await recorder.until(({ chats }) => chats.length === 3);
    assertEquals(recorder.messages.map((text) => JSON.parse(text).n), [n, n + 1, n + 2]);
    // The node loses its connection in the step itself.
    proxy.cutAll();
    one.leave("r", "a");
    await eventually(() => (clock.tick(10), recorder.chats.length), (count) => count === 4);
    assertEquals(JSON.parse(recorder.messages[3]).event, "leave");
  },
);
