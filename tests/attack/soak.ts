/**
 * `deno task soak`: clients that chat, come and go, and what the server holds meanwhile.
 *
 * Fails if a client missed a message, if an error was logged, if the totals do not come back to
 * zero, or if the memory in use grew from the first third to the last.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { type Client, connect } from "../../handlers/client/client.js";
import { Strangers } from "./strangers.ts";
import { Target } from "./target.ts";
import type { Totals } from "./totals.ts";

const CLIENTS_PER_ROOM = 10;
/** Each client speaks about so often. */
const SPEAK_MS = 2_000;
/** One client is replaced so often, and a plain socket and a reader of events come and go. */
const CHURN_MS = 200;
/** More growth of the memory in use is a leak. */
const MAX_GROWTH_MB = 10;

const HELP = `Clients chat, come and go; a table tells what the server holds meanwhile.

  deno task soak [flags]

  --minutes N       how long (default: 10)
  --clients N       how many clients (default: 200)
  --row-seconds N   how often a line of the table (default: 30)
  --no-strangers    without the reset handshake, the flood and the stuck peer of each second
  --help

Exits with 1 if a message was missed, an error was logged, or the memory in use grew.`;

const flags = parseArgs(Deno.args, {
  string: ["minutes", "clients", "row-seconds"],
  boolean: ["help", "no-strangers"],
});
if (flags.help) {
  console.log(HELP);
  Deno.exit();
}
const minutes = Number(flags.minutes ?? 10);
const clientCount = Number(flags.clients ?? 200);
const rowSeconds = Number(flags["row-seconds"] ?? 30);

let latencies: number[] = [];
let gaps = 0;
let refusals = 0;
let heard = 0;

/** A client in the room of its index that tells how long each message took to come. */
function join(ws: string, index: number): Client {
  const room = `soak-${Math.floor(index / CLIENTS_PER_ROOM)}`;
  let since = Infinity;
  return connect(`${ws}/chat/${room}`, {
    name: `Client ${index}`,
    history: 10,
    onWelcome: () => void (since = performance.now()),
    onMessage({ message }) {
      heard++;
      // What history brings was said before.
      const { at } = message as { at: number };
      if (at > since) latencies.push(performance.now() - at);
    },
    onGap: () => void gaps++,
    onError: () => void refusals++,
  });
}

/** A plain socket that joins and goes, and a reader of events that goes after its first event. */
async function passBy(target: Target, room: string): Promise<void> {
  using socket = await target.open(`/chat/${room}`);
  await socket.send('{"type":"join","name":"Passer-by"}');
  await socket.readText();
  const events = await fetch(`${target.url}/rooms/${room}/events`);
  const reader = events.body!.getReader();
  await reader.read();
  await reader.cancel();
}

interface Row {
  second: number;
  totals: Totals;
}

const HEAD =
  "| minute | sockets | rooms | rss MB | in use MB | CPU % | messages in/s | heard/s | p50 ms | p99 ms | max ms |";

/** One line of the table, over the time since the last. */
function format(row: Row, last: Row, heardNow: number): string {
  const seconds = row.second - last.second;
  const { totals } = row;
  latencies.sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.floor(share * (latencies.length - 1))] ?? NaN;
  const cells = [
    (row.second / 60).toFixed(1),
    totals.held,
    totals.rooms,
    totals.rssMb.toFixed(0),
    totals.heapMb.toFixed(1),
    (100 * (totals.cpuSeconds - last.totals.cpuSeconds) / seconds).toFixed(0),
    ((totals.messagesIn - last.totals.messagesIn) / seconds).toFixed(0),
    (heardNow / seconds).toFixed(0),
    at(0.5).toFixed(1),
    at(0.99).toFixed(1),
    at(1).toFixed(1),
  ];
  return `| ${cells.join(" | ")} |`;
}

/** How much more memory in use the last third of the rows shows than the first, in MB. */
function growth(rows: Row[]): number {
  const third = Math.ceil(rows.length / 3);
  const least = (part: Row[]) => Math.min(...part.map(({ totals }) => totals.heapMb));
  return least(rows.slice(-third)) - least(rows.slice(0, third));
}

async function soak(target: Target): Promise<string[]> {
  const start = performance.now();
  const second = () => (performance.now() - start) / 1_000;
  const clients = Array.from({ length: clientCount }, (_, index) => join(target.ws, index));
  const speaking = setInterval(() => {
    const client = clients[Math.floor(Math.random() * clients.length)];
    client.send({ at: performance.now(), text: "x".repeat(Math.random() * 200) });
  }, SPEAK_MS / clientCount);
  const passing = new Set<Promise<void>>();
  const problems: string[] = [];
  const churning = setInterval(() => {
    const index = Math.floor(Math.random() * clients.length);
    clients[index].close();
    clients[index] = join(target.ws, index);
    const pass = passBy(target, `soak-${Math.floor(index / CLIENTS_PER_ROOM)}`)
      .catch((error) => void problems.push(`a passer-by failed: ${error}`))
      .finally(() => passing.delete(pass));
    passing.add(pass);
  }, CHURN_MS);

  const strangers = new Strangers(target);
  const attacking = !flags["no-strangers"]
    ? setInterval(() => {
      const pass = strangers.come()
        .catch((error) => void problems.push(`a stranger failed: ${error}`))
        .finally(() => passing.delete(pass));
      passing.add(pass);
    }, 1_000)
    : undefined;

  console.log(`${HEAD}\n|${" --: |".repeat(11)}`);
  const rows: Row[] = [{ second: 0, totals: await target.totals() }];
  while (second() < minutes * 60) {
    const before = heard;
    latencies = [];
    await new Promise((resolve) => setTimeout(resolve, rowSeconds * 1_000));
    const row = { second: second(), totals: await target.totals() };
    console.log(format(row, rows.at(-1)!, heard - before));
    rows.push(row);
  }
  clearInterval(speaking);
  clearInterval(churning);
  clearInterval(attacking);
  for (const client of clients) client.close();
  await Promise.all(passing);
  strangers.go();
  const { errors, closes } = await target.until("the totals are not back at zero", (totals) => {
    const { held, heldHere, clients: open, rooms, members, connections } = totals;
    return [held, heldHere, open, rooms, members, ...Object.values(connections)].every((n) =>
      n === 0
    );
  });
  if (!flags["no-strangers"]) {
    const { seconds } = strangers;
    console.log(
      `strangers of ${seconds} s: ${closes.rateLimited} floods ended, ${closes.tooSlow} evicted`,
    );
    if (closes.rateLimited !== seconds) problems.push("a flood was not ended by the server");
    if (closes.tooSlow === 0 && minutes >= 1) problems.push("no stuck peer was evicted");
  }
  const grown = growth(rows.slice(1));
  console.log(
    `heard ${heard}, gaps ${gaps}, refusals ${refusals}, grown by ${grown.toFixed(1)} MB`,
  );
  if (gaps > 0) problems.push(`${gaps} gaps`);
  if (refusals > 0) problems.push(`${refusals} refusals`);
  if (errors.length > 0) problems.push(`errors in the log: ${errors.join(" | ")}`);
  if (grown > MAX_GROWTH_MB) problems.push(`memory grew by ${grown.toFixed(1)} MB`);
  return problems;
}

// With a collection before each row, what grows is a leak.
const env = { FULL_SIZE: "1", DENO_V8_FLAGS: "--expose-gc" };
await using target = await Target.start([], env);
const problems = await soak(target);
for (const problem of problems) console.error(problem);
if (problems.length > 0) Deno.exitCode = 1;
