/**
 * What a room's state costs: 1,000 keys that change 50,000 times a second in all, and 200 viewers that
 * get the changes together (`every=100`); then `set` against `chat` with 32 listeners.
 *
 *     deno run -A tests/bench/state.ts [--seconds S] [--rate CHANGES] [--viewers N]
 *
 * Exits with 1 if a viewer did not end on the room's map, or if an aim is missed.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { here } from "./servers.ts";
import { ServerProcess } from "./server_process.ts";
import { freePort } from "../support/process.ts";

const flags = parseArgs(Deno.args, { string: ["seconds", "rate", "viewers"] });
const seconds = Number(flags.seconds ?? 5);
const rate = Number(flags.rate ?? 50_000);
const viewers = Number(flags.viewers ?? 200);
const KEYS = 1_000;
const STEP_MS = 20;
const SETTERS = 4;

const port = freePort();
const server = await ServerProcess.start({
  args: [Deno.execPath(), "run", "-A", here("../../main.ts"), "--port", String(port)],
  env: { MESSAGE_RATE: "0", BYTE_RATE: "0", JOIN_RATE: "0", LOG_LEVEL: "error" },
}, port);

type Fields = Record<string, unknown>;
let hasFailed = false;

/** Prints a figure beside its aim. */
function report(what: string, figure: string, isMet: boolean): void {
  hasFailed ||= !isMet;
  console.log(`| ${what} | ${figure} | ${isMet ? "met" : "NOT MET"} |`);
}

async function open(path: string, onFrame?: (text: string) => void): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, "parley.v1");
  const opened = Promise.withResolvers<void>();
  socket.onmessage = ({ data }) => {
    if (data.includes('"welcome"')) opened.resolve();
    onFrame?.(data);
  };
  socket.onclose = ({ code }) => opened.reject(new Error(`closed with ${code}`));
  await opened.promise;
  return socket;
}

/** Parses frames; the next viewer's is the same text most of the time. */
let lastText = "";
let lastObjects: Fields[] = [];
function parse(text: string): Fields[] {
  if (text === lastText) return lastObjects;
  lastText = text;
  return lastObjects = text.split("\n").map((line) => JSON.parse(line));
}

class Viewer {
  readonly map = new Map<string, Fields>();
  readonly ages: number[] = [];
  rev = 0;
  bytes = 0;

  take(text: string): void {
    this.bytes += text.length;
    const now = Date.now();
    for (const object of parse(text)) {
      if (object.type !== "state") continue;
      if (object.since === undefined) this.map.clear();
      for (const { key, value } of object.entries as { key: string; value: Fields }[]) {
        this.map.set(key, value);
        this.ages.push(now - (value.at as number));
      }
      this.rev = object.rev as number;
    }
  }
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function fanOut(): Promise<void> {
  const all: Viewer[] = [];
  const sockets: WebSocket[] = [];
  for (let i = 0; i < viewers; i++) {
    const viewer = new Viewer();
    sockets.push(await open("/chat/plant?state=1&every=100", (text) => viewer.take(text)));
    all.push(viewer);
  }
  const setters = await Promise.all(Array.from({ length: SETTERS }, () => open("/chat/plant")));
  setters.forEach((setter) => setter.send('{"type":"join","name":"gateway"}'));
  const start = performance.now();
  let sent = 0;
  while (performance.now() - start < seconds * 1_000) {
    const due = Math.floor((performance.now() - start) * rate / 1_000) - sent;
    const at = Date.now();
    setters.forEach((setter, index) => {
      const lines: string[] = [];
      for (let i = index; i < due; i += SETTERS) {
        // One setter a key: its changes have one order.
        const key = (sent + i) % (KEYS / SETTERS) * SETTERS + index;
        lines.push(`{"type":"set","key":"sensors/${key}","value":{"n":${sent + i},"at":${at}}}`);
      }
      for (let i = 0; i < lines.length; i += 500) setter.send(lines.slice(i, i + 500).join("\n"));
    });
    sent += Math.max(0, due);
    await wait(STEP_MS);
  }
  const took = (performance.now() - start) / 1_000;
  const read = async () => {
    const response = await fetch(`http://127.0.0.1:${port}/rooms/plant/state`);
    return await response.json() as { rev: number; entries: { key: string; value: Fields }[] };
  };
  let room = await read();
  for (let i = 0; i < 100 && (room.rev < sent || all.some(({ rev }) => rev < room.rev)); i++) {
    await wait(100);
    room = await read();
  }
  const truth = JSON.stringify(room.entries.map(({ key, value }) => [key, value.n]));
  const right = all.filter(({ map }) => {
    const entries = [...map].map(([key, { n }]) => [key, n] as const);
    return JSON.stringify(entries.sort(([a], [b]) => a < b ? -1 : 1)) === truth;
  });
  const ages = all.flatMap(({ ages }) => ages).sort((a, b) => a - b);
  const p99 = ages[Math.floor(ages.length * 0.99)];
  const each = all.reduce((sum, { bytes }) => sum + bytes, 0) / all.length;
  // A `set` object as it would go to each viewer.
  const naive = sent * 130;
  report("changes made a second", `${Math.round(room.rev / took)}`, room.rev === sent);
  report(
    "viewers that ended on the room's map",
    `${right.length} of ${viewers}`,
    right.length === viewers,
  );
  report("p99 of a value's age, ms", `${p99}`, p99 <= 150);
  report("bytes a viewer ÷ one message a change", (each / naive).toFixed(3), each <= naive / 5);
  for (const socket of [...sockets, ...setters]) socket.close();
}

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
  for (let i = 0; i < COUNT; i += 25) {
    const lines = Array.from({ length: 25 }, (_, index) => line(i + index));
    senders[i / 25 % SETTERS].send(lines.join("\n"));
    while (behind(i - IN_FLIGHT)) await wait(0);
  }
  while (behind(COUNT)) await wait(0);
  const took = (performance.now() - start) / 1_000;
  for (const socket of [...listeners, ...senders]) socket.close();
  return COUNT / took;
}

try {
  console.log("| what | figure | |\n| --- | --: | --- |");
  await fanOut();
  const ratios: number[] = [];
  for (let turn = 0; turn < 5; turn++) {
    const chat = await rateOf(`chat${turn}`, (i) => `{"type":"chat","message":{"n":${i}}}`);
    const set = await rateOf(
      `set${turn}`,
      (i) => `{"type":"set","key":"k/${i % 100}","value":{"n":${i}}}`,
    );
    ratios.push(set / chat);
  }
  const median = ratios.sort((a, b) => a - b)[2];
  report("set ÷ chat with history, 32 listeners", median.toFixed(2), median >= 0.9);
} finally {
  await server.stop();
}
Deno.exit(hasFailed ? 1 : 0);
