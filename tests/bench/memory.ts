/**
 * What a client costs in memory: an idle socket, a member of a room of ten, an event stream; beside what
 * bare Deno takes for its own sockets and streams.
 *
 * deno run -A tests/bench/memory.ts [--clients 10000] [--only REGEX]
 *
 * @module
 */

import { freePort } from "../support/process.ts";
import { Client } from "./client.ts";
import { readFlags } from "./flags.ts";
import { collectGarbage } from "./inspector.ts";
import { residentBytes } from "./proc.ts";
import { ServerProcess } from "./server_process.ts";
import { type Server, SERVERS } from "./servers.ts";
import { clientFrame } from "./text.ts";

const ROOM_SIZE = 10;
const AT_ONCE = 50;
const QUIET_MS = 500;

/** Opens client number `i` on a port; `heard` is called with whatever it hears. */
type Open = (port: number, i: number, heard: () => void) => Promise<{ close(): void }>;

const encoder = new TextEncoder();
const roomOf = (i: number) => Math.floor(i / ROOM_SIZE);

function socket(path: (i: number) => string, protocol?: string, joins = false): Open {
  return async (address, i, heard) => {
    const events = {
      line: () => (heard(), true),
      failed: (error: Error) => {
        console.error(`Cannot go on: client ${i}: ${error.message}`);
        Deno.exit(1);
      },
    };
    const client = await Client.connect({ address, path: path(i), protocol }, events, 512);
    const join = JSON.stringify({ type: "join", name: `member ${i}` });
    if (joins) client.send(clientFrame(encoder.encode(join)));
    return client;
  };
}

const stream: Open = async (port, i, heard) => {
  const connection = await Deno.connect({ port });
  const head = `GET /rooms/room-${roomOf(i)}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`;
  await connection.write(encoder.encode(head));
  const space = new Uint8Array(2048);
  await connection.read(space);
  heard();
  return connection;
};

const inRooms = (i: number) => `/chat/room-${roomOf(i)}`;
const CASES: [name: string, open: Open, servers: string[]][] = [
  ["idle socket, plain", socket(() => "/chat/bench"), ["control", "parley"]],
  ["idle socket, parley.v1", socket(() => "/chat/bench", "parley.v1"), ["parley"]],
  ["listener in a room of ten, plain", socket(inRooms), ["parley"]],
  ["listener in a room of ten, parley.v1", socket(inRooms, "parley.v1"), ["parley"]],
  ["member of a room of ten, plain", socket(inRooms, undefined, true), ["control", "parley"]],
  ["member of a room of ten, parley.v1", socket(inRooms, "parley.v1", true), ["parley"]],
  ["event stream", stream, ["control", "parley"]],
];

/** Bytes that each of `count` clients takes in `server`; a tenth more comes first, to warm it up. */
async function measure(server: Server, open: Open, count: number): Promise<number> {
  const port = freePort();
  const inspector = freePort();
  const { args, env } = server.command(port);
  args.splice(2, 0, `--inspect=127.0.0.1:${inspector}`);
  const process = await ServerProcess.start({ args, env }, port, "any");
  const clients: { close(): void }[] = [];
  let heardAt = 0;
  const grow = async (goal: number) => {
    let next = clients.length;
    const opener = async () => {
      while (next < goal) clients.push(await open(port, next++, () => heardAt = performance.now()));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, opener));
    while (performance.now() - heardAt < QUIET_MS) await new Promise((r) => setTimeout(r, 50));
    await collectGarbage(inspector);
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    await collectGarbage(inspector);
    return residentBytes(process.pid);
  };
  try {
    const before = await grow(count / 10);
    return (await grow(count + count / 10) - before) / count;
  } finally {
    for (const client of clients) client.close();
    await process.stop();
  }
}

const { clients = "10000", only = "" } = readFlags(import.meta.url, "clients", "only");
console.log("| one more | bare Deno | Parley |\n| --- | --: | --: |");
for (const [name, open, names] of CASES) {
  if (!new RegExp(only).test(name)) continue;
  const figures: string[] = [];
  for (const wanted of ["control", "parley"]) {
    const server = names.includes(wanted) && SERVERS.find(({ name }) => name === wanted);
    const bytes = server ? await measure(server, open, Number(clients)) : undefined;
    figures.push(bytes === undefined ? "–" : `${(bytes / 1_000).toFixed(1)} kB`);
  }
  console.log(`| ${name} | ${figures.join(" | ")} |`);
}
