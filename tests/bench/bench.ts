/** `deno task bench`: measures Parley, a bare Deno loop and other servers, and prints tables. */

import { parseArgs } from "node:util";
import { machine } from "./machine.ts";
import { measureRow } from "./measure.ts";
import { figureOf, type Figures, type RowResult } from "./results.ts";
import { type Row, ROWS } from "./rows.ts";
import { type Effort, generatorLimit } from "./sample.ts";
import { placement } from "./server_process.ts";
import { installedVersion, type Server, SERVERS } from "./servers.ts";
import { report, short } from "./table.ts";
import { judgeTargets } from "./targets.ts";

const HELP = `Measures Parley, a bare Deno loop and other servers, and prints tables.

  deno task bench [flags]

  --quick          fewer rows, shorter, beside Bun alone; under two minutes
  --only REGEX     the rows whose name matches
  --servers A,B    these servers alone: ${SERVERS.map(({ name }) => name).join(", ")}
  --turns N        how often each is measured (default: 3)
  --seconds S      how long each time (default: 2)
  --retries N      how often what others disturbed is done again (default: 3)
  --json FILE      writes all figures as JSON
  --install        installs what is missing first
  --help

Exits with 1 if a listener of any server was short of a message.`;

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

/** What `read` makes of the command line; says what is wrong with it. */
function checked<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    refuse((error as Error).message);
  }
}

const { values: options } = checked(() =>
  parseArgs({
    args: Deno.args,
    options: {
      quick: { type: "boolean", default: false },
      install: { type: "boolean", default: false },
      only: { type: "string" },
      servers: { type: "string" },
      turns: { type: "string" },
      seconds: { type: "string" },
      retries: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", default: false },
    },
  })
);
if (options.help) {
  console.log(HELP);
  Deno.exit();
}

const effort: Effort = {
  turns: Number(options.turns ?? 3),
  retries: Number(options.retries ?? (options.quick ? 0 : 3)),
  warmupSeconds: options.quick ? 0.3 : 0.5,
  seconds: Number(options.seconds ?? (options.quick ? 0.4 : 2)),
};
if (!(effort.turns >= 1 && effort.seconds > 0 && effort.retries >= 0)) {
  refuse("--turns, --seconds and --retries are numbers of at least 1, above 0, of at least 0");
}

const log = (line: string) => console.error(line);

async function installed(wanted: Server[]) {
  const versions = new Map<Server, string>();
  for (const server of wanted) {
    let version = await installedVersion(server);
    if (version === null && options.install) {
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

function wantedServers(): Server[] {
  if (!options.servers) return options.quick ? SERVERS.filter(({ slow }) => !slow) : SERVERS;
  const names = options.servers.split(",");
  const known = SERVERS.map(({ name }) => name);
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    refuse(`no server ${unknown}, only ${known.join(", ")}`);
  }
  return SERVERS.filter(({ name }) => names.includes(name));
}

function wantedRows(): Row[] {
  if (!options.only) return options.quick ? ROWS.filter(({ quick }) => quick) : ROWS;
  const pattern = checked(() => new RegExp(options.only!));
  const rows = ROWS.filter(({ name }) => pattern.test(name));
  if (rows.length > 0) return rows;
  refuse(`no row ${options.only}, only ${ROWS.map(({ name }) => name).join("; ")}`);
}

/** Half of what the bare loop delivers in the same shape, measured now unless it was already. */
async function halfOfControl(row: Row, results: RowResult[]): Promise<number> {
  const name = row.name.replace("latency", "chat");
  const shape = ROWS.find((other) => other.name === name) ?? row;
  const known = results.find((result) => result.row === shape);
  const control = SERVERS.filter((server) => server.name === "control");
  const result = known?.runs.control
    ? known
    : await measureRow({ ...shape, kind: "chat" }, control, effort, () => {});
  const perSecond = figureOf(result, "control", "perSecond");
  if (perSecond === undefined) throw new Error(`Cannot set a rate: ${result.failures}`);
  return perSecond / 2;
}

const rows = wantedRows();
const versions = await installed(wantedServers());
const servers = [...versions.keys()];
const results: RowResult[] = [];
const limits: Record<string, Figures> = {};
for (const row of rows) {
  const rate = row.kind === "latency" ? await halfOfControl(row, results) : undefined;
  if (rate) log(`${row.name}: ${short(rate)} deliveries a second`);
  results.push(await measureRow(row, servers, effort, log, rate));
  if (row.kind === "chat" && !row.text.korean) {
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
  `${effort.turns} turns of ${effort.seconds} s`,
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
if (options.json) {
  const all = { setting, date: new Date().toISOString(), results, limits, verdicts };
  await Deno.writeTextFile(options.json, JSON.stringify(all, null, 2) + "\n");
}
if (results.some(({ failures }) => failures.length > 0)) Deno.exit(1);
