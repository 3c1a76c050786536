/** `deno task bench`: measures Parley, a bare Deno loop and other servers, and prints tables. */

import { machine } from "./machine.ts";
import { measureRow } from "./measure.ts";
import { type BenchOptions, HELP, readOptions } from "./options.ts";
import { figureOf, type Figures, type RowResult } from "./results.ts";
import { type Row, ROWS } from "./rows.ts";
import { generatorLimit } from "./sample.ts";
import { placement } from "./server_process.ts";
import { installedVersion, type Server, SERVERS } from "./servers.ts";
import { report, short } from "./table.ts";
import { judgeTargets } from "./targets.ts";

const NOTE = `Medians. Parley \`parley.v1\` merges messages into WebSocket \
frames: one frame a listener and turn of the event loop, one object a line. \
Bun (like uWebSockets) merges frames into TCP writes: one frame a message. \
Both pay one write a listener for many messages; the others pay one a message. \
The load generator checks the sender and number of every message at every \
listener, and that all listeners heard them in one order.`;

function refuse(why: string): never {
  console.error(`Cannot measure: ${why}`);
  Deno.exit(2);
}

/** What the command line asks for; ends the program if it asks for help, or for what there is not. */
function readArgs(): BenchOptions {
  try {
    const options = readOptions(Deno.args);
    if (options) return options;
  } catch (error) {
    refuse((error as Error).message);
  }
  console.log(HELP);
  Deno.exit();
}

const { rows, effort, minutes, isQuick, install, json, ...wanted } = readArgs();
const endsAt = performance.now() + minutes * 60_000;

const log = (line: string) => console.error(line);

async function installed(wanted: Server[]) {
  const versions = new Map<Server, string>();
  for (const server of wanted) {
    let version = await installedVersion(server);
    if (version === null && install) {
      log(`Installing: ${server.install}`);
      await new Deno.Command("sh", { args: ["-c", server.install] }).spawn().status;
      version = await installedVersion(server);
    }
    if (version === null) {
      console.log(`Skipped: ${server.label}. To install: ${server.install}`);
    } else {
      versions.set(server, version);
    }
  }
  return versions;
}

/** Half of what the bare loop delivers in the same shape, measured now unless it was already. */
async function halfOfControl(row: Row, results: RowResult[]): Promise<number> {
  const name = row.name.replace("latency", "chat");
  const shape = ROWS.find((other) => other.name === name) ?? row;
  const known = results.find((result) => result.row === shape);
  const control = SERVERS.filter((server) => server.name === "control");
  const result = known?.runs.control ? known : await measureRow(
    { ...shape, kind: "chat", rooms: 1 },
    control,
    { ...effort, turns: 1 },
    () => {},
  );
  const perSecond = figureOf(result, "control", "perSecond");
  if (perSecond === undefined) throw new Error(`Cannot set a rate: ${result.failures}`);
  return perSecond / 2;
}

const versions = await installed(wanted.servers);
const servers = [...versions.keys()];
const results: RowResult[] = [];
const limits: Record<string, Figures> = {};
for (const [index, row] of rows.entries()) {
  // What one row leaves of its share, the later ones have.
  const left = endsAt - performance.now();
  const until = performance.now() + left / (rows.length - index);
  const rate = row.kind === "latency" ? await halfOfControl(row, results) : undefined;
  if (rate) log(`${row.name}: ${short(rate)} deliveries a second`);
  results.push(await measureRow(row, servers, effort, log, { until, perSecond: rate }));
  if (row.kind === "chat" && !row.text.korean && !isQuick) {
    for (const dialect of ["plain", "v1"] as const) {
      limits[`${row.name}, ${dialect}`] = await generatorLimit(row, dialect);
    }
  }
}

const verdicts = judgeTargets(results);
const versionList = [...versions].filter(([{ role }]) => role !== "parley")
  .map(([{ name }, version]) => `${name} ${version}`).join(", ");
const setting = [
  await machine(),
  placement,
  `up to ${effort.turns} turns of ${effort.seconds} s`,
  versionList,
].join("; ");
console.log(`\n${setting}\n\n${NOTE}\n\n${report(results, servers)}`);
if (Object.keys(limits).length > 0) {
  console.log("\nThe load generator's own limit, against a firehose:");
  for (const [name, { perSecond, clientBusy }] of Object.entries(limits)) {
    const busy = Math.round(clientBusy * 100);
    console.log(`- ${name}: ${short(perSecond)} a second, core ${busy} % busy`);
  }
}
if (verdicts.length > 0) {
  console.log("\nTargets:");
  for (const { target, measured, met } of verdicts) {
    console.log(`- ${met ? "met" : "NOT MET"}: ${target}: ${measured}`);
  }
}
if (json) {
  const all = { setting, date: new Date().toISOString(), results, limits, verdicts };
  await Deno.writeTextFile(json, JSON.stringify(all, null, 2) + "\n");
}
if (results.some(({ failures }) => failures.length > 0)) Deno.exit(1);
