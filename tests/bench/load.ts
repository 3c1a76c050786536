/**
 * The load generator: one measurement, in a process of its own.
 *
 * `deno run -A load.ts SPEC` with a {@linkcode LoadSpec} as JSON prints a {@linkcode LoadResult} as JSON, or
 * `{"error"}`.
 */

import process from "node:process";
import { Crowd, type CrowdOptions } from "./crowd.ts";
import type { Percentiles } from "./histogram.ts";
import { closedRounds, countedRounds, openLoop } from "./loops.ts";
import { collectGarbage } from "./inspector.ts";
import { cpuSeconds, machineCpuSeconds, residentBytes } from "./proc.ts";

/** One measurement. */
export interface LoadSpec extends CrowdOptions {
  /**
   * `closed`: each sender sends again when it has heard the whole round. `open`: at `perSecond`. `count`: `rounds`
   * closed rounds. `stream`: only listens, to a server that sends by itself. `idle`: opens connections, a tenth first
   * to warm up, and keeps them.
   */
  work: "closed" | "open" | "count" | "stream" | "idle";
  /** Rounds in which each message is parsed and compared whole, before the clock starts. */
  checkedRounds: number;
  /** Seconds of `closed`, `open` and `stream` before the clock starts. */
  warmupSeconds: number;
  /** Seconds of `closed`, `open` and `stream` that are measured. */
  seconds: number;
  /** For `open`: deliveries a second over all listeners. */
  perSecond?: number;
  /** For `count`. */
  rounds?: number;
  /** The server's process, to read its processor time and memory. */
  serverPid?: number;
  /** Port of the server's inspector, to collect its garbage before its memory is read. */
  inspectorPort?: number;
}

/** What was measured. */
export interface LoadResult {
  /** Messages delivered while the clock ran. */
  delivered: number;
  /** Connections opened while the clock ran. */
  connections: number;
  /** How long the clock ran. */
  seconds: number;
  /** Share of the time the generator's core was busy; in `open` it always is. */
  clientBusy: number;
  /** The same of the server. */
  serverBusy?: number;
  /** Cores that other processes kept busy meanwhile. */
  othersBusy?: number;
  /** Messages that had to be parsed while the clock ran. */
  parsed: number;
  /** Resident bytes of the server before and after what is counted. */
  memory?: [before: number, after: number];
  /** `open`: from the time a message was due to each listener's hearing it, ms. */
  latency?: Percentiles;
  /** `open`: from the time a message was due to its sending, ms. */
  lateness?: Percentiles;
}

const MEMORY_SETTLES_MILLISECONDS = 1000;

/** Does one measurement. Throws when any listener missed, repeated or reordered a message. */
export async function load(spec: LoadSpec): Promise<LoadResult> {
  const crowd = new Crowd(spec);
  const clock = new Clock(crowd, spec);
  try {
    if (spec.work === "idle") return await idle(crowd, clock);
    crowd.ledger.strict = spec.work !== "stream";
    await crowd.connect();
    if (spec.work === "stream") return await stream(crowd, clock, spec);
    if (spec.dialect !== "echo") await crowd.join();
    await countedRounds(crowd, spec.checkedRounds);
    crowd.ledger.strict = false;
    const result = spec.work === "closed"
      ? await closed(crowd, clock, spec)
      : spec.work === "open"
      ? await open(crowd, clock, spec)
      : await count(crowd, clock, spec);
    await crowd.settle();
    return result;
  } finally {
    crowd.close();
  }
}

async function closed(crowd: Crowd, clock: Clock, spec: LoadSpec) {
  let over = false;
  crowd.pace(true);
  closedRounds(crowd, () => over);
  await crowd.sleep(spec.warmupSeconds * 1000);
  clock.start();
  await crowd.sleep(spec.seconds * 1000);
  over = true;
  await crowd.drain();
  return clock.stop();
}

async function open(crowd: Crowd, clock: Clock, spec: LoadSpec) {
  clock.start();
  const { latency, lateness } = await openLoop(crowd, {
    ...spec,
    perSecond: spec.perSecond ?? 1000,
  });
  await crowd.drain();
  return {
    ...clock.stop(),
    latency: latency.percentiles(),
    lateness: lateness.percentiles(),
  };
}

async function count(crowd: Crowd, clock: Clock, spec: LoadSpec) {
  const before = await clock.memory();
  clock.start();
  await countedRounds(crowd, spec.rounds ?? 1);
  const result = clock.stop();
  return { ...result, memory: [before, await clock.memory()] } satisfies LoadResult;
}

async function stream(crowd: Crowd, clock: Clock, spec: LoadSpec) {
  crowd.pace(true);
  await crowd.sleep(spec.warmupSeconds * 1000);
  clock.start();
  await crowd.sleep(spec.seconds * 1000);
  crowd.lastHeard = performance.now();
  return clock.stop();
}

async function idle(crowd: Crowd, clock: Clock) {
  await crowd.connect(Math.floor(crowd.options.listeners / 11));
  const before = await clock.memory();
  clock.start();
  await crowd.connect();
  crowd.lastHeard = performance.now();
  const result = clock.stop();
  return { ...result, memory: [before, await clock.memory()] } satisfies LoadResult;
}

/** What happened between two moments. */
class Clock {
  readonly #crowd: Crowd;
  readonly #serverPid?: number;
  readonly #inspectorPort?: number;
  #from = {
    at: 0,
    delivered: 0,
    connections: 0,
    parsed: 0,
    client: 0,
    server: 0,
    machine: 0,
  };

  constructor(crowd: Crowd, { serverPid, inspectorPort }: LoadSpec) {
    this.#crowd = crowd;
    this.#serverPid = serverPid;
    this.#inspectorPort = inspectorPort;
  }

  start(): void {
    this.#from = this.#now();
  }

  /** Up to the last message heard. */
  stop(): LoadResult {
    const from = this.#from;
    const to = this.#now();
    const wall = (to.at - from.at) / 1000;
    const client = to.client - from.client;
    const server = to.server - from.server;
    const others = to.machine - from.machine - client - server;
    return {
      delivered: to.delivered - from.delivered,
      connections: to.connections - from.connections,
      seconds: (this.#crowd.lastHeard - from.at) / 1000,
      clientBusy: client / wall,
      serverBusy: this.#serverPid ? server / wall : undefined,
      othersBusy: this.#serverPid ? others / wall : undefined,
      parsed: to.parsed - from.parsed,
    };
  }

  /** Resident bytes of the server when all has come to rest. */
  async memory(): Promise<number> {
    await this.#crowd.sleep(MEMORY_SETTLES_MILLISECONDS);
    if (this.#inspectorPort) {
      await collectGarbage(this.#inspectorPort);
      await this.#crowd.sleep(MEMORY_SETTLES_MILLISECONDS);
    }
    return this.#serverPid ? residentBytes(this.#serverPid) : 0;
  }

  #now() {
    const { user, system } = process.cpuUsage();
    return {
      at: performance.now(),
      delivered: this.#crowd.delivered(),
      connections: this.#crowd.connected,
      parsed: this.#crowd.ledger.parsed,
      client: (user + system) / 1e6,
      server: this.#serverPid ? cpuSeconds(this.#serverPid) : 0,
      machine: machineCpuSeconds(),
    };
  }
}

if (import.meta.main) {
  try {
    const result = await load(JSON.parse(Deno.args[0]));
    console.log(JSON.stringify(result));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
  // Sockets of the other end may linger.
  Deno.exit();
}
