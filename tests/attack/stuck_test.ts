/** Peers that stop reading, or say nothing more. */
import { assert, assertEquals } from "@std/assert";
import { OPCODE, RawClient } from "../clients.ts";
import { soon } from "../inbox.ts";
import { Target } from "./target.ts";

const STUCK = 500;
const V1 = { "sec-websocket-protocol": "parley.v1" };

/** Opens so many raw sockets, 50 at a time. */
async function openMany(target: Target, count: number, path: string): Promise<RawClient[]> {
  const clients: RawClient[] = [];
  while (clients.length < count) {
    const opening = Array.from({ length: 50 }, (_, index) => {
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

Deno.test("500 stuck listeners under a firehose are evicted, and cost MAX_QUEUE_BYTES each at most", async () => {
  await using target = await Target.start("--post-rate", "0");
  const before = await target.totals();
  await target.endure("500 stuck listeners", async () => {
    const stuck = await openMany(target, STUCK, "/chat/hose");
    let peakMb = 0;
    for (let sent = 0; sent < 500; sent++) {
      await post(target, "hose");
      if (sent % 10 !== 9) continue;
      const { clients, rssMb } = await target.totals();
      peakMb = Math.max(peakMb, rssMb);
      if (clients === 2) break;
    }
    const { clients, held, rooms, closes } = await target.totals();
    assertEquals([clients, closes.tooSlow], [2, STUCK], "the innocent pair is left");
    assertEquals([held, rooms], [STUCK + 2, 1]);
    const boundMb = before.rssMb + STUCK * 1.25 + 150;
    console.log(`  ${Math.round(peakMb)} MB at most while 500 were stuck`);
    assert(peakMb < boundMb, `${peakMb} MB, ${boundMb} MB are allowed`);
    for (const client of stuck) client.drop();
  }, { maxRssMb: 400 });
});

Deno.test("with IDLE_TIMEOUT=1 a peer that half-closes, dribbles, or answers no ping is gone in 2 s", async () => {
  await using target = await Target.start("--idle-timeout", "1");
  const gone = async (client: RawClient) => {
    while (await client.read());
    client.drop();
  };
  await target.endure("dead peers", async () => {
    const halfClosed = await openMany(target, 50, "/chat/dead");
    const silent = await openMany(target, 50, "/chat/dead");
    const dribbling = await openMany(target, 50, "/chat/dead");
    for (const client of halfClosed) await (client.connection as Deno.TcpConn).closeWrite();
    // A message of 64 kB, of which a byte comes every 200 ms.
    for (const client of dribbling) await client.write(Uint8Array.of(0x81, 0xff, 0, 0, 0, 0, 0, 1));
    const timer = setInterval(() => {
      for (const client of dribbling) client.write(Uint8Array.of(0)).catch(() => {});
    }, 200);
    const all = [...halfClosed, ...silent, ...dribbling];
    await soon(Promise.all(all.map(gone)), "the end of dead peers", 5_000);
    clearInterval(timer);
  });
});

Deno.test("a live peer that says nothing for long stays, as it answers the pings", async () => {
  await using target = await Target.start("--idle-timeout", "1");
  using client = await target.open("/chat/quiet", V1);
  await client.readText();
  for (let pings = 0; pings < 3; pings++) {
    const frame = await soon(client.read(), "a ping");
    assertEquals(frame?.opcode, OPCODE.ping);
    await client.send(frame!.payload, { opcode: OPCODE.pong });
  }
  assertEquals((await target.totals()).clients, 1);
});

Deno.test("readers of events that stop reading are evicted, too", async () => {
  await using target = await Target.start("--post-rate", "0");
  await target.endure("stuck readers of events", async () => {
    const request = new TextEncoder().encode(
      "GET /rooms/hose/events HTTP/1.1\r\nhost: x\r\n\r\n",
    );
    const readers = await Promise.all(Array.from({ length: 50 }, async () => {
      const connection = await target.dial();
      await connection.write(request);
      return connection;
    }));
    await target.until("they are in", ({ connections }) => connections.events === 50);
    for (let sent = 0; sent < 500; sent++) {
      await post(target, "hose");
      if (sent % 10 === 9 && (await target.totals()).connections.events === 0) break;
    }
    await target.until(
      "they are evicted",
      ({ closes, held }) => closes.tooSlow === 50 && held === 2,
    );
    for (const reader of readers) reader.close();
  });
});
