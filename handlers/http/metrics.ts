/** What the server counts: as numbers that add up over a process's workers, and as `/metrics`. */
import process from "node:process";
import type { Gauge } from "prom-client";
import type { App, Handler } from "../app.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { NODES_ROOM, STATS_ROOM } from "../protocol/parse.ts";
import { addUp, type Figures, type Histogram } from "../registry/counters.ts";

/** The process that runs this. */
export const thisMachine = {
  rssBytes: () => Deno.memoryUsage().rss,
  /** Processor time since the start. */
  cpuSeconds: () => secondsOf(process.cpuUsage()),
  get host(): string | undefined {
    // Without the permission this would prompt whoever started the server.
    const { state } = Deno.permissions.querySync({ name: "sys", kind: "hostname" });
    return state === "granted" ? Deno.hostname() : undefined;
  },
};

/** Processor time of user and system; none where an older runtime does not tell it. */
function secondsOf({ user, system } = { user: 0, system: 0 }): number {
  return (user + system) / 1e6;
}

/** The parts of an app that have figures. */
type FiguresOf = Pick<App, "registry" | "threads" | "authorize" | "log">;

/** The figures of this thread. */
export function readFigures({ registry, threads, authorize, log }: FiguresOf) {
  const { batchSizes, fanOutSeconds, ...counts } = registry.counters;
  const engine = registry.engineOf("");
  const { rooms, historyBytes, remote } = engine.stats();
  const watchers: Record<string, number> = registry.rooms.get(STATS_ROOM)?.exclusiveCounts() ?? {};
  const rows = registry.rooms.get(NODES_ROOM)?.state.map.size ?? 0;
  return {
    ...structuredClone(counts),
    batchMessages: readHistogram(batchSizes),
    fanOutSeconds: readHistogram(fanOutSeconds),
    held: registry.heldCount,
    /** A room counts once in each worker that has subscribers of it. */
    rooms: registry.rooms.size,
    /** Clients that only watch {@link STATS_ROOM}, by kind, and whether there is any. */
    watchers,
    /** What they get of {@link NODES_ROOM} in a second. */
    watchedRows: total(watchers) * rows,
    watchedRooms: [STATS_ROOM, NODES_ROOM].filter((room) => registry.rooms.has(room)).length,
    queueBytes: registry.clients.values().reduce((sum, { unsentBytes }) => sum + unsentBytes, 0),
    engineRooms: rooms,
    historyBytes,
    engine: { commands: 0, reconnects: 0, roundTrips: 0, roundTripSeconds: 0, ...remote },
    /** Threads whose own engine talks to servers: the main one, or none. */
    remoteEngines: Number(remote !== undefined),
    keyFailures: authorize?.figures?.keyFailures ?? 0,
    logDropped: log.droppedCount ?? 0,
    workers: 1,
    threadCpuSeconds: secondsOf(process.threadCpuUsage?.()),
    /** Of the process, in Unix time; only the main thread has it. */
    startSeconds: threads && threads.index > 0 ? 0 : performance.timeOrigin / 1_000,
    engineReady: Number(engine.isReady()),
  };
}

/** The figures of one worker, or of all. */
export type ServerFigures = ReturnType<typeof readFigures>;

/** The figures that only grow. */
const TOTALS = new Set<string>(
  [
    ...["messagesIn", "bytesIn", "framesOut", "bytesOut", "deliveries", "keyFailures"] as const,
    ...["logDropped", "closes", "refusals", "recoveries", "hookCalls", "hookSeconds"] as const,
    ...["batchMessages", "fanOutSeconds"] as const,
  ] satisfies (keyof ServerFigures)[],
);

/** The figures of an ended thread that still count: a total must not fall. */
export function totalsOf(figures: Figures): Figures {
  return Object.fromEntries(Object.entries(figures).filter(([name]) => TOTALS.has(name)));
}

/** The figures of each thread, by its index, and behind them what those counted that have ended. */
export async function eachFigures(app: FiguresOf): Promise<ServerFigures[]> {
  const own = readFigures(app);
  return app.threads ? await app.threads.report(own) as ServerFigures[] : [own];
}

/** The sum of some counts. */
export function total(counts: Record<string, number> | number[]): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

function readHistogram({ counts, sum }: Histogram) {
  return { sum, counts: Object.fromEntries(counts.entries()) };
}

/** One number, one for each value of a label, or a histogram. */
type Values = number | Record<string, number> | ReturnType<typeof readHistogram>;

/** A metric. One whose name ends in `_total` only grows. */
type Metric = [name: string, help: string, values: Values, labelOrBounds?: string | number[]];

function metricsOf(all: ServerFigures, { registry }: App): Metric[] {
  const engine = registry.engineOf("");
  const { batchSizes, fanOutSeconds } = registry.counters;
  const closes = Object.entries(CLOSE).map(([why, { reason }]) =>
    [reason.replaceAll(" ", "_"), all.closes[why as keyof typeof CLOSE]] as const
  );
  const { commands, reconnects, roundTrips, roundTripSeconds } = all.engine;
  const remote: Metric[] = [
    ["engine_commands_total", "Commands sent.", commands],
    ["engine_reconnects_total", "Reconnects.", reconnects],
    ["engine_round_trips_total", "Round trips measured.", roundTrips],
    ["engine_round_trip_seconds_total", "Seconds of the measured round trips.", roundTripSeconds],
  ];
  const ready = { [engine.name]: all.engineReady };
  const fanOutHelp = "From a message's arrival until it was written, of one in 64.";
  return [
    ["connections", "Clients now.", all.connections, "dialect"],
    ["held_connections", "Clients that the runtime holds.", all.held],
    ["rooms", "Rooms with subscribers, in each worker.", all.rooms],
    ["members", "Sockets that have joined, a room each.", all.members],
    ["queue_bytes", "Unsent bytes of all sockets.", all.queueBytes],
    ["workers", "Workers that answer.", all.workers],
    ["received_messages_total", "Objects received.", all.messagesIn],
    ["received_bytes_total", "Bytes received, of text its length.", all.bytesIn],
    ["sent_frames_total", "Frames sent.", all.framesOut],
    ["sent_bytes_total", "Bytes sent, of text its length.", all.bytesOut],
    ["deliveries_total", "Messages, once a subscriber.", all.deliveries],
    ["closes_total", "Closes by the server.", Object.fromEntries(closes), "reason"],
    ["refusals_total", "Errors sent.", all.refusals, "code"],
    ["recoveries_total", "Rooms resumed.", all.recoveries, "result"],
    ["key_failures_total", "Reads of the public keys that failed.", all.keyFailures],
    ["log_dropped_total", "Lines of the log that nobody read.", all.logDropped],
    ["hook_calls_total", "Hooks that answered later.", all.hookCalls, "outcome"],
    ["hook_seconds_total", "Seconds that they took.", all.hookSeconds],
    ["hook_waiting", "Hooks that have not answered.", all.hookWaiting],
    ["engine_ready", "Workers whose engine takes messages.", ready, "engine"],
    ["engine_rooms", "Rooms known, empty ones too.", all.engineRooms],
    ["history_bytes", "Bytes of history.", all.historyBytes],
    ...all.remoteEngines > 0 ? remote : [],
    // What prom-client itself measures of a Node process is wrong or missing in Deno.
    ["process_cpu_seconds_total", "CPU time, user and system.", thisMachine.cpuSeconds()],
    ["process_start_time_seconds", "Start, in Unix time.", all.startSeconds],
    ["process_resident_memory_bytes", "Memory of the process.", thisMachine.rssBytes()],
    ["batch_messages", "Objects in a merged frame.", all.batchMessages, batchSizes.bounds],
    ["fan_out_seconds", fanOutHelp, all.fanOutSeconds, fanOutSeconds.bounds],
  ];
}

/** Makes the handler of `/metrics`. */
export function metrics(app: App): Handler {
  return async () => {
    const [prom, threads] = await Promise.all([import("prom-client"), eachFigures(app)]);
    const register = new prom.Registry();
    for (const [title, help, values, by] of metricsOf(addUp(threads) as ServerFigures, app)) {
      const name = title.startsWith("process_") ? title : `parley_${title}`;
      const type = Array.isArray(by) ? "histogram" : name.endsWith("_total") ? "counter" : "gauge";
      const get = () => ({ name, help, type, values: samplesOf(name, values, by) });
      // prom-client's own classes do the counting; these are counted already.
      register.registerMetric({ name, get } as unknown as Gauge);
    }
    const headers = { "content-type": register.contentType };
    return new Response(await register.metrics(), { headers });
  };
}

function samplesOf(name: string, values: Values, by: string | number[] = "") {
  if (typeof values === "number") return [{ value: values }];
  if (!Array.isArray(by)) {
    return Object.entries(values).map(([key, value]) => ({ labels: { [by]: key }, value }));
  }
  const { sum, counts } = values as ReturnType<typeof readHistogram>;
  let total = 0;
  const buckets = [...by, "+Inf"].map((le, i) => {
    return { metricName: `${name}_bucket`, labels: { le }, value: total += counts[i] };
  });
  const ends = [{ metricName: `${name}_sum`, value: sum }];
  return [...buckets, ...ends, { metricName: `${name}_count`, value: total }];
}
