/**
 * Parley in a process of its own, with a second port that tells its totals.
 *
 * Takes the flags of `main.ts`. A line on stdout names the port of the totals; the log is counted
 * instead of written.
 *
 * @module
 */
import type { LimitTable } from "../../handlers/access/shared_limits.ts";
import { type App, createApp } from "../../handlers/app.ts";
import { runApp } from "../../handlers/run_app.ts";
import { listen } from "../../handlers/start/listen.ts";
import { parleyOptions } from "../../handlers/start/options.ts";
import { freeFrameBuffers } from "../../handlers/start/process.ts";
import { readSettings } from "../../handlers/start/read_settings.ts";
import type { Log } from "../../handlers/util/log.ts";
import { IS_FULL } from "../support/run.ts";
import type { Totals } from "./totals.ts";

const MAX_ERRORS = 20;

let logLines = 0;
const errors: string[] = [];

function totals({ registry, sharedLimits }: App): Totals {
  if (IS_FULL) (globalThis as { gc?: () => void }).gc?.();
  const { rss, heapUsed, external } = Deno.memoryUsage();
  const { counters } = registry;
  const { rooms: engineRooms, historyBytes } = registry.engineOf("").stats();
  return {
    clients: registry.clients.size,
    held: registry.heldCount,
    heldHere: (sharedLimits as LimitTable).countOf("127.0.0.1"),
    rooms: registry.rooms.size,
    engineRooms,
    historyBytes,
    members: counters.members,
    connections: counters.connections,
    closes: counters.closes,
    refusals: counters.refusals,
    messagesIn: counters.messagesIn,
    logLines,
    errors: [...errors, ...pollution()],
    rssMb: rss / 1e6,
    peakRssMb: peakRssMb(),
    heapMb: (heapUsed + external) / 1e6,
    cpuSeconds: cpuSeconds(),
  };
}

/** What somebody has put into every object. */
function pollution(): string[] {
  const keys = [];
  for (const key in {}) keys.push(`Object.prototype has ${key}`);
  return keys;
}

/** The most memory that this process has held; 0 where the system does not count it. */
function peakRssMb(): number {
  const status = Deno.readTextFileSync("/proc/self/status");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1_024 / 1e6;
}

/** CPU time of this process, user and system; the kernel counts in hundredths. */
function cpuSeconds(): number {
  const stat = Deno.readTextFileSync("/proc/self/stat");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

freeFrameBuffers();
const command = readSettings(Deno.args, (name) => Deno.env.get(name));
if (!("settings" in command)) Deno.exit(1);
const count = () => void logLines++;
const log: Log = {
  info: count,
  warn: count,
  error(text) {
    logLines++;
    if (errors.length < MAX_ERRORS) errors.push(text);
  },
};
const { settings } = command;
const app = createApp(await parleyOptions(settings, log));
const server = await listen({ settings, handler: runApp(app).fetch, log, health: app.health });
const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
const control = Deno.serve(options, () => Response.json(totals(app)));
console.log(`totals: http://127.0.0.1:${control.addr.port}`);
console.error(`test server: ${server.address}`);
