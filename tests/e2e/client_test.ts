/**
 * The real client against a real server process, which is killed, and through a proxy that cuts.
 */
import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { connect, ParleyError } from "../../handlers/client/client.js";
import { eventually, soon } from "../support/inbox.ts";
import { ServerProcess } from "../support/process.ts";
import { Proxy } from "../support/proxy.ts";
import { Random } from "../support/random.ts";
import { hasRedis, RedisServer } from "../support/redis_server.ts";
import { SEED, sized } from "../support/run.ts";
import { startServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";
import { together } from "../support/together.ts";

const test = together("the client against a server that is cut off, killed and restarted");

const MESSAGES = sized(1_000, 10_000);
const UNLIMITED = ["--message-rate", "0", "--byte-rate", "0", "--join-rate", "0"];

/** What a client was told, in the order it was told. */
type Told =
  | { type: "message"; epoch: string; seq: number; message: unknown }
  | { type: "gap"; from: { epoch: string; seq: number }; to: { epoch: string; seq: number } };

/** A client of room `ops`, and all that it was told. */
function listen(proxy: Proxy, name?: string) {
  const told: Told[] = [];
  const errors: ParleyError[] = [];
  let expected = Infinity;
  let complete = Promise.withResolvers<void>();
  const welcomed = Promise.withResolvers<void>();
  const lost = Promise.withResolvers<void>();
  const client = connect(`ws://127.0.0.1:${proxy.port}/chat/ops`, {
    name,
    onMessage({ epoch, seq, message }) {
      told.push({ type: "message", epoch, seq, message });
      if (told.length >= expected) complete.resolve();
    },
    onGap({ from, to }) {
      told.push({ type: "gap", from, to });
    },
    onError: (error) => errors.push(error),
    onWelcome: () => welcomed.resolve(),
    onConnection: (state) => state === "reconnecting" && lost.resolve(),
  });
  /** Waits until it was told so many things. */
  const until = (count: number) => {
    expected = count;
    complete = Promise.withResolvers();
    if (told.length >= count) complete.resolve();
    return soon(complete.promise, `thing ${count} of ${told.length}`);
  };
  return { client, told, errors, until, welcomed: welcomed.promise, lost: lost.promise };
}

// The shortest waits that full jitter allows: there are cuts to make, and no time to lose.
Math.random = () => 0.01;

test(`${MESSAGES} messages through many cuts arrive once, in order, and all are acked`, async () => {
  const random = new Random(SEED);
  await using server = await ServerProcess.start([
    ...UNLIMITED,
    "--history-size",
    `${MESSAGES}`,
    "--max-queue-bytes",
    "100000000",
  ]);
  await using proxy = new Proxy(server.port);
  const talkers = ["Ann", "Bob"].map((name) => listen(proxy, name));
  const all = [...talkers, ...range(1, 6).map(() => listen(proxy))];
  await Promise.all(all.map(({ welcomed }) => welcomed));
  // Many short lives; some of them long enough for a frame of 64 kB.
  const bytes = () => 1_000 * 256 ** random.next();
  proxy.bytesUntilCut = () => ({ up: bytes(), down: bytes() });
  proxy.cutAll();
  const receipts = await Promise.all(talkers.map(({ client }, talker) =>
    Promise.all(
      range(1, MESSAGES / 2).map((index) => client.send({ talker, index })),
    )
  ));
  await Promise.all(all.map(({ until }) => until(MESSAGES)));
  for (const { client } of all) client.close();

  const hint = `with seed ${SEED}`;
  const [[{ epoch }]] = receipts;
  const messages = new Map<number, unknown>();
  for (const [talker, places] of receipts.entries()) {
    const seqs = places.map(({ seq }) => seq);
    assertEquals(seqs, seqs.toSorted((a, b) => a - b), `a sender's order, ${hint}`);
    for (const [at, place] of places.entries()) {
      assertEquals(place.epoch, epoch);
      messages.set(place.seq, { talker, index: at + 1 });
    }
  }
  assertEquals(messages.size, MESSAGES, `places of acked messages, ${hint}`);
  const order = range(1, MESSAGES).map((seq) => {
    return { type: "message", epoch, seq, message: messages.get(seq) };
  });
  for (const { told, errors } of all) {
    assert(JSON.stringify(told) === JSON.stringify(order), `a client's view differs, ${hint}`);
    assertEquals(errors, []);
  }
  assertGreater(proxy.endCount, sized(20, 200), hint);
});

test("where no window of 1,000 gets through before the next cut, smaller ones do", async () => {
  const random = new Random(SEED);
  await using server = await ServerProcess.start([...UNLIMITED, "--history-size", "2000"]);
  await using proxy = new Proxy(server.port);
  proxy.bytesUntilCut = () => ({ up: 20_000 + 10_000 * random.next(), down: Infinity });
  const { client, told, until } = listen(proxy, "Ann");
  const sends = Promise.all(range(1, 2_000).map((message) => client.send(message)));
  const places = await soon(sends, `all acks with seed ${SEED}`);
  await until(2_000);
  client.close();
  assertEquals(places.map(({ seq }) => seq), range(1, 2_000));
  assertEquals(told.map((one) => one.type === "message" && one.message), range(1, 2_000));
});

test("across a restart every listener is told by a gap, and goes on in the new epoch", async () => {
  const settings = [...UNLIMITED, "--history-size", "1000"];
  await using first = await ServerProcess.start(settings);
  await using proxy = new Proxy(first.port);
  const ann = listen(proxy, "Ann");
  const listeners = [ann, listen(proxy), listen(proxy)];
  await Promise.all(listeners.map(({ welcomed }) => welcomed));
  const before = await Promise.all(range(1, 100).map((message) => ann.client.send(message)));
  await Promise.all(listeners.map(({ until }) => until(100)));
  const [{ epoch }] = before;

  const inFlight = ann.client.send("in flight").catch((error: ParleyError) => error.code);
  first.kill("SIGKILL");
  await ann.lost;
  const during = range(101, 200).map((message) => ann.client.send(message));
  await using second = await ServerProcess.start(settings);
  proxy.targetPort = second.port;
  const places = await soon(Promise.all(during), "acks of the second server");
  const after = await Promise.all(range(201, 300).map((message) => ann.client.send(message)));
  await Promise.all(listeners.map(({ until }) => until(301)));
  for (const { client } of listeners) client.close();

  const anew = places[0].epoch;
  assert(anew !== epoch);
  assertEquals(before.map(({ seq }) => seq), range(1, 100));
  assertEquals([...places, ...after].map(({ seq }) => seq), range(1, 200));
  assertEquals(await inFlight, "unknown", "the new server cannot know what the old one did");
  const message = (epoch: string, seq: number, message: number): Told => {
    return { type: "message", epoch, seq, message };
  };
  const expected: Told[] = [
    ...range(1, 100).map((seq) => message(epoch, seq, seq)),
    { type: "gap", from: { epoch, seq: 100 }, to: { epoch: anew, seq: 0 } },
    ...range(1, 200).map((seq) => message(anew, seq, seq + 100)),
  ];
  for (const { told, errors } of listeners) {
    assertEquals(told, expected);
    assertEquals(errors, []);
  }
});

test("a small MAX_MESSAGE_BYTES passes many small messages, and refuses a large one alone", async () => {
  await using server = await startServer({ MAX_MESSAGE_BYTES: 4_096, MESSAGE_RATE: 0 });
  const errors: ParleyError[] = [];
  const client = connect(`${server.url}/chat/ops`, { name: "Ann", onError: (e) => errors.push(e) });
  for (const index of range(1, 30)) {
    client.listen(`a-room-with-a-name-of-${"x".repeat(40)}${index}`);
  }
  const small = range(1, 60).map((index) => client.send("x".repeat(100) + index));
  const large = await assertRejects(() => client.send("x".repeat(5_000)), ParleyError);
  assertEquals(large.code, "too_big");
  assertEquals((await Promise.all(small)).map(({ seq }) => seq), range(1, 60));
  assertEquals((await client.send("next")).seq, 61);
  assertEquals([client.connection, errors], ["open", []]);
  client.close();
});

test("after a refused name and a cut the old name is in the room again", async () => {
  await using server = await startServer();
  await using proxy = new Proxy(Number(new URL(server.url).port));
  const ann = listen(proxy, "Ann");
  await ann.client.send("one");
  ann.client.join("bad\nname");
  await ann.client.send("two");
  assertEquals(ann.errors.map(({ code }) => code), ["bad_name"]);
  proxy.cutAll();
  await ann.lost;
  assertEquals((await ann.client.send("three")).seq, 3);
  assertEquals((await ann.client.members()).members, ["Ann"]);
  ann.client.close();
});

// The state of the real client on a real server, through cuts and over a restart.

for (const engine of ["memory", "threads", "durable", "redis"]) {
  const name = `the client's state on a ${engine} engine is right after cuts and a restart`;
  test(name, async () => {
    await using stack = new AsyncDisposableStack();
    const settings: Record<string, string | number> = { JOIN_RATE: 0 };
    if (engine === "redis") settings.REDIS_URL = stack.use(await RedisServer.start()).url;
    if (engine === "durable") {
      const folder = await Deno.makeTempDir();
      stack.defer(() => Deno.remove(folder, { recursive: true }));
      settings.DATA_FILE = `${folder}/parley.db`;
    }
    const start = () =>
      engine === "threads"
        ? ServerProcess.start(["--workers", "2", "--join-rate", "0"])
        : startServer(settings);
    let server = await start();
    stack.defer(() => server[Symbol.asyncDispose]());
    const proxy = stack.use(new Proxy(Number(new URL(server.url).port)));
    const errors: ParleyError[] = [];
    let lost = Promise.withResolvers<void>();
    const enter = (name?: string) => {
      const client = connect(`ws://127.0.0.1:${proxy.port}/chat/game`, {
        name,
        state: true,
        onConnection: (now) => name === "Ann" && now === "reconnecting" && lost.resolve(),
        onError: (error) => errors.push(error),
      });
      stack.defer(() => client.close());
      return client;
    };
    const [ann, bob, viewer] = [enter("Ann"), enter("Bob"), enter()];
    const all = async (expected: Record<string, unknown>) => {
      for (const { state } of [ann, bob, viewer]) {
        const map = () => JSON.stringify(Object.fromEntries([...state()].sort()));
        await eventually(map, (text) => text === JSON.stringify(expected));
      }
    };

    const { rev } = await ann.set("turn", "Ann", { if: 0, bind: true });
    await ann.set("player/Ann", { x: 1 }, { bind: true });
    await bob.set("score", 7);
    await all({ "player/Ann": { x: 1 }, "score": 7, "turn": "Ann" });
    assertEquals(viewer.entry("turn")?.rev, rev);
    const refusal = await bob.set("turn", "Bob", { if: 0 }).catch((error: ParleyError) => error);
    assertEquals([(refusal as ParleyError).code, refusal.rev], ["rev_conflict", rev]);

    for (const x of [2, 4, 6]) {
      lost = Promise.withResolvers();
      proxy.cutAll();
      await lost.promise;
      const replaced = ann.set("player/Ann", { x }, { bind: true });
      const last = ann.set("player/Ann", { x: x + 1 }, { bind: true });
      assertEquals(await replaced, await last, "one that waits is replaced by a later one");
      await all({ "player/Ann": { x: x + 1 }, "score": 7, "turn": "Ann" });
    }

    lost = Promise.withResolvers();
    proxy.cut();
    await lost.promise;
    await server[Symbol.asyncDispose]();
    server = await start();
    proxy.targetPort = Number(new URL(server.url).port);
    const kept = ["memory", "threads"].includes(engine) ? {} : { score: 7 };
    proxy.heal();
    await all({ "player/Ann": { x: 7 }, ...kept, "turn": "Ann" });

    ann.close();
    const others = () => JSON.stringify([bob, viewer].map(({ state }) => [...state()]));
    const expected = JSON.stringify([kept, kept].map(Object.entries));
    await eventually(others, (text) => text === expected);
    assertEquals(errors, []);
  }, engine === "redis" && !hasRedis);
}
