/** One who uses up what all share: keys, rooms, bytes on their way out, a busy Redis, the log. */
import { assert, assertEquals } from "@std/assert";
import { maskedFrame, RawClient } from "../support/clients.ts";
import { eventually, soon } from "../support/inbox.ts";
import { freePort, ServerProcess, TestProcess } from "../support/process.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";
import { IS_FULL, sized } from "../support/run.ts";
import { test } from "./attack_step.ts";
import { crowdOf, inParallel } from "./crowd.ts";
import { Target, weigh } from "./target.ts";

const V1 = { "sec-websocket-protocol": "parley.v1" };
const JSON_TYPE = { "content-type": "application/json" };

/** Asks for a path, and gives the status of the answer. */
async function ask(url: string, init?: RequestInit): Promise<number> {
  const answer = await fetch(url, init);
  await answer.body?.cancel();
  return answer.status;
}

test("HTTP keys of one address leave all others theirs", async () => {
  const flags = ["--history-mb", `${sized(1, 10)}`, "--post-rate", "0", "--trust-proxy", "1"];
  await using target = await Target.start(flags);
  await target.endure("HTTP keys without end", async () => {
    const post = (key: string, address: string) =>
      ask(`${target.url}/rooms/keys/messages`, {
        method: "POST",
        headers: { ...JSON_TYPE, "idempotency-key": key, "x-forwarded-for": address },
        body: "{}",
      });
    const statuses = new Map<number, number>();
    await inParallel(sized(2_000, 10_000), 20, async (index) => {
      const status = await post(`${index}`.padStart(255, "k"), "203.0.113.6");
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    });
    assertEquals([...statuses.keys()].sort(), [202, 503], "its share has an end");
    assertEquals(await post("k", "203.0.113.7"), 202, "another's has not");
  });
});

test("sockets of one address fill no more than its share of MAX_ROOMS", async () => {
  const maxRooms = sized(400, 100_000);
  await using target = await Target.start(["--max-rooms", `${maxRooms}`, "--trust-proxy", "1"]);
  await target.endure("rooms of one address", async () => {
    const clients: RawClient[] = [];
    const headers = { ...V1, "x-forwarded-for": "203.0.113.6" };
    await inParallel(sized(6, 1_005), 20, async (index) => {
      const client = await target.open(`/chat/r-${index}`, headers);
      const rooms = Array.from({ length: 99 }, (_, room) => `r-${index}-${room}`);
      await client.send(rooms.map((room) => `{"type":"listen","room":"${room}"}`).join("\n"));
      while (!(await client.readText()).includes(`"room":"r-${index}-98"`));
      clients.push(client);
    });
    const { rooms } = await target.totals();
    assert(rooms > maxRooms / 3 && rooms <= maxRooms / 2 + 1, `${rooms} rooms`);
    using other = await target.open("/chat/other", V1);
    assert((await other.readText()).includes('"welcome"'), "another opens a room");
    for (const client of clients) client.drop();
  }, { maxRssMb: 400 });
});

test("numbers that are longer as they go out are charged so, and evict no reader, in one request or many", async () => {
  await using target = await Target.start();
  await target.endure("numbers that expand", async () => {
    using speaker = await target.open("/chat/sums", V1);
    speaker.connection.readable.pipeTo(new WritableStream()).catch(() => {});
    const reader = await target.open("/chat/sums", V1);
    let bytes = 0;
    const count = (chunk: Uint8Array) => void (bytes += chunk.length);
    const reading = reader.connection.readable.pipeTo(new WritableStream({ write: count }));
    await speaker.send('{"type":"join","name":"x"}');
    const start = performance.now();
    const message = `{"type":"chat","message":[${Array(12_000).fill("1e20").join()}]}`;
    for (let round = 0; round < sized(5, 50); round++) {
      await speaker.send(message);
      await new Promise((resolve) => setTimeout(resolve, sized(0, 60)));
    }
    await target.until("all are read", ({ messagesIn }) => messagesIn > sized(5, 50));
    const entry = `{"room":"sums","message":[${Array(500).fill("1e20").join()}]}`;
    const body = `{"messages":[${Array(300).fill(entry).join()}]}`;
    const init = { method: "POST", headers: JSON_TYPE, body };
    assertEquals(await ask(`${target.url}/rooms/messages`, init), 200);
    const { closes, refusals } = await target.totals();
    const seconds = (performance.now() - start) / 1_000;
    assertEquals(closes.tooSlow, 0);
    assert(refusals.rate_limited > 0, "more than BYTE_RATE would go out");
    assert(bytes < (3 + seconds) * 1_200_000, `${bytes} bytes in ${seconds} s`);
    reader.drop();
    await reading.catch(() => {});
  });
});

redisTest(
  "who asks a server on Redis for its rooms, without a pause, stops nobody's messages",
  async () => {
    await using redis = await RedisServer.start();
    await using target = await Target.start(["--redis-url", redis.url]);
    const rooms = sized(20, 1_000);
    await inParallel(rooms, 20, async (index) => {
      const init = { method: "POST", headers: JSON_TYPE, body: '{"message":1}' };
      await ask(`${target.url}/rooms/r-${index}/messages`, init);
    });
    await target.endure(
      "GET /rooms on Redis",
      () =>
        inParallel(sized(200, 6_000), 64, async (index) => {
          const paths = ["/rooms", "/rooms", `/rooms/r-${index % rooms}/members`];
          const status = await ask(target.url + paths[index % paths.length]);
          assert(status === 200 || status === 503, `${status}`);
        }),
    );
  },
  test,
);

redisTest(
  "a node takes messages with ids for ever, whatever it may ask Redis to remember",
  async () => {
    await using redis = await RedisServer.start();
    // So much memory is a quarter of a million ids at HISTORY_MB as shipped.
    const flags = ["--history-mb", "1", "--message-rate", "0", "--byte-rate", "0"];
    await using target = await Target.start(["--redis-url", redis.url, ...flags]);
    const [sockets, frames] = [5, sized(15, 100)];
    await target.endure("ids on Redis", async () => {
      await inParallel(sockets, sockets, async (index) => {
        using client = await target.open(`/chat/ids-${index}`, V1);
        const session = `session-of-socket-${index}`;
        await client.send(JSON.stringify({ type: "join", name: "x", session }));
        for (let frame = 0, acks = 0; frame < frames; frame++) {
          const chats = Array.from({ length: 50 }, (_, id) => {
            return `{"type":"chat","id":"${frame * 50 + id}","message":1}`;
          });
          await client.send(chats.join("\n"));
          while (acks < (frame + 1) * 50) {
            const text = await client.readText();
            assert(!text.includes('"error"'), text);
            acks += text.split('"type":"ack"').length - 1;
          }
        }
      });
    });
  },
  test,
);

// The small one is a test of the log.
for (const format of IS_FULL ? ["text", "json"] : []) {
  test(`a reader of the ${format} log that stalls stops nothing`, async () => {
    const port = freePort();
    const flags = `--host 127.0.0.1 --port ${port} --log-format ${format} --log-level debug`;
    const command = `deno run -A main.ts ${flags} --message-rate 0 2>&1 | sleep 600`;
    await using _server = new TestProcess(command);
    const url = `http://127.0.0.1:${port}`;
    const isUp = () => ask(`${url}/healthz`).catch(() => 0);
    await eventually(isUp, (status) => status === 200, "the server is not up");
    const dropped = async () => {
      const metrics = await (await fetch(`${url}/metrics`)).text();
      return Number(/^parley_log_dropped_total (\d+)$/m.exec(metrics)?.[1]);
    };
    using client = await RawClient.open(`ws://127.0.0.1:${port}/echo`);
    const frame = maskedFrame("each is a line");
    const many = new Uint8Array(frame.length * 20_000);
    for (let at = 0; at < many.length; at += frame.length) many.set(frame, at);
    const reading = client.connection.readable.pipeTo(new WritableStream()).catch(() => {});
    await client.write(many);
    await eventually(dropped, (count) => count > 0, "no line was dropped");
    assertEquals(await soon(isUp(), "/healthz"), 200);
    client.drop();
    await reading;
  });
}

test("a Close frame with a reason of megabytes is a short line of the log", async () => {
  await using server = await ServerProcess.start(["--host", "127.0.0.1"]);
  const client = await RawClient.open(`${server.ws}/echo`);
  const payload = new Uint8Array(sized(200_000, 20_000_000)).fill(65);
  payload.set([0x0f, 0xa0]);
  // The runtime sends the frame back before it tells of it.
  const reading = client.connection.readable.pipeTo(new WritableStream()).catch(() => {});
  await client.write(maskedFrame(payload, { opcode: 8 }));
  const line = await server.line(/closed with error|disconnected/);
  assert(line.length < 300, `${line.length} characters`);
  await reading;
});

test("sockets that once got a long frame keep no memory of it", async () => {
  await using target = await Target.start(["--post-rate", "0", "--byte-rate", "0"]);
  const count = sized(20, 1_000);
  const body = JSON.stringify({ message: "x".repeat(60_000) });
  await target.endure("long frames to many", async () => {
    const clients: RawClient[] = [];
    await inParallel(count, 20, async (index) => {
      clients[index] = await target.open(`/chat/r-${index}`, V1);
      await clients[index].readText();
    });
    const post = async (room: number) => {
      const init = { method: "POST", headers: JSON_TYPE, body };
      assertEquals(await ask(`${target.url}/rooms/r-${room}/notes`, init), 202);
      assert((await clients[room].readText()).includes('"note"'));
    };
    // What as many posts take in any case.
    for (let sent = 0; sent < count; sent++) await post(0);
    const before = await target.totals();
    for (let room = 0; room < count; room++) await post(room);
    weigh(await target.totals(), before.rssMb + 30);
    for (const client of clients) client.drop();
  });
});

test("a server that a crowd keeps busy drains at a SIGTERM like any other", async () => {
  const flags = ["--host", "127.0.0.1", "--drain-seconds", "1", "--log-level", "info"];
  await using server = await ServerProcess.start(flags);
  const crowd = await crowdOf(server, sized(20, 300));
  const frame = maskedFrame('{"type":"chat","message":"hey"}');
  // Whoever was ended writes no more.
  const shout = () => Promise.all(crowd.map((client) => client.write(frame).catch(() => {})));
  await Promise.all(crowd.map((client) => client.send('{"type":"join","name":"x"}')));
  let isOver = false;
  const shouting = (async () => {
    while (!isOver) await Promise.all([shout(), new Promise((done) => setTimeout(done, 10))]);
  })();
  await new Promise((resolve) => setTimeout(resolve, sized(200, 5_000)));
  const start = performance.now();
  server.kill("SIGTERM");
  await server.line(/Parley stops/);
  if (IS_FULL) console.log(`  SIGTERM: answered after ${Math.round(performance.now() - start)} ms`);
  assertEquals((await soon(server.status, "the end of the server")).code, 0);
  isOver = true;
  await shouting;
});
