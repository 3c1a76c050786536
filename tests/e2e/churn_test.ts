/** A thousand people who come, chat and vanish at random leave nothing behind. */
import { assertEquals, assertLess } from "@std/assert";
import { RawClient } from "../support/clients.ts";
import { soon } from "../support/inbox.ts";
import { ServerProcess } from "../support/process.ts";

const CONNECTIONS = 1_000;
const AT_ONCE = 100;
const SEED = 20_260;

/** Numbers from 0 to 1 that a seed gives again. Mulberry32, public domain. */
function randomFrom(seed: number): () => number {
  return () => {
    seed = seed + 0x6D2B79F5 | 0;
    let mixed = Math.imul(seed ^ seed >>> 15, 1 | seed);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}

/** One person: joins, says a few things, hears some of it, and goes in one of four ways. */
async function visit(server: ServerProcess, random: () => number): Promise<void> {
  const paths = ["/echo", `/chat/room${Math.floor(random() * 20)}`];
  const headers: Record<string, string> = random() < 0.5
    ? {}
    : { "sec-websocket-protocol": "parley.v1" };
  using client = await RawClient.open(server.ws + paths[random() < 0.2 ? 0 : 1], headers);
  assertEquals(client.status, 101);
  if (random() < 0.9) await client.send(`{"type":"join","name":"Guest ${random()}"}`);
  const message = "x".repeat(Math.floor(random() * 4_000));
  const count = Math.floor(random() * 6);
  for (let sent = 0; sent < count; sent++) {
    await client.send(JSON.stringify({ type: "chat", message }));
    if (random() < 0.5) await soon(client.read(), "an answer");
  }
  const way = Math.floor(random() * 4);
  // A Close frame and a wait for the answer, a Close frame alone, half a frame, nothing.
  if (way <= 1) await client.send(new Uint8Array([3, 232]), { opcode: 8 });
  if (way === 0) await client.readClose();
  if (way === 2) await client.write(new Uint8Array([0x81, 0xff, 0]));
}

/** Lets all of them come, `AT_ONCE` at a time, until the server has counted `ended` ends in all. */
async function round(server: ServerProcess, seed: number, ended: number): Promise<void> {
  const random = randomFrom(seed);
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

Deno.test("1,000 who come, chat and vanish leave no room and no client, and again no memory", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  await using server = await ServerProcess.start(["--log-format", "json", "--log-level", "debug"]);
  const kilobytes: number[] = [];
  for (let index = 1; index <= 5; index++) {
    await round(server, SEED + index, index * CONNECTIONS);
    await server.line(/"event":"collected"/, index);
    kilobytes.push(await residentKb(server.pid));
  }
  const [first, second, ...later] = kilobytes;
  assertLess(Math.abs(second - first) / second, 0.2, `${kilobytes}`);
  assertLess(Math.max(...later) / second, 1.2, `${kilobytes}`);
});
