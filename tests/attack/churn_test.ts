/** Many people who come, chat and vanish at random leave nothing behind. */
import { assertEquals, assertLess } from "@std/assert";
import { RawClient } from "../support/clients.ts";
import { soon } from "../support/inbox.ts";
import { ServerProcess } from "../support/process.ts";
import { Random } from "../support/random.ts";
import { IS_FULL, SEED, sized } from "../support/run.ts";

const CONNECTIONS = sized(100, 1_000);
const AT_ONCE = sized(20, 100);
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

/** Lets all of them come, `AT_ONCE` at a time, until the server has counted `ended` ends in all. */
async function round(server: ServerProcess, seed: number, ended: number): Promise<void> {
  const random = new Random(seed);
  let started = 0;
  const crowd = Array.from({ length: AT_ONCE }, async () => {
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

Deno.test(
  `${CONNECTIONS} who come, chat and vanish leave no room and no client, and again no memory`,
  {
    ignore: Deno.build.os !== "linux",
  },
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
);
