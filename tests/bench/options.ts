/** The command line of `deno task bench`: what is measured, how often and how long. */

import { parseArgs } from "node:util";
import { type Row, ROWS } from "./rows.ts";
import type { Effort } from "./sample.ts";
import { type Server, SERVERS } from "./servers.ts";

/** What `--help` prints. */
export const HELP = `Measures Parley, a bare Deno loop and other servers, and prints tables.

  deno task bench [flags]

  --quick          echo and fan-out beside bare Deno and Bun, in one minute
  --only REGEX     the rows whose name matches
  --servers A,B    these servers alone: ${SERVERS.map(({ name }) => name).join(", ")}
  --minutes M      begins no turn that would end later (default: 10, with --quick 1); each row has one
  --turns N        how often each is measured at most (default: 3); slow peers once
  --seconds S      how long each time (default: 0.8, with --quick 0.4)
  --retries N      how often what others disturbed is done again (default: 3, with --quick 0)
  --json FILE      writes all figures as JSON
  --install        installs what is missing first
  --help

Exits with 1 if a listener of any server was short of a message.`;

/** What the command line asks for. */
export interface BenchOptions {
  rows: Row[];
  servers: Server[];
  effort: Effort;
  /** Within so many minutes all is to be done. */
  minutes: number;
  isQuick: boolean;
  install: boolean;
  json?: string;
}

/**
 * Reads the command line; nothing if it asks for help.
 *
 * @throws {Error} if a flag cannot be used
 */
export function readOptions(args: string[]): BenchOptions | undefined {
  const { values } = parseArgs({
    args,
    options: {
      quick: { type: "boolean", default: false },
      install: { type: "boolean", default: false },
      only: { type: "string" },
      servers: { type: "string" },
      minutes: { type: "string" },
      turns: { type: "string" },
      seconds: { type: "string" },
      retries: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const { quick: isQuick, install, json, help, only, servers } = values;
  if (help) return undefined;
  const read = (
    name: "minutes" | "turns" | "seconds" | "retries",
    normal: number,
    least: number,
  ) => {
    const value = Number(values[name] ?? normal);
    if (value >= least) return value;
    throw new RangeError(`--${name} must be at least ${least}, is ${values[name]}`);
  };
  return {
    rows: wantedRows(only, isQuick),
    servers: wantedServers(servers, isQuick),
    effort: {
      turns: read("turns", 3, 1),
      retries: read("retries", isQuick ? 0 : 3, 0),
      warmupSeconds: isQuick ? 0.3 : 0.5,
      seconds: read("seconds", isQuick ? 0.4 : 0.8, 0.01),
    },
    minutes: read("minutes", isQuick ? 1 : 10, 0),
    isQuick,
    install,
    json,
  };
}

function wantedRows(only: string | undefined, isQuick: boolean): Row[] {
  if (only === undefined) return isQuick ? ROWS.filter(({ quick }) => quick) : ROWS;
  const pattern = new RegExp(only);
  const rows = ROWS.filter(({ name }) => pattern.test(name));
  if (rows.length > 0) return rows;
  throw new Error(`no row ${only}, only ${ROWS.map(({ name }) => name).join("; ")}`);
}

function wantedServers(list: string | undefined, isQuick: boolean): Server[] {
  if (list === undefined) return isQuick ? SERVERS.filter(({ slow }) => !slow) : SERVERS;
  const names = list.split(",");
  const known = SERVERS.map(({ name }) => name);
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length === 0) return SERVERS.filter(({ name }) => names.includes(name));
  throw new Error(`no server ${unknown}, only ${known.join(", ")}`);
}
