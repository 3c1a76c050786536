/**
 * What each engine adds to an ack: one `parley.v1` client of a whole server sends a message, waits
 * for its ack, and sends the next, in a room of twenty by turns.
 *
 *     deno run -A tests/bench/engine_latency.ts
 *
 * @module
 */
import { RedisServer } from "../support/redis_server.ts";
import { freePort } from "../support/process.ts";
import { readFlags } from "./flags.ts";
import { ServerProcess } from "./server_process.ts";
import { parleyCommand } from "./servers.ts";

readFlags(import.meta.url);
const ROOMS = Array.from({ length: 20 }, (_, i) => `room-${i}`);
const WARM_UP = 2_000;
const MESSAGES = 6_000;
const START_MS = 500;

/** Sends one after the other; the ms that each waited for its ack. */
function talk(port: number): Promise<number[]> {
  const { promise, resolve, reject } = Promise.withResolvers<number[]>();
  const socket = new WebSocket(`ws://127.0.0.1:${port}/chat/${ROOMS[0]}`, "parley.v1");
  const waits: number[] = [];
  let sent = 0;
  let sentAt = 0;
  const next = () => {
    sentAt = performance.now();
    const room = ROOMS[sent % ROOMS.length];
    socket.send(JSON.stringify({ type: "chat", room, message: "x".repeat(64), id: `${sent++}` }));
  };
  socket.onopen = () => {
    for (const room of ROOMS) socket.send(JSON.stringify({ type: "join", room, name: "Ann" }));
    next();
  };
  socket.onmessage = ({ data }) => {
    const objects = (data as string).split("\n").map((line) => JSON.parse(line));
    const error = objects.find(({ type }) => type === "error");
    if (error) reject(new Error(error.message));
    if (!objects.some(({ type }) => type === "ack")) return;
    waits.push(performance.now() - sentAt);
    if (sent < WARM_UP + MESSAGES) next();
    else socket.close();
  };
  socket.onclose = () => resolve(waits.slice(WARM_UP));
  return promise;
}

async function measure(label: string, env: Record<string, string>): Promise<void> {
  const port = freePort();
  const server = await ServerProcess.start(parleyCommand(port, env), port);
  try {
    // Workers come after the first that listens.
    await new Promise((resolve) => setTimeout(resolve, START_MS));
    const sorted = (await talk(port)).sort((a, b) => a - b);
    const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))].toFixed(2);
    console.log(`| ${label} | ${at(0.5)} | ${at(0.99)} |`);
  } finally {
    await server.stop();
  }
}

console.log("| engine | ms until the ack, median | 99 % |\n| --- | --: | --: |");
await measure("memory", {});
await measure("memory, WORKERS=2", { WORKERS: "2" });
const folder = await Deno.makeTempDir();
await measure("durable", { DATA_FILE: `${folder}/parley.db` });
await Deno.remove(folder, { recursive: true });
for (const appendfsync of ["everysec", "always"]) {
  await using redis = await RedisServer.start({ appendfsync });
  await measure(`redis, appendfsync ${appendfsync}`, { REDIS_URL: redis.url });
}
