/** Many clients, many rooms, many addresses. */
import { assert, assertEquals } from "@std/assert";
import type { RawClient } from "../support/clients.ts";
import { sized } from "../support/run.ts";
import { Target } from "./target.ts";

const encoder = new TextEncoder();

/** Runs `task` for each index, so many at a time. */
async function inParallel(count: number, width: number, task: (index: number) => Promise<void>) {
  let next = 0;
  await Promise.all(Array.from({ length: width }, async () => {
    while (next < count) await task(next++);
  }));
}

Deno.test("a flood of connects and drops at every stage leaves nothing behind", async () => {
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

Deno.test("a thousand rooms a second, from as many addresses, end at MAX_ROOMS", async () => {
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

Deno.test("who asks for a list of many rooms and for history, again and again, stops nobody", async () => {
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

Deno.test("MAX_CONNECTIONS sockets of one attacker shut the door, and no longer than they stay", async () => {
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

Deno.test("MAX_CONNECTIONS_PER_IP keeps places for others", async () => {
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

Deno.test("whoever sends far over the rates is refused, costs no log, and slows nobody to a halt", async () => {
  await using target = await Target.start();
  const before = await target.totals();
  const after = await target.endure("a flood of refused messages", async () => {
    const frames = sized(150, 5_000);
    await Promise.all(Array.from({ length: 20 }, async (_, index) => {
      const protocol = index % 2 ? { "sec-websocket-protocol": "parley.v1" } : undefined;
      using client = await target.open(`/chat/noise-${index}`, protocol);
      const reading = (async () => {
        while (await client.read().catch(() => undefined));
      })();
      await client.send('{"type":"join","name":"x"}');
      const message = JSON.stringify({ type: "chat", message: "x".repeat(200) });
      const frame = Array.from({ length: 50 }, () => message).join("\n");
      try {
        for (let sent = 0; sent < frames; sent++) {
          await client.send(index % 2 ? frame : message);
        }
      } catch {
        // The server ended it.
      }
      client.drop();
      await reading;
    }));
  });
  assert(after.refusals.rate_limited > 1_000, `${after.refusals.rate_limited} were refused`);
  assert(after.logLines - before.logLines < 200, `${after.logLines} lines were logged`);
});

Deno.test("twenty who shout in one room, each within its rates, drown nobody in another", async () => {
  await using target = await Target.start();
  await target.endure("a crowd that shouts", async () => {
    const clients: RawClient[] = [];
    await inParallel(20, 20, async () => void clients.push(await target.open("/chat/crowd")));
    const reading = clients.map(async (client) => {
      while (await client.read().catch(() => undefined));
    });
    await Promise.all(clients.map((client) => client.send('{"type":"join","name":"x"}')));
    for (let round = 0; round < sized(20, 200); round++) {
      await Promise.all(clients.map((client) => client.send('{"type":"chat","message":"hey"}')));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    for (const client of clients) client.drop();
    await Promise.all(reading);
  });
});
