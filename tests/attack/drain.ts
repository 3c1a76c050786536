/** A server is stopped and started again under clients of ours. */
import { assert, assertEquals } from "@std/assert";
import { type Client, connect, type Receipt } from "../../handlers/client/client.js";
import { eventually, soon } from "../support/inbox.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";
import { IS_FULL, sized } from "../support/run.ts";
import { ServerProcess } from "../support/process.ts";
import { test } from "./attack_step.ts";

const CLIENTS = sized(100, 2_000);
const DRAIN_SECONDS = sized(1, 3);
/** The report looks at the rate in so many parts of DRAIN_SECONDS. */
const PARTS = 10;
const ROOMS = sized(5, 50);

/** The ends of all sockets that are opened here: the tests wait for them. */
const ends: Promise<void>[] = [];
globalThis.WebSocket = class extends WebSocket {
  constructor(...args: ConstructorParameters<typeof WebSocket>) {
    super(...args);
    ends.push(new Promise((resolve) => this.addEventListener("close", () => resolve())));
  }
};
const sockets: AsyncDisposable = {
  async [Symbol.asyncDispose]() {
    await soon(Promise.all(ends), "the end of all sockets");
  },
};

/** How many of these times lie in the fullest part, as a multiple of an even spread. */
function spikeOf(times: number[]): number {
  const partMs = DRAIN_SECONDS * 1_000 / PARTS;
  const first = Math.min(...times);
  const counts: number[] = [];
  for (const time of times) {
    const part = Math.floor((time - first) / partMs);
    counts[part] = (counts[part] ?? 0) + 1;
  }
  return Math.max(...counts.filter(Boolean)) / (CLIENTS / PARTS);
}

test(`${CLIENTS} clients are sent away and come back to a restarted server`, async () => {
  const flags = [
    "--host",
    "127.0.0.1",
    "--drain-seconds",
    `${DRAIN_SECONDS}`,
    "--log-level",
    "info",
  ];
  await using _sockets = sockets;
  await using old = await ServerProcess.start(flags);
  const { port } = new URL(old.url);
  const left: number[] = [];
  const back: number[] = [];
  let gaps = 0;
  let heard = 0;
  const all = { in: Promise.withResolvers<void>(), back: Promise.withResolvers<void>() };
  const clients: Client[] = [];
  let welcomes = 0;
  for (let index = 0; index < CLIENTS; index++) {
    let hasLeft = false;
    clients.push(connect(`${old.ws}/chat/drain-${index % ROOMS}`, {
      onWelcome() {
        if (hasLeft) back.push(performance.now());
        if (++welcomes === CLIENTS) all.in.resolve();
        if (back.length === CLIENTS) all.back.resolve();
      },
      onMessage: () => void heard++,
      onGap: () => void gaps++,
      onConnection(state) {
        if (state !== "reconnecting" || hasLeft) return;
        hasLeft = true;
        left.push(performance.now());
      },
    }));
    // Not all handshakes at once.
    if (index % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 10));
  }
  try {
    await soon(all.in.promise, "the first welcome of all");
    const speaker = clients[0];
    speaker.join("Ann");
    const { seq } = await speaker.send("kept in memory only");
    assertEquals(seq, 1);

    const stoppedAt = performance.now();
    old.kill("SIGTERM");
    assertEquals((await soon(old.status, "the end of the old server")).code, 0);
    const endedAt = performance.now();
    await using _fresh = await ServerProcess.start([...flags, "--port", port]);
    await soon(all.back.promise, () => `the return of all: ${back.length} came back`);

    const seconds = (time: number) => ((time - stoppedAt) / 1_000).toFixed(1);
    if (IS_FULL) {
      console.log(
        `  ${CLIENTS} clients: sent away within ${seconds(Math.max(...left))} s, at most ` +
          `${spikeOf(left).toFixed(2)} × the even rate; old server gone after ` +
          `${seconds(endedAt)} s; back from ${seconds(Math.min(...back))} to ` +
          `${seconds(Math.max(...back))} s, at most ${spikeOf(back).toFixed(2)} × the even rate`,
      );
    }
    assert(heard >= CLIENTS / ROOMS, "the room of the message heard it");
    assertEquals(gaps, CLIENTS, "with the memory engine, each is told once that all is new");
  } finally {
    for (const client of clients) client.close();
  }
});

redisTest("nothing that was acked is lost across a drain with the redis engine", async () => {
  const senders = 10;
  await using redis = await RedisServer.start();
  const drain = ["--host", "127.0.0.1", "--drain-seconds", "1"];
  // What is said while a client is away must be kept for it.
  const flags = [...drain, "--redis-url", redis.url, "--history-size", "10000"];
  await using _sockets = sockets;
  await using old = await ServerProcess.start(flags);
  const { port } = new URL(old.url);
  const heard = new Map<number, unknown>();
  let gaps = 0;
  let doubles = 0;
  let returns = 0;
  const allBack = Promise.withResolvers<void>();
  const url = `${old.ws}/chat/kept`;
  const listener = connect(url, {
    onMessage({ seq, message }) {
      if (heard.has(seq)) doubles++;
      heard.set(seq, message);
    },
    onGap: () => void gaps++,
  });
  const speakers = Array.from({ length: senders }, (_, index) => {
    let welcomes = 0;
    const onWelcome = () => {
      if (++welcomes === 2 && ++returns === senders) allBack.resolve();
    };
    return connect(url, { name: `Speaker ${index}`, onWelcome });
  });
  const receipts: Promise<[Receipt, string]>[] = [];
  let sent = 0;
  const timer = setInterval(() => {
    for (const speaker of speakers) {
      const message = `message ${++sent}`;
      const kept = speaker.send(message).then((receipt): [Receipt, string] => [receipt, message]);
      // If the test fails before, it fails by that.
      kept.catch(() => {});
      receipts.push(kept);
    }
  }, 20);
  try {
    await soon(speakers[0].send("the first"), "an ack");
    await eventually(() => sent, (count) => count >= senders * 10);
    old.kill("SIGTERM");
    assertEquals((await soon(old.status, "the end of the old server")).code, 0);
    await using _fresh = await ServerProcess.start([...flags, "--port", port]);
    await soon(allBack.promise, "the return of all");
    clearInterval(timer);
    const acked = await soon(Promise.all(receipts), "every ack");
    const last = Math.max(...acked.map(([{ seq }]) => seq));
    await eventually(() => heard.has(last), (isHeard) => isHeard, "the last message");
    for (const [{ seq }, message] of acked) assertEquals(heard.get(seq), message);
    assertEquals([gaps, doubles], [0, 0]);
    assertEquals(new Set(acked.map(([{ seq }]) => seq)).size, acked.length, "each was kept once");
    assert(acked.length > senders * 10, `${acked.length} were acked`);
  } finally {
    clearInterval(timer);
    for (const client of [listener, ...speakers]) client.close();
  }
}, test);
