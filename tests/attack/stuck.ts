/** Peers that stop reading, or say nothing more. */
import { assert, assertEquals } from "@std/assert";
import { OPCODE, type RawClient } from "../support/clients.ts";
import { soon } from "../support/inbox.ts";
import { IS_FULL, sized } from "../support/run.ts";
import { Target, weigh } from "./target.ts";
import { test } from "./attack_step.ts";

/** Rates of no limit; who is stuck goes by its queue, however long that takes, and not by a ping. */
const PATIENT = ["--post-rate", "0", "--byte-rate", "0", "--idle-timeout", "0"];
const V1 = { "sec-websocket-protocol": "parley.v1" };

/** Opens so many raw sockets, 50 at a time. */
async function openMany(target: Target, count: number, path: string): Promise<RawClient[]> {
  const clients: RawClient[] = [];
  while (clients.length < count) {
    const opening = Array.from({ length: Math.min(50, count) }, (_, index) => {
      return target.open(path, index % 2 ? V1 : {});
    });
    clients.push(...await Promise.all(opening));
  }
  return clients;
}

/** Publishes 60 kB to a room. */
async function post(target: Target, room: string): Promise<void> {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ message: "x".repeat(60_000) });
  const answer = await fetch(`${target.url}/rooms/${room}/messages`, {
    method: "POST",
    headers,
    body,
  });
  await answer.body?.cancel();
  assertEquals(answer.status, 202);
}

/** Fills a room with stuck listeners until all are evicted, and lets them go. */
async function stick(target: Target, count: number, maxRssMb: number): Promise<void> {
  const before = await target.totals();
  const stuck = await openMany(target, count, "/chat/hose");
  let peakMb = 0;
  for (let sent = 0; sent < 500; sent++) {
    await post(target, "hose");
    if (sent % 10 !== 9) continue;
    const { clients, rssMb } = await target.totals();
    peakMb = Math.max(peakMb, rssMb);
    if (clients === before.clients) break;
  }
  const { clients, held, rooms, closes } = await target.totals();
  assertEquals([clients, held], [before.clients, before.held + count], "out at once, yet held");
  assertEquals([rooms, closes.tooSlow], [before.rooms, before.closes.tooSlow + count]);
  if (IS_FULL) console.log(`  ${Math.round(peakMb)} MB at most while ${count} were stuck`);
  weigh({ rssMb: peakMb }, maxRssMb);
  for (const client of stuck) client.drop();
}

/** Bytes that the server has not handed to the system, of all sockets. */
async function unsentBytes(target: Target): Promise<number> {
  const metrics = await (await fetch(`${target.url}/metrics`)).text();
  return Number(/^parley_queue_bytes (\d+)$/m.exec(metrics)![1]);
}

test("listeners stuck behind small frames go before these cost much more than their bytes", async () => {
  const rates = ["--message-rate", "0", "--byte-rate", "0", "--post-rate", "0"];
  await using target = await Target.start(rates);
  const count = sized(3, 10);
  // The runtime takes nearly 1 kB for a frame.
  const maxRssMb = (await target.totals()).rssMb + count * 14 + 30;
  await target.endure("stuck behind small frames", async () => {
    const stuck = await Promise.all(Array.from({ length: count }, () => target.open("/chat/hose")));
    // The system's own buffers take what comes first.
    while (await unsentBytes(target) < count * 60_000) await post(target, "hose");
    assertEquals((await target.totals()).closes.tooSlow, 0);
    using speaker = await target.open("/chat/hose", V1);
    const reading = (async () => {
      while (await speaker.read().catch(() => undefined));
    })();
    await speaker.send('{"type":"join","name":"x"}');
    // As many as 30 may say within their rates: 3,000 a second.
    const frame = Array.from({ length: 150 }, () => '{"type":"chat","message":0}').join("\n");
    for (let evicted = 0; evicted < count;) {
      await speaker.send(frame);
      await new Promise((resolve) => setTimeout(resolve, 50));
      const totals = await target.totals();
      weigh(totals, maxRssMb);
      evicted = totals.closes.tooSlow;
      // By bytes alone 28,000 frames would wait for each.
      assert(totals.messagesIn < 10_000, `${evicted} went for ${totals.messagesIn} frames`);
    }
    for (const client of [speaker, ...stuck]) client.drop();
    await reading;
  }, { maxRssMb });
});

test("stuck listeners under a firehose are evicted, and cost MAX_QUEUE_BYTES each at most", async () => {
  const count = sized(10, 500);
  await using target = await Target.start(PATIENT);
  const maxRssMb = (await target.totals()).rssMb + count * 1.25 + 150;
  await target.endure("stuck listeners", () => stick(target, count, maxRssMb), { maxRssMb });
  // The allocator keeps what was freed: a second time takes no more.
  if (IS_FULL) await target.endure("200 more", () => stick(target, 200, maxRssMb), { maxRssMb });
});

const JEMALLOC = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/** Whether a file is there. */
function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

// Memory alone is what it tells.
if (IS_FULL) {
  const name =
    "with jemalloc (apt-get install libjemalloc2) the memory of stuck listeners goes back";
  test(name, stickWithJemalloc, !exists(JEMALLOC));
}

async function stickWithJemalloc() {
  await using target = await Target.start(PATIENT, {
    LD_PRELOAD: JEMALLOC,
    MALLOC_CONF: "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0",
  });
  const { rssMb } = await target.totals();
  await target.endure("stuck listeners with jemalloc", () => stick(target, 200, rssMb + 400), {
    maxRssMb: rssMb + 400,
  });
  await target.until("memory has fallen", (totals) => totals.rssMb < rssMb + 100);
}

test("with IDLE_TIMEOUT=1 a peer that half-closes, dribbles, or answers no ping is gone in 2 s", async () => {
  await using target = await Target.start(["--idle-timeout", "1"]);
  const gone = async (client: RawClient) => {
    while (await client.read());
    client.drop();
  };
  await target.endure("dead peers", async () => {
    const count = sized(10, 50);
    const halfClosed = await openMany(target, count, "/chat/dead");
    const silent = await openMany(target, count, "/chat/dead");
    const dribbling = await openMany(target, count, "/chat/dead");
    for (const client of halfClosed) await (client.connection as Deno.TcpConn).closeWrite();
    // A message of 64 kB, of which a byte comes every 200 ms.
    for (const client of dribbling) await client.write(Uint8Array.of(0x81, 0xff, 0, 0, 0, 0, 0, 1));
    const timer = setInterval(() => {
      for (const client of dribbling) client.write(Uint8Array.of(0)).catch(() => {});
    }, 200);
    const all = [...halfClosed, ...silent, ...dribbling];
    await soon(Promise.all(all.map(gone)), "the end of dead peers");
    clearInterval(timer);
  });
});

test("a live peer that says nothing stays, as it answers the pings", async () => {
  await using target = await Target.start(["--idle-timeout", "1"]);
  using client = await target.open("/chat/quiet", V1);
  await client.readText();
  for (let pings = 0; pings < 2; pings++) {
    const frame = await soon(client.read(), "a ping");
    assertEquals(frame?.opcode, OPCODE.ping);
    await client.send(frame!.payload, { opcode: OPCODE.pong });
  }
  assertEquals((await target.totals()).clients, 1);
});

test("readers of events that stop reading are evicted, too", async () => {
  const count = sized(5, 50);
  await using target = await Target.start(PATIENT);
  await target.endure("stuck readers of events", async () => {
    const request = new TextEncoder().encode(
      "GET /rooms/hose/events HTTP/1.1\r\nhost: x\r\n\r\n",
    );
    const readers = await Promise.all(Array.from({ length: count }, async () => {
      const connection = await target.dial();
      await connection.write(request);
      return connection;
    }));
    await target.until("they are in", ({ connections }) => connections.events === count);
    for (let sent = 0; sent < 500; sent++) {
      await post(target, "hose");
      if (sent % 10 === 9 && (await target.totals()).connections.events === 0) break;
    }
    await target.until(
      "they are evicted",
      ({ closes, held }) => closes.tooSlow === count && held === 2,
    );
    for (const reader of readers) reader.close();
  });
});
