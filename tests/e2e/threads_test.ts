/** Several threads in one process, as a user starts them. */
import { assert, assertEquals } from "@std/assert";
import { Client } from "../support/clients.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { ServerProcess } from "../support/process.ts";
import { eventually, untilHeard } from "../support/inbox.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";
import { range } from "../support/v1.ts";
import { together } from "../support/together.ts";

const test = together("several threads in one process");

test("WORKERS=2 is one server: its rooms, figures and signals are those of both", async () => {
  await using server = await ServerProcess.start(["--workers", "2", "--drain-seconds", "0"]);
  const clients: Client[] = [];
  // The system spreads connections by chance: it is one in 2 ** 23 that one worker has them all.
  for (const i of range(1, 24)) clients.push(await Client.open(`${server.ws}/chat/room-${i % 2}`));
  const lines = server.lines();
  assert(lines.some((line) => /parley 1: Client connected/.test(line)), "worker 1 has none");
  assert(lines.some((line) => /parley(?: 0)?: Client connected/.test(line)), "worker 0 has none");
  for (const n of [0, 1]) await untilHeard(server.url, `room-${n}`, 12);
  for (const client of clients.slice(0, 2)) client.send({ type: "join", name: "Ann" });
  for (const client of clients) {
    assertEquals(await client.nextObject(), { type: "status", message: "Ann joined the chat." });
  }
  // A worker reports once a second; whichever answers, it gives the sum.
  for (let i = 0; i < 4; i++) {
    const { rooms } = await eventually(
      async () => await (await fetch(`${server.url}/rooms`)).json(),
      ({ rooms }) => rooms.every(({ listeners }: { listeners: number }) => listeners === 12),
    );
    assertEquals(
      rooms,
      [0, 1].map((n) => ({ room: `room-${n}`, members: 1, listeners: 12, seq: 0 })),
    );
    await eventually(
      async () => await (await fetch(`${server.url}/metrics`)).text(),
      (metrics) => metrics.includes('parley_connections{dialect="plain"} 24\n'),
    );
  }
  server.kill("SIGTERM");
  await server.line(/Parley stops: 24 clients/);
  for (const { closed } of clients) assertEquals((await closed).code, 1001);
  assertEquals((await server.status).code, 0);
});

test("WORKERS=4: MAX_CONNECTIONS and MAX_CONNECTIONS_PER_IP let in exactly so many, over all threads", async () => {
  const limits = ["--max-connections", "30", "--max-connections-per-ip", "20"];
  await using server = await ServerProcess.start([
    "--workers",
    "4",
    "--trust-proxy",
    "1",
    ...limits,
  ]);
  const clients: Client[] = [];
  /** How many of so many attempts at once are let in. */
  async function tryAtOnce(count: number, addressOf: (index: number) => string): Promise<number> {
    const opened = await Promise.allSettled(
      range(1, count).map((index) =>
        Client.open(`${server.ws}/chat/lobby`, {
          headers: { "x-forwarded-for": addressOf(index) },
        })
      ),
    );
    const open = opened.flatMap((one) => one.status === "fulfilled" ? [one.value] : []);
    clients.push(...open);
    return open.length;
  }
  assertEquals(await tryAtOnce(26, () => "192.0.2.1"), 20);
  assertEquals(await tryAtOnce(2, () => "192.0.2.1"), 0);
  assertEquals(await tryAtOnce(16, (index) => `198.51.100.${index}`), 10);
  for (const client of clients.slice(0, 2)) client.close();
  for (const client of clients.slice(0, 2)) await client.closed;
  await eventually(() => tryAtOnce(1, () => "192.0.2.1"), (count) => count === 1);
  await eventually(() => tryAtOnce(1, () => "192.0.2.1"), (count) => count === 1);
  assertEquals(await tryAtOnce(1, () => "198.51.100.99"), 0);
  for (const client of clients) client.close();
});

test("WORKERS=4: POST_RATE counts over all threads", async () => {
  await using server = await ServerProcess.start(["--workers", "4", "--post-rate", "10"]);
  const start = performance.now();
  const statuses = await Promise.all(
    range(1, 60).map(async () => {
      const response = await fetch(`${server.url}/rooms/lobby/messages`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: "{}",
      });
      await response.body?.cancel();
      return response.status;
    }),
  );
  const refilled = Math.ceil((performance.now() - start) / 100);
  const accepted = statuses.filter((status) => status === 202).length;
  assert(accepted >= 10 && accepted <= 10 + refilled, `${accepted} of 60, ${refilled} refilled`);
});

test("WORKERS=4: MESSAGE_RATE_PER_USER and MAX_CONNECTIONS_PER_USER count over all threads", async () => {
  const limits = ["--message-rate-per-user", "20", "--max-connections-per-user", "8"];
  const flags = ["--workers", "4", "--auth-secret", SECRET, ...limits];
  await using server = await ServerProcess.start(flags);
  const token = `token=${await sign({ sub: "u1" })}`;
  const url = `${server.ws}/chat/ops?${token}`;
  const clients: Client[] = [];
  for (const _ of range(1, 8)) clients.push(await Client.open(url, "parley.v1"));
  const refused = await fetch(`${server.url}/chat/ops?${token}`);
  assertEquals([refused.status, (await refused.json()).code], [429, "too_many_connections"]);
  const start = performance.now();
  for (const client of clients) for (const _ of range(1, 10)) client.send({ type: "ping" });
  let accepted = 0;
  for (const client of clients) {
    for (let answers = 0; answers < 10;) {
      const { type } = await client.nextObject();
      if (type === "pong" || type === "error") answers++;
      if (type === "pong") accepted++;
    }
  }
  const refilled = Math.ceil((performance.now() - start) / 50);
  assert(accepted >= 20 && accepted <= 20 + refilled, `${accepted} of 80, ${refilled} refilled`);
  for (const client of clients) client.close();
});

redisTest(
  "REDIS_URL with WORKERS=3 is one node: one connection, and rooms that all threads serve",
  async () => {
    await using redis = await RedisServer.start();
    const flags = ["--redis-url", redis.url, "--workers", "3"];
    await using server = await ServerProcess.start(flags);
    const clients: Client[] = [];
    for (const _ of range(1, 12)) clients.push(await Client.open(`${server.ws}/chat/ops`));
    await untilHeard(server.url, "ops", 12);
    clients[0].send({ type: "join", name: "Ann" });
    for (const client of clients) {
      assertEquals(await client.nextObject(), { type: "status", message: "Ann joined the chat." });
    }
    const connections = (await redis.command("CLIENT", "LIST")).trim().split("\n")
      .filter((line) => !line.includes("cmd=client"));
    assertEquals(connections.length, 1, connections.join("\n"));
    await redis.command("CLIENT", "KILL", "TYPE", "pubsub");
    await eventually(
      async () => {
        const metrics = await (await fetch(`${server.url}/metrics`)).text();
        const read = ([, name, value]: string[]) => [name, Number(value)];
        return Object.fromEntries(
          [...metrics.matchAll(/^parley_engine_(\w+) ([\d.]+)$/gm)].map(read),
        );
      },
      (figures) =>
        figures.reconnects_total === 1 && figures.commands_total > figures.round_trips_total &&
        figures.round_trips_total > 1 && figures.round_trip_seconds_total > 0,
    );
    for (const client of clients) await client.close();
  },
  test,
);
