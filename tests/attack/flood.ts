/** Many clients, many rooms, many addresses; clients that come, give up and vanish. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { maskedFrame, OPCODE, RawClient } from "../support/clients.ts";
import { eventually, soon } from "../support/inbox.ts";
import { ServerProcess } from "../support/process.ts";
import { Random } from "../support/random.ts";
import { IS_FULL, SEED, sized } from "../support/run.ts";
import { requestAndReset, upgradeOf } from "./strangers.ts";
import { Target } from "./target.ts";
import { test } from "./attack_step.ts";
import { crowdOf, inParallel } from "./crowd.ts";

const encoder = new TextEncoder();
const V1 = { "sec-websocket-protocol": "parley.v1" };

test("a flood of connects and drops at every stage leaves nothing behind", async () => {
  await using target = await Target.start();
  const stages: ((index: number) => Promise<void>)[] = [
    async () => (await target.dial()).close(),
    async () => {
      using connection = await target.dial();
      await connection.write(encoder.encode("GET /chat HTTP/1.1\r\nhost: x\r\nupgr"));
    },
    async (index) => {
      using connection = await target.dial();
      await connection.write(handshake(`/chat/flood-${index % 100}`));
    },
    async (index) => {
      using client = await target.open(`/chat/flood-${index % 100}`);
      assertEquals(client.status, 101);
    },
    async (index) => {
      using client = await target.open(`/chat/flood-${index % 100}?history=100`);
      await client.send('{"type":"join","name":"x"}');
      await client.send('{"type":"chat","message":"x"}');
    },
    async () => {
      using connection = await target.dial();
      await connection.write(encoder.encode("GET /rooms/a/events HTTP/1.1\r\nhost: x\r\n\r\n"));
    },
  ];
  const after = await target.endure("flood of connects and drops", async () => {
    await inParallel(sized(600, 8_000), 100, (index) => stages[index % stages.length](index));
  });
  assert(after.engineRooms <= 102, `${after.engineRooms} rooms`);
});

function handshake(path: string): Uint8Array {
  return encoder.encode(
    `GET ${path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n` +
      "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
  );
}

test("a thousand rooms a second, from as many addresses, end at MAX_ROOMS", async () => {
  const maxRooms = sized(400, 2_000);
  await using target = await Target.start(["--max-rooms", `${maxRooms}`, "--trust-proxy", "1"]);
  const seconds = 4;
  await target.endure("a thousand rooms a second", async () => {
    for (let second = 0; second < seconds; second++) {
      const pause = new Promise((resolve) => setTimeout(resolve, sized(0, 1_000)));
      const address = (index: number) => ({ "x-forwarded-for": `2001:db8:${second}:${index}::1` });
      // Half of them are listened to for a moment, half are posted to and never heard.
      const hearing = inParallel(sized(1, 5), 5, async (index) => {
        const path = `/chat/r-${second}-${index}`;
        const protocol = { "sec-websocket-protocol": "parley.v1" };
        using client = await target.open(path, { ...protocol, ...address(index) });
        const lines = Array.from({ length: 99 }, (_, room) => {
          return `{"type":"listen","room":"r-${second}-${index}-${room}"}`;
        });
        await client.send(lines.join("\n"));
        await client.readText();
      });
      const posting = inParallel(sized(50, 500), 20, async (index) => {
        const headers = { "content-type": "application/json", ...address(index) };
        const init = { method: "POST", headers, body: '{"message":"x"}' };
        const answer = await fetch(`${target.url}/rooms/p-${second}-${index}/messages`, init);
        await answer.body?.cancel();
        assertEquals(answer.status, 202);
      });
      await Promise.all([hearing, posting, pause]);
    }
    const { engineRooms } = await target.totals();
    assert(engineRooms > maxRooms / 2 && engineRooms <= maxRooms, `${engineRooms} rooms`);
  });
});

test("who asks for a list of many rooms and for history, again and again, stops nobody", async () => {
  await using target = await Target.start();
  await target.endure("a flood of questions", async () => {
    const listeners = sized(10, 100);
    const clients: RawClient[] = [];
    await inParallel(listeners, 20, async (index) => {
      const client = await target.open(`/chat/l-${index}`, {
        "sec-websocket-protocol": "parley.v1",
      });
      const lines = Array.from(
        { length: 99 },
        (_, room) => `{"type":"listen","room":"l-${index}-${room}"}`,
      );
      await client.send(lines.join("\n"));
      clients.push(client);
    });
    await target.until("all rooms are heard", ({ rooms }) => rooms > listeners * 100);
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ message: "x".repeat(60_000) });
    for (let sent = 0; sent < 10; sent++) {
      const answer = await fetch(`${target.url}/rooms/l/messages`, {
        method: "POST",
        headers,
        body,
      });
      await answer.body?.cancel();
    }
    const paths = ["/rooms", "/rooms?after=l-5", "/rooms/l/messages", "/rooms/l/messages?limit=1"];
    await inParallel(sized(100, 4_000), 20, async (index) => {
      const answer = await fetch(target.url + paths[index % paths.length]);
      assertEquals(answer.status, 200);
      await answer.arrayBuffer();
    });
    for (const client of clients) client.drop();
  });
});

test("MAX_CONNECTIONS sockets of one attacker shut the door, and no longer than they stay", async () => {
  await using target = await Target.start(["--max-connections", "100"]);
  await target.endure("a full house", async () => {
    const clients: RawClient[] = [];
    await inParallel(140, 50, async () => void clients.push(await target.open("/echo")));
    const statuses = clients.map(({ status }) => status);
    assertEquals(statuses.filter((status) => status === 101).length, 98, "and the innocent pair");
    assertEquals(statuses.filter((status) => status === 503).length, 42);
    for (const client of clients) client.drop();
    await target.until("there is place again", ({ held }) => held === 2);
  });
});

test("MAX_CONNECTIONS_PER_IP keeps places for others", async () => {
  await using target = await Target.start(["--max-connections-per-ip", "20", "--trust-proxy", "1"]);
  await target.endure("a full address", async () => {
    const clients: RawClient[] = [];
    const from = { "x-forwarded-for": "203.0.113.6" };
    await inParallel(50, 50, async () => void clients.push(await target.open("/echo", from)));
    assertEquals(clients.filter(({ status }) => status === 101).length, 20);
    assertEquals(clients.filter(({ status }) => status === 429).length, 30);
    for (const client of clients) client.drop();
  });
});

test("whoever sends far over the rates is refused, costs no log, and slows nobody to a halt", async () => {
  await using target = await Target.start();
  const before = await target.totals();
  const after = await target.endure("a flood of refused messages", async () => {
    const floods = Array.from({ length: 20 }, async (_, index) => {
      const isMerging = index % 2 === 1;
      const protocol = isMerging ? { "sec-websocket-protocol": "parley.v1" } : undefined;
      using client = await target.open(`/chat/noise-${index}`, protocol);
      const reading = (async () => {
        while (await client.read().catch(() => undefined));
      })();
      await client.send('{"type":"join","name":"x"}');
      const message = JSON.stringify({ type: "chat", message: "x".repeat(200) });
      const frame = isMerging ? Array.from({ length: 50 }, () => message).join("\n") : message;
      // One message a frame takes long to be too many.
      const isEndless = isMerging || IS_FULL;
      try {
        for (let sent = 0; isEndless || sent < 150; sent++) await client.send(frame);
      } catch {
        // The server ended it.
      }
      client.drop();
      await reading;
    });
    await soon(Promise.all(floods), "the end of those who flood");
  });
  assert(after.closes.rateLimited >= sized(10, 20), "those who flood are closed");
  assert(after.refusals.rate_limited > 1_000, `${after.refusals.rate_limited} were refused`);
  assert(after.logLines - before.logLines < 200, `${after.logLines} lines were logged`);
});

const SHOUTS: [what: string, headers: Record<string, string>, frame: Uint8Array][] = [
  ["text", {}, maskedFrame('{"type":"chat","message":"hey"}')],
  ["bytes", V1, maskedFrame(new Uint8Array(1), { opcode: OPCODE.binary })],
];
for (const [what, headers, frame] of SHOUTS) {
  test(`a crowd that shouts ${what} in one room, each within its rates, drowns nobody in another`, async () => {
    await using target = await Target.start();
    const count = sized(20, 300);
    await target.endure(`${count} shout ${what}`, async () => {
      const crowd = await crowdOf(target, count, headers);
      await Promise.all(crowd.map((client) => client.send('{"type":"join","name":"x"}')));
      for (let round = 0; round < sized(20, 1_000); round++) {
        const pause = new Promise((resolve) => setTimeout(resolve, 10));
        await Promise.all(crowd.map((client) => client.write(frame)));
        await pause;
      }
      for (const client of crowd) client.drop();
    }, { maxPeakMb: 200 });
  });
}

for (const [dialect, headers] of Object.entries({ plain: {}, v1: V1 })) {
  test(`a stadium of ${dialect} that joins at once keeps nobody in another room waiting`, async () => {
    await using target = await Target.start();
    const count = sized(110, 2_000);
    await target.endure(`${count} of ${dialect} join at once`, async () => {
      const crowd = await crowdOf(target, count, headers);
      await Promise.all(crowd.map((client) => client.send('{"type":"join","name":"fan"}')));
      await target.until("all have joined", ({ members }) => members > count);
      for (const client of crowd) client.drop();
    }, { maxPeakMb: 200 });
  });
}

/** Requests as a client sends them that gives up at once. */
const REQUESTS = [upgradeOf("/chat/a"), upgradeOf("/echo"), "GET /rooms/a/events HTTP/1.1"];

test("clients that give up before the answer leave no slot behind, however many they are", async () => {
  const count = sized(300, 6_000);
  await using target = await Target.start(["--max-connections", "200"]);
  await target.endure("aborted requests", async () => {
    const port = Number(new URL(target.url).port);
    for (let sent = 0; sent < count; sent++) await requestAndReset(port, REQUESTS[sent % 3]);
    // The last of them may still be on their way: there is a slot as soon as they are read.
    await eventually(async () => {
      using client = await target.open("/chat/a");
      return client.status;
    }, (status) => status === 101);
  });
});

const CONNECTIONS = sized(100, 1_000);
const GUESTS = sized(20, 100);
const ROUNDS = sized(2, 5);

/** One person: joins, says a few things, hears some of it, and goes in one of four ways. */
async function visit(server: ServerProcess, random: Random): Promise<void> {
  const paths = ["/echo", `/chat/room${random.below(20)}`];
  const headers: Record<string, string> = random.chance(0.5)
    ? {}
    : { "sec-websocket-protocol": "parley.v1" };
  using client = await RawClient.open(server.ws + paths[random.chance(0.2) ? 0 : 1], headers);
  assertEquals(client.status, 101);
  if (random.chance(0.9)) await client.send(`{"type":"join","name":"Guest ${random.next()}"}`);
  const message = "x".repeat(random.below(4_000));
  const count = random.below(6);
  for (let sent = 0; sent < count; sent++) {
    await client.send(JSON.stringify({ type: "chat", message }));
    if (random.chance(0.5)) await soon(client.read(), "an answer");
  }
  const way = random.below(4);
  // A Close frame and a wait for the answer, a Close frame alone, half a frame, nothing.
  if (way <= 1) await client.send(new Uint8Array([3, 232]), { opcode: 8 });
  if (way === 0) await client.readClose();
  if (way === 2) await client.write(new Uint8Array([0x81, 0xff, 0]));
}

/** Lets all of them come, `GUESTS` at a time, until the server has counted `ended` ends in all. */
async function round(server: ServerProcess, seed: number, ended: number): Promise<void> {
  const random = new Random(seed);
  let started = 0;
  const crowd = Array.from({ length: GUESTS }, async () => {
    while (started++ < CONNECTIONS) await visit(server, random);
  });
  await Promise.all(crowd);
  await server.line(/"event":"disconnected"/, ended);
  const { rooms } = await (await fetch(`${server.url}/rooms`)).json();
  assertEquals(rooms, []);
}

/** The resident memory of a process, in kB. */
async function residentKb(pid: number): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]);
}

test(
  `${CONNECTIONS} who come, chat and vanish leave no room and no client, and again no memory`,
  async () => {
    await using server = await ServerProcess.start([
      "--log-format",
      "json",
      "--log-level",
      "debug",
    ]);
    const kilobytes: number[] = [];
    for (let index = 1; index <= ROUNDS; index++) {
      await round(server, SEED * 100 + index, index * CONNECTIONS);
      if (IS_FULL) await server.line(/"event":"collected"/, index);
      kilobytes.push(await residentKb(server.pid));
    }
    if (!IS_FULL) return;
    const [first, second, ...later] = kilobytes;
    assertLess(Math.abs(second - first) / second, 0.2, `${kilobytes}`);
    assertLess(Math.max(...later) / second, 1.2, `${kilobytes}`);
  },
  Deno.build.os !== "linux",
);
