/**
 * What a room's state costs: 1,000 keys that change 50,000 times a second in all, and 200 viewers that
 * get the changes together (`every=100`); the same beside 5 viewers that read 64 kB a second and say what
 * they got; the same work on servers that tell everybody each change; then `set` against `chat`, and what
 * a key takes in memory.
 *
 *     deno run -A tests/bench/state.ts [--seconds S] [--rate CHANGES] [--viewers N]
 *
 * Exits with 1 if a viewer did not end on the room's map, or if an aim is missed.
 *
 * @module
 */
import { freePort } from "../support/process.ts";
import { readFlags } from "./flags.ts";
import { collectGarbage } from "./inspector.ts";
import { cpuSeconds, residentBytes } from "./proc.ts";
import { ServerProcess } from "./server_process.ts";
import { here, installedVersion, SERVERS } from "./servers.ts";
import { Counter, elapsedMs, quantile, readSlowly, type Value, Viewer } from "./state_viewers.ts";

const flags = readFlags(import.meta.url, "seconds", "rate", "viewers");
const seconds = Number(flags.seconds ?? 5);
const rate = Number(flags.rate ?? 50_000);
const viewers = Number(flags.viewers ?? 200);
const KEYS = 1_000;
const STEP_MS = 20;
const SETTERS = 4;
const SLOW_VIEWERS = 5;
const SLOW_BYTES_A_SECOND = 64_000;

const port = freePort();
const server = await ServerProcess.start({
  args: [Deno.execPath(), "run", "-A", here("../../main.ts"), "--port", String(port)],
  env: { MESSAGE_RATE: "0", BYTE_RATE: "0", JOIN_RATE: "0", LOG_LEVEL: "error" },
}, port);

let hasFailed = false;
/** Nothing is reported while the server's code is compiled. */
let isWarm = false;

/** Prints a figure, beside its aim where it has one. */
function report(what: string, figure: string, isMet?: boolean): void {
  if (!isWarm) return;
  hasFailed ||= isMet === false;
  console.log(`| ${what} | ${figure} | ${isMet === undefined ? "" : isMet ? "met" : "NOT MET"} |`);
}

async function open(
  path: string,
  onFrame?: (text: string) => void,
  at = port,
  dialect: string[] = ["parley.v1"],
): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${at}${path}`, dialect);
  const opened = Promise.withResolvers<void>();
  socket.onmessage = ({ data }) => {
    if (data.includes('"welcome"')) opened.resolve();
    onFrame?.(data);
  };
  if (dialect.length === 0) socket.onopen = () => opened.resolve();
  socket.onclose = ({ code }) => opened.reject(new Error(`closed with ${code}`));
  await opened.promise;
  return socket;
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function fanOut(room: string, slowCount: number): Promise<void> {
  const url = `/chat/${room}?state=1`;
  const all = Array.from({ length: viewers }, () => new Viewer());
  const slow = Array.from({ length: slowCount }, () => new Viewer());
  const sockets: WebSocket[] = [];
  for (const viewer of all) {
    sockets.push(await open(`${url}&every=100`, (text) => viewer.take(text)));
  }
  let closed = 0;
  for (const viewer of slow) {
    readSlowly(`ws://127.0.0.1:${port}${url}`, viewer, SLOW_BYTES_A_SECOND).catch(() => closed++);
  }
  const setters = await Promise.all(Array.from({ length: SETTERS }, () => open(`/chat/${room}`)));
  setters.forEach((setter) => setter.send('{"type":"join","name":"gw"}'));
  const start = performance.now();
  const cpu = cpuSeconds(server.pid);
  const loadCpu = cpuSeconds(Deno.pid);
  let sent = 0;
  while (performance.now() - start < seconds * 1_000) {
    const due = Math.floor((performance.now() - start) * rate / 1_000) - sent;
    const at = elapsedMs();
    setters.forEach((setter, index) => {
      const lines: string[] = [];
      for (let i = index; i < due; i += SETTERS) {
        // One setter a key: its changes have one order.
        const key = (sent + i) % (KEYS / SETTERS) * SETTERS + index;
        lines.push(`{"type":"set","key":"s/${key}","value":{"n":${sent + i},"at":${at}}}`);
      }
      for (let i = 0; i < lines.length; i += 500) setter.send(lines.slice(i, i + 500).join("\n"));
    });
    sent += Math.max(0, due);
    await wait(STEP_MS);
  }
  const took = (performance.now() - start) / 1_000;
  const busy = (cpuSeconds(server.pid) - cpu) / took;
  const loadBusy = (cpuSeconds(Deno.pid) - loadCpu) / took;
  const slowest = Math.max(0, ...slow.flatMap(({ ages }) => [...ages.keys()]));
  const read = async () => {
    const response = await fetch(`http://127.0.0.1:${port}/rooms/${room}/state`);
    return await response.json() as { rev: number; entries: { key: string; value: Value }[] };
  };
  const everybody = [...all, ...slow];
  let state = await read();
  for (let i = 0; i < 100; i++) {
    if (state.rev >= sent && everybody.every(({ rev }) => rev >= state.rev)) break;
    await wait(100);
    state = await read();
  }
  const truth = JSON.stringify(state.entries.map(({ key, value }) => [key, value.n]));
  const right = everybody.filter(({ map }) => {
    return JSON.stringify([...map].sort(([a], [b]) => a < b ? -1 : 1)) === truth;
  });
  const p99 = quantile(all, 0.99);
  const each = all.reduce((sum, { bytes }) => sum + bytes, 0) / all.length;
  // A `set` object as it would go to each viewer.
  const naive = sent * 105;
  const count = everybody.length;
  const name = slowCount > 0 ? `, beside ${slowCount} slow ones` : "";
  report(`changes made a second${name}`, `${Math.round(state.rev / took)}`, state.rev === sent);
  const cores = [busy, loadBusy].map((share) => `${Math.round(100 * share)} %`).join(", ");
  report(`core in use by the server, by the load generator${name}`, cores);
  report(
    `viewers that ended on the room's map${name}`,
    `${right.length} of ${count}`,
    right.length === count,
  );
  report(`p99 of a value's age, ms${name}`, `${p99}`, p99 <= 150);
  report(
    `bytes a viewer ÷ one message a change${name}`,
    (each / naive).toFixed(3),
    each <= naive / 5,
  );
  if (slowCount > 0) {
    report("slow viewers that were closed", `${closed}`, closed === 0);
    report("a slow viewer's oldest value, ms", `${slowest}`, slowest <= 1_500);
  }
  for (const socket of [...sockets, ...setters]) socket.close();
}

/** How many changes a second reach all viewers of a server that tells everybody each one. */
async function naiveRate(name: string): Promise<void> {
  const peer = SERVERS.find((server) => server.name === name)!;
  if (await installedVersion(peer) === null) {
    return report(`${peer.label}: changes a second`, `not installed: ${peer.install}`);
  }
  const at = freePort();
  const process = await ServerProcess.start(peer.command(at), at);
  try {
    const counters = Array.from({ length: viewers }, () => new Counter());
    for (const counter of counters) await counter.open(`ws://127.0.0.1:${at}/chat`);
    let last = "";
    const setter = await open("/chat", (text) => last = text, at, []);
    const number = (n: number) => `${1e6 + n}`;
    const send = (n: number) =>
      setter.send(`{"type":"chat","message":{"key":"sensors/${n % KEYS}","n":${number(n)}}}`);
    const IN_FLIGHT = 200;
    const start = performance.now();
    let sent = 0;
    let heard = 0;
    while (performance.now() - start < seconds * 1_000) {
      while (sent < heard + IN_FLIGHT) send(sent++);
      await wait(0);
      heard = last === "" ? 0 : JSON.parse(last).message.n - 1e6 + 1;
    }
    const took = (performance.now() - start) / 1_000;
    report(`${peer.label}: changes a second to all`, `${Math.round(heard / took)}`);
    setter.close();
    for (const counter of counters) counter.close();
  } finally {
    await process.stop();
  }
}

/** Processor time of the last run of each kind, in seconds. */
const cpuOf = new Map<string, number>();

/** How many changes or messages a second reach all of 32 listeners, from 4 senders. */
async function rateOf(room: string, line: (index: number) => string): Promise<number> {
  const COUNT = 20_000;
  const IN_FLIGHT = 1_000;
  const places = new Array<number>(32).fill(0);
  const listeners = await Promise.all(
    places.map((_, index) =>
      open(`/chat/${room}?state=1`, (text) => {
        const last = text.lastIndexOf("\n") + 1;
        const { type, seq, rev } = JSON.parse(text.slice(last));
        if (type === "chat") places[index] = seq;
        if (type === "set" || type === "state") places[index] = rev;
      })
    ),
  );
  const behind = (count: number) => Math.min(...places) < count;
  const senders = await Promise.all(Array.from({ length: SETTERS }, () => open(`/chat/${room}`)));
  senders.forEach((sender) => sender.send('{"type":"join","name":"gateway"}'));
  const start = performance.now();
  const cpu = cpuSeconds(server.pid);
  for (let i = 0; i < COUNT; i += 25) {
    const lines = Array.from({ length: 25 }, (_, index) => line(i + index));
    senders[i / 25 % SETTERS].send(lines.join("\n"));
    while (behind(i - IN_FLIGHT)) await wait(0);
  }
  while (behind(COUNT)) await wait(0);
  const took = (performance.now() - start) / 1_000;
  cpuOf.set(room.replace(/\d/, ""), cpuSeconds(server.pid) - cpu);
  for (const socket of [...listeners, ...senders]) socket.close();
  return COUNT / took;
}

/** Bytes of memory for each key of 100 full rooms with values of 100 bytes; ten rooms more warm up. */
async function keyBytes(): Promise<number> {
  const [at, inspector] = [freePort(), freePort()];
  const process = await ServerProcess.start({
    args: [Deno.execPath(), "run", `--inspect=127.0.0.1:${inspector}`, "-A"]
      .concat(here("../../main.ts"), "--port", String(at)),
    env: {
      MESSAGE_RATE: "0",
      BYTE_RATE: "0",
      JOIN_RATE: "0",
      HISTORY_MB: "4000",
      LOG_LEVEL: "error",
    },
  }, at);
  try {
    const setter = await open("/chat/full-0", (text) => {
      for (const [, id] of text.matchAll(/"ack","id":"(\d+)"/g)) acked = Number(id);
    }, at);
    let acked = -1;
    const fill = async (first: number, last: number) => {
      for (let room = first; room <= last; room++) {
        setter.send(`{"type":"join","name":"gateway","room":"full-${room}"}`);
        for (let key = 0; key < KEYS; key++) {
          const value = `"${`${room} ${key}`.padEnd(98, "x")}"`;
          const id = key === KEYS - 1 ? `,"id":"${room}"` : "";
          setter.send(
            `{"type":"set","room":"full-${room}","key":"s/${key}","value":${value}${id}}`,
          );
        }
        while (acked < room) await wait(1);
        setter.send(`{"type":"leave","room":"full-${room}"}`);
      }
      await collectGarbage(inspector);
      await wait(500);
      await collectGarbage(inspector);
      return residentBytes(process.pid);
    };
    const before = await fill(1, 10);
    return (await fill(11, 110) - before) / (100 * KEYS);
  } finally {
    await process.stop();
  }
}

try {
  console.log("| what | figure | |\n| --- | --: | --- |");
  await fanOut("warm-up", 0);
  isWarm = true;
  await fanOut("plant", 0);
  await fanOut("slow", SLOW_VIEWERS);
  for (const name of ["bun", "control"]) await naiveRate(name);
  const ratios: number[] = [];
  const costs: number[] = [];
  for (let turn = 0; turn < 5; turn++) {
    const chat = await rateOf(`chat${turn}`, (i) => `{"type":"chat","message":{"n":${i}}}`);
    const set = await rateOf(
      `set${turn}`,
      (i) => `{"type":"set","key":"k/${i % 100}","value":{"n":${i}}}`,
    );
    ratios.push(set / chat);
    costs.push(cpuOf.get("chat")! / cpuOf.get("set")!);
  }
  const [median, cost] = [ratios, costs].map((all) => all.sort((a, b) => a - b)[2]);
  report("set ÷ chat with history, 32 listeners", median.toFixed(2), median >= 0.9);
  report("the same in the server's processor time", cost.toFixed(2));
  const bytes = Math.round(await keyBytes());
  report("memory of a key with a value of 100 bytes", `${bytes} bytes`, bytes <= 600);
} finally {
  await server.stop();
}
Deno.exit(hasFailed ? 1 : 0);
