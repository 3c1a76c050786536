/**
 * Many sockets on one machine: some are members of rooms of ten that talk, the others idle. Tells memory,
 * the time to accept, latency of the talkers without and with the idle ones, processor time while nothing
 * happens, and how long all take to go.
 *
 * deno run -A tests/bench/scale.ts [--sockets 10000] [--talkers 1000] [--seconds 10] [--idle 35] [--workers 1]
 *
 * A server needs a descriptor for each socket, and so do its clients, who share the rest among processes:
 * see `ulimit -Hn`. Sockets come to 127.0.0.1, 127.0.0.2 and so on: to one address there are 28,000 ports.
 *
 * @module
 */

import { freePort } from "../support/process.ts";
import { Client } from "./client.ts";
import { readFlags } from "./flags.ts";
import { Histogram } from "./histogram.ts";
import { cpuSeconds, residentBytes } from "./proc.ts";
import { ANY_CORE, pinned, ServerProcess } from "./server_process.ts";
import { parleyCommand } from "./servers.ts";
import { clientFrame } from "./text.ts";

const ROOM_SIZE = 10;
/** Each member says one message in so many ms. */
const SAYS_EVERY_MS = 5_000;
const PER_ADDRESS = 20_000;
const PER_PROCESS = 10_000;
const AT_ONCE = 50;
const MARK = '"message":"~';

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const frame = (object: unknown) => clientFrame(encoder.encode(JSON.stringify(object)));

function connect(port: number, number: number, path: string, line: (text: string) => void) {
  const hostname = `127.0.0.${1 + Math.floor(number / PER_ADDRESS)}`;
  return Client.connect({ address: port, hostname, path, protocol: "parley.v1" }, {
    line: (bytes, from, to) => (line(decoder.decode(bytes.subarray(from, to))), true),
    // The drain ends all.
    failed: () => {},
  }, 512);
}

/** Runs `open` for each number below `count`, {@linkcode AT_ONCE} at a time. */
async function each(count: number, open: (number: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const opener = async () => {
    while (next < count) await open(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, opener));
}

/** Opens idle sockets in a process of their own; `stop` ends it. */
async function idleProcess(port: number, first: number, count: number): Promise<Deno.ChildProcess> {
  const args = [Deno.execPath(), "run", "-A", import.meta.filename!];
  const own = ["--port", port, "--first", first, "--hold", count].map(String);
  const child = pinned({ args: [...args, ...own] }, ANY_CORE).spawn();
  const { value } = await child.stdout.getReader().read();
  if (value) return child;
  throw new Error(`Cannot open ${count} sockets: ${await new Response(child.stderr).text()}`);
}

async function main(): Promise<void> {
  const sockets = Number(flags.sockets ?? 10_000);
  const talkers = Number(flags.talkers ?? sockets / 10);
  const seconds = Number(flags.seconds ?? 10);
  const port = freePort();
  const env = {
    HOST: "0.0.0.0",
    MAX_CONNECTIONS: `${sockets + 10}`,
    WORKERS: flags.workers ?? "1",
  };
  const server = await ServerProcess.start(parleyCommand(port, env), port, ANY_CORE);
  const { pid } = server;
  const tell = (what: string, figure: string) => console.log(`| ${what} | ${figure} |`);
  const cost = async (what: string, count: number, work: () => Promise<unknown>) => {
    const [at, cpu] = [performance.now(), cpuSeconds(pid)];
    await work();
    const took = (performance.now() - at) / 1_000;
    const used = cpuSeconds(pid) - cpu;
    const rate = `${Math.round(count / took)} a second`;
    tell(
      what,
      `${rate}, ${(used / count * 1e6).toFixed(0)} µs of processor each`,
    );
  };
  let latency = new Histogram();
  const members: Client[] = [];
  const hear = (text: string) => {
    const at = text.indexOf(MARK);
    if (at >= 0) latency.add(performance.now() - Number.parseFloat(text.slice(at + MARK.length)));
  };
  const talk = async (what: string) => {
    latency = new Histogram();
    const cpu = cpuSeconds(pid);
    const start = performance.now();
    for (let said = 0; performance.now() < start + seconds * 1_000; await sleep(5)) {
      for (; said * SAYS_EVERY_MS / talkers < performance.now() - start; said++) {
        members[said % talkers].send(frame({ type: "chat", message: `~${performance.now()}` }));
      }
    }
    await sleep(500);
    const { p50, p99 } = latency.percentiles();
    const busy = (cpuSeconds(pid) - cpu) / (performance.now() - start) * 100_000;
    tell(
      what,
      `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, ${busy.toFixed(1)} % of a core`,
    );
  };
  const rest = async (what: string, quietSeconds: number) => {
    const cpu = cpuSeconds(pid);
    await sleep(quietSeconds * 1_000);
    tell(what, `${((cpuSeconds(pid) - cpu) / quietSeconds * 100).toFixed(2)} % of a core`);
  };
  console.log(`| ${sockets} sockets, ${talkers} of them talk | |\n| --- | --- |`);
  await cost("members join", talkers, () =>
    each(talkers, async (number) => {
      const path = `/chat/room-${Math.floor(number / ROOM_SIZE)}`;
      members[number] = await connect(port, number, path, hear);
      members[number].send(frame({ type: "join", name: `member ${number}` }));
    }));
  await sleep(1_000);
  await talk("they talk, alone");
  const idle: Deno.ChildProcess[] = [];
  await cost("idle sockets come", sockets - talkers, async () => {
    for (let first = talkers; first < sockets; first += PER_PROCESS) {
      idle.push(await idleProcess(port, first, Math.min(PER_PROCESS, sockets - first)));
    }
  });
  await talk("they talk beside the idle ones");
  // A socket that was silent for IDLE_TIMEOUT (30 s) is pinged.
  await rest("nobody says a word", Number(flags.idle ?? 35));
  tell("memory, garbage included", `${Math.round(residentBytes(pid) / 1e6)} MB`);
  const start = performance.now();
  Deno.kill(pid, "SIGTERM");
  await server.ended;
  tell("a drain of all", `${((performance.now() - start) / 1_000).toFixed(1)} s`);
  // Without a socket nothing keeps them.
  await Promise.all(idle.map(({ status }) => status));
  await server.stop();
  Deno.exit();
}

const flags = readFlags(
  import.meta.url,
  ...["sockets", "talkers", "seconds", "idle", "workers", "port", "first", "hold"] as const,
);
if (flags.hold === undefined) await main();
else {
  const [port, first, count] = [flags.port, flags.first, flags.hold].map(Number);
  await each(count, (number) => connect(port, first + number, "/chat/idle", () => {}));
  console.log("open");
}
