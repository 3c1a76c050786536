/** One measurement of one server. */

import type { LoadResult, LoadSpec } from "./load.ts";
import type { Figures } from "./results.ts";
import { freePort } from "../support/process.ts";
import { readEvery, type Row } from "./rows.ts";
import {
  type ANY_CORE,
  type CommandLine,
  LOAD_CORE,
  pinned,
  SERVER_CORE,
  ServerProcess,
} from "./server_process.ts";
import { type Address, here, parleyCommand, type Server } from "./servers.ts";

/** How much to measure. */
export interface Effort {
  turns: number;
  /** How often a measurement is done again that other processes disturbed. */
  retries: number;
  warmupSeconds: number;
  seconds: number;
}

/** At half its speed the generator takes this long until all of it is compiled. */
const OPEN_WARMUP_SECONDS = 1.2;
const HISTORY_ENV = { HISTORY_SIZE: "1000000", HISTORY_MB: "4096" };
/** Messages kept before the memory is first read, and between that and its second reading. */
const HISTORY_MESSAGES = { before: 20_000, counted: 80_000 };

interface Running {
  process: ServerProcess;
  address: Address;
  inspectorPort?: number;
}

/** Adds an inspector to a command of Deno or Node; returns its port. */
function inspect({ args }: CommandLine): number | undefined {
  const place = args[0] === "node" ? 1 : args[1] === "run" ? 2 : undefined;
  if (place === undefined) return undefined;
  const port = freePort();
  args.splice(place, 0, `--inspect=127.0.0.1:${port}`);
  return port;
}

/** The servers of one row: started when first asked for, and kept for the next turn. */
export class Stage {
  readonly #row: Row;
  /** Where memory is measured, each measurement has a new process. */
  readonly #fresh: boolean;
  readonly #running = new Map<Server, Running>();

  constructor(row: Row) {
    this.#row = row;
    this.#fresh = row.kind === "idle" || row.kind === "history";
  }

  /** `server`, running. */
  async get(server: Server): Promise<Running> {
    if (this.#fresh) await this.stop();
    const known = this.#running.get(server);
    if (known) return known;
    const address = server.unix
      ? `${await Deno.makeTempDir({ prefix: "parley-bench-" })}/socket`
      : freePort();
    const command = this.#row.kind === "history"
      ? parleyCommand(address, HISTORY_ENV)
      : server.command(address);
    const inspectorPort = this.#fresh ? inspect(command) : undefined;
    const process = await ServerProcess.start(command, address);
    const running = { process, address, inspectorPort };
    this.#running.set(server, running);
    return running;
  }

  /** Ends all servers. */
  async stop(): Promise<void> {
    for (const { process } of this.#running.values()) await process.stop();
    this.#running.clear();
  }
}

/** Puts the load of `row` on `server`; `perSecond` is the rate of a latency row. */
export async function measureLoad(
  row: Row,
  server: Server,
  effort: Effort,
  stage: Stage,
  perSecond?: number,
): Promise<Figures> {
  const target = await stage.get(server);
  const echo = row.kind === "echo";
  const open = row.kind === "latency";
  const result = await runLoad({
    address: target.address,
    path: echo ? "/echo" : "/chat/bench",
    protocol: server.dialect === "v1" ? "parley.v1" : undefined,
    dialect: echo ? "echo" : server.dialect,
    listeners: row.listeners,
    senders: row.senders,
    rooms: row.rooms,
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
      return {
        ...latency,
        cpu: result.serverBusy ?? NaN,
        late: lateness?.p99 ?? NaN,
        othersBusy,
      };
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
export async function runLoad(
  spec: LoadSpec,
  core: number | typeof ANY_CORE = LOAD_CORE,
): Promise<LoadResult> {
  const args = [
    Deno.execPath(),
    "run",
    "-A",
    // Many short collections instead of a few that stall it for milliseconds.
    "--v8-flags=--single-threaded-gc,--min-semi-space-size=1,--max-semi-space-size=1",
    here("load.ts"),
    JSON.stringify(spec),
  ];
  const output = await pinned({ args }, core).output();
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

/** Starts `server`, and an empty Deno program for comparison. */
export async function measureStart(server: Server): Promise<Figures> {
  const address = freePort();
  const process = await ServerProcess.start(server.command(address), address);
  await process.stop();
  const start = performance.now();
  const args = [Deno.execPath(), "run", "-A", here("peers/empty.ts")];
  await pinned({ args }, SERVER_CORE).output();
  return {
    start: process.startMilliseconds,
    empty: performance.now() - start,
  };
}
