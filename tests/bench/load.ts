/**
 * The load generator: one measurement, in a process of its own.
 *
 * `deno run -A load.ts SPEC` with a {@linkcode LoadSpec} as JSON prints a {@linkcode LoadResult} as JSON, or
 * `{"error"}`.
 */

import { Crowd, type CrowdOptions } from "./crowd.ts";
import type { Percentiles } from "./histogram.ts";
import { closedRounds, countedRounds, openLoop } from "./loops.ts";
import { Stopwatch } from "./stopwatch.ts";

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

/** Does one measurement. Throws when any listener missed, repeated or reordered a message. */
export async function load(spec: LoadSpec): Promise<LoadResult> {
  // Where all join at once, one room may wait for the others.
  const { rooms = 1, path, stallSeconds = rooms > 1 ? 60 : undefined } = spec;
  const crowds = Array.from(
    { length: rooms },
    (_, room) => new Crowd({ ...spec, stallSeconds, path: room === 0 ? path : `${path}-${room}` }),
  );
  const [crowd] = crowds;
  const clock = new Stopwatch(crowds, spec);
  try {
    if (rooms > 1) return await inRooms(crowds, clock, spec);
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
      ? await open([crowd], clock, spec)
      : await count(crowd, clock, spec);
    await crowd.settle();
    return result;
  } finally {
    for (const crowd of crowds) crowd.close();
  }
}

/** Opens all rooms, then talks in all of them. */
async function inRooms(crowds: Crowd[], clock: Stopwatch, spec: LoadSpec): Promise<LoadResult> {
  for (const crowd of crowds) await crowd.connect();
  await Promise.all(crowds.map((crowd) => crowd.join()));
  for (const crowd of crowds) {
    await countedRounds(crowd, spec.checkedRounds);
    crowd.ledger.strict = false;
  }
  return await open(crowds, clock, spec);
}

async function closed(crowd: Crowd, clock: Stopwatch, spec: LoadSpec) {
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

async function open(crowds: Crowd[], clock: Stopwatch, spec: LoadSpec) {
  clock.start();
  const { latency, lateness } = await openLoop(crowds, {
    ...spec,
    perSecond: spec.perSecond ?? 1000,
  });
  for (const crowd of crowds) await crowd.drain();
  return {
    ...clock.stop(),
    latency: latency.percentiles(),
    lateness: lateness.percentiles(),
  };
}

async function count(crowd: Crowd, clock: Stopwatch, spec: LoadSpec) {
  const before = await clock.memory();
  clock.start();
  await countedRounds(crowd, spec.rounds ?? 1);
  const result = clock.stop();
  return { ...result, memory: [before, await clock.memory()] } satisfies LoadResult;
}

async function stream(crowd: Crowd, clock: Stopwatch, spec: LoadSpec) {
  crowd.pace(true);
  await crowd.sleep(spec.warmupSeconds * 1000);
  clock.start();
  await crowd.sleep(spec.seconds * 1000);
  crowd.lastHeard = performance.now();
  return clock.stop();
}

async function idle(crowd: Crowd, clock: Stopwatch) {
  await crowd.connect(Math.floor(crowd.options.listeners / 11));
  const before = await clock.memory();
  clock.start();
  await crowd.connect();
  crowd.lastHeard = performance.now();
  const result = clock.stop();
  return { ...result, memory: [before, await clock.memory()] } satisfies LoadResult;
}

if (import.meta.main) {
  try {
    const result = await load(JSON.parse(Deno.args[0]));
    console.log(JSON.stringify(result));
  } catch (error) {
    console.log(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
  }
  // Sockets of the other end may linger.
  Deno.exit();
}
