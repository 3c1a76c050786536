/** Measures one row: every server in turn, then again, so that what disturbs the machine disturbs all alike. */

import type { LoadResult, LoadSpec } from "./load.ts";
import { machineCpuSeconds } from "./proc.ts";
import { readEvery, type Row } from "./rows.ts";
import { type CommandLine, freePort, LOAD_CORE, pinned, ServerProcess } from "./server_process.ts";
import { type Address, here, parleyCommand, type Server } from "./servers.ts";

/** Figures of one measurement, by name. */
export type Figures = Record<string, number>;

/** How much to measure. */
export interface Effort {
  turns: number;
  /** How often a measurement is done again that other processes disturbed. */
  retries: number;
  warmupSeconds: number;
  seconds: number;
}

/** What came of one row. */
export interface RowResult {
  row: Row;
  /** Each server's measurements, by its name. */
  runs: Record<string, Figures[]>;
  /** What went wrong: with any of these, no figure of the row may be shown. */
  failures: string[];
}

/** The middle one of `values`. */
export function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** The median of `figure` over the runs of `server`, or undefined when it was not measured. */
export function figureOf(
  result: RowResult,
  server: string,
  figure: string,
): number | undefined {
  const runs = result.runs[server] ?? [];
  return runs.length === 0 ? undefined : median(runs.map((figures) => figures[figure]));
}

/** Cores that others may keep busy during a measurement. */
export const DISTURBED = 0.1;
const QUIET_SECONDS = 5;
/** At half its speed the generator takes this long until all of it is compiled. */
const OPEN_WARMUP_SECONDS = 1.2;
const HISTORY_ENV = { HISTORY_SIZE: "1000000", HISTORY_MB: "4096" };
/** Messages kept before the memory is first read, and between that and its second reading. */
const HISTORY_MESSAGES = { before: 20_000, counted: 80_000 };

/** The servers that take part in `row`. */
export function partakers(row: Row, servers: Server[]): Server[] {
  return servers.filter((server) => {
    switch (row.kind) {
      case "echo":
        return !server.chatOnly && !server.unix;
      case "unix":
        return server.dialect === "plain" && server.role !== "peer";
      case "history":
        return server.name === "parley-v1";
      case "start":
        return !server.chatOnly && !server.unix;
      default:
        return !server.unix;
    }
  });
}

/** Measures `row`. `perSecond` is the rate of a latency row; `log` hears of every measurement. */
export async function measureRow(
  row: Row,
  servers: Server[],
  effort: Effort,
  log: (line: string) => void,
  perSecond?: number,
): Promise<RowResult> {
  const result: RowResult = { row, runs: {}, failures: [] };
  const running = new Map<Server, Running>();
  try {
    for (let turn = 0; turn < effort.turns; turn++) {
      for (const server of partakers(row, servers)) {
        if (result.failures.some((text) => text.startsWith(server.label))) {
          continue;
        }
        try {
          const figures = row.kind === "start" ? await measureStart(server) : await undisturbed(
            effort.retries,
            async () => {
              if (isFresh(row)) await stopAll(running);
              return await measureLoad(row, server, effort, running, perSecond);
            },
          );
          (result.runs[server.name] ??= []).push(figures);
          log(`${row.name} · ${server.name} · ${describe(figures)}`);
        } catch (error) {
          result.failures.push(`${server.label}: ${(error as Error).message}`);
        }
      }
    }
  } finally {
    await stopAll(running);
  }
  return result;
}

/** Measures in a quiet moment, and again if that was none; the least disturbed counts. */
async function undisturbed(retries: number, measure: () => Promise<Figures>) {
  let best: Figures | undefined;
  for (let i = 0; i <= retries; i++) {
    await quiet(i * QUIET_SECONDS);
    const figures = await measure();
    if (!best || figures.othersBusy < best.othersBusy) best = figures;
    if (!(best.othersBusy > DISTURBED)) break;
  }
  return best!;
}

/** Waits until the machine does next to nothing, `seconds` at most. */
async function quiet(seconds: number): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    const before = machineCpuSeconds();
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (machineCpuSeconds() - before <= 0.2 * DISTURBED) return;
  }
}

interface Running {
  process: ServerProcess;
  address: Address;
  inspectorPort?: number;
}

/** Whether each measurement of `row` begins with a new process: those of memory do. */
const isFresh = ({ kind }: Row) => kind === "idle" || kind === "history";

/** Adds an inspector to a command of Deno or Node; returns its port. */
function inspect({ args }: CommandLine): number | undefined {
  const place = args[0] === "node" ? 1 : args[1] === "run" ? 2 : undefined;
  if (place === undefined) return undefined;
  const port = freePort();
  args.splice(place, 0, `--inspect=127.0.0.1:${port}`);
  return port;
}

async function stopAll(running: Map<Server, Running>) {
  for (const { process } of running.values()) await process.stop();
  running.clear();
}

async function measureLoad(
  row: Row,
  server: Server,
  effort: Effort,
  running: Map<Server, Running>,
  perSecond?: number,
): Promise<Figures> {
  let target = running.get(server);
  if (!target) {
    const address = server.unix ? socketPath() : freePort();
    const command = row.kind === "history"
      ? parleyCommand(address, HISTORY_ENV)
      : server.command(address);
    const inspectorPort = isFresh(row) ? inspect(command) : undefined;
    const process = await ServerProcess.start(command, address);
    target = { process, address, inspectorPort };
    running.set(server, target);
  }
  const echo = row.kind === "echo";
  const open = row.kind === "latency";
  const result = await runLoad({
    address: target.address,
    path: echo ? "/echo" : "/chat/bench",
    protocol: server.dialect === "v1" ? "parley.v1" : undefined,
    dialect: echo ? "echo" : server.dialect,
    listeners: row.listeners,
    senders: row.senders,
    text: row.text,
    readEvery: open ? 0 : readEvery(row),
    work: WORK[row.kind],
    checkedRounds: row.kind === "history" ? HISTORY_MESSAGES.before / row.senders : 1,
    rounds: HISTORY_MESSAGES.counted / row.senders,
    warmupSeconds: Math.max(effort.warmupSeconds, open ? OPEN_WARMUP_SECONDS : 0),
    seconds: Math.max(effort.seconds, open ? 1 : 0),
    perSecond,
    serverPid: target.process.pid,
    inspectorPort: target.inspectorPort,
  });
  return figures(row, result);
}

const WORK: Record<Row["kind"], LoadSpec["work"]> = {
  echo: "closed",
  chat: "closed",
  unix: "closed",
  latency: "open",
  idle: "idle",
  history: "count",
  start: "idle",
};

function figures(row: Row, result: LoadResult): Figures {
  const { memory: [before, after] = [0, 0], latency, lateness } = result;
  const { othersBusy = NaN } = result;
  switch (row.kind) {
    case "idle":
      return {
        bytes: (after - before) / result.connections,
        seconds: result.seconds,
        othersBusy,
      };
    case "history":
      return { bytes: (after - before) / HISTORY_MESSAGES.counted };
    case "latency":
      return { ...latency, late: lateness?.p99 ?? NaN, othersBusy };
    default:
      return {
        perSecond: result.delivered / result.seconds,
        serverBusy: result.serverBusy ?? NaN,
        clientBusy: result.clientBusy,
        othersBusy,
      };
  }
}

/** Runs the load generator. Throws what it complained of. */
async function runLoad(spec: LoadSpec): Promise<LoadResult> {
  const args = [
    Deno.execPath(),
    "run",
    "-A",
    // Many short collections instead of a few that stall it for milliseconds.
    "--v8-flags=--single-threaded-gc,--min-semi-space-size=1,--max-semi-space-size=1",
    here("load.ts"),
    JSON.stringify(spec),
  ];
  const output = await pinned({ args }, LOAD_CORE).output();
  const text = new TextDecoder().decode(output.stdout);
  if (!text) throw new Error(new TextDecoder().decode(output.stderr));
  const result = JSON.parse(text);
  if (result.error) throw new Error(result.error);
  return result;
}

/** The most the generator can count in `row`'s shape, in messages a second. */
export async function generatorLimit(
  row: Row,
  dialect: "plain" | "v1",
): Promise<Figures> {
  const address = freePort();
  const { listeners, senders, text } = row;
  const shape = [listeners, senders, text.bytes].map(String);
  const script = here("peers/firehose.ts");
  const command: CommandLine = {
    args: [Deno.execPath(), "run", "-A", script, `${address}`, ...shape, dialect],
  };
  const process = await ServerProcess.start(command, address);
  try {
    const result = await runLoad({
      address,
      path: "/",
      protocol: dialect === "v1" ? "parley.v1" : undefined,
      dialect,
      listeners,
      senders,
      text,
      readEvery: readEvery(row),
      work: "stream",
      checkedRounds: 0,
      warmupSeconds: 0.3,
      seconds: 0.5,
    });
    return {
      perSecond: result.delivered / result.seconds,
      clientBusy: result.clientBusy,
    };
  } finally {
    await process.stop();
  }
}

async function measureStart(server: Server): Promise<Figures> {
  const address = freePort();
  const process = await ServerProcess.start(server.command(address), address);
  await process.stop();
  const start = performance.now();
  const args = [Deno.execPath(), "run", "-A", here("peers/empty.ts")];
  await pinned({ args }, LOAD_CORE).output();
  return {
    start: process.startMilliseconds,
    empty: performance.now() - start,
  };
}

const socketPath = () => `${Deno.makeTempDirSync({ prefix: "parley-bench-" })}/socket`;

function describe(figures: Figures): string {
  return Object.entries(figures)
    .map(([name, value]) =>
      `${name} ${value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(3)}`
    ).join(" · ");
}
