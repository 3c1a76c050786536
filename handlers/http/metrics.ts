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
    batchSizes: readHistogram(batchSizes),
    fanOutSeconds: readHistogram(fanOutSeconds),
    held: registry.heldCount,
    /** A room counts once in each worker that has subscribers of it. */
    rooms: registry.rooms.size,
    /** Clients that watch {@link STATS_ROOM} and hear no room but the server's own, by kind. */
    watchers,
    /** What they get of {@link NODES_ROOM} in a second. */
    watchedRows: total(watchers) * rows,
    watchedStats: Number(registry.rooms.has(STATS_ROOM)),
    watchedNodes: Number(registry.rooms.has(NODES_ROOM)),
    queueBytes: registry.clients.values().filter(({ mayBeUnsent }) => mayBeUnsent)
      .reduce((sum, { unsentBytes }) => sum + unsentBytes, 0),
    engineRooms: rooms,
    historyBytes,
    // Of threads whose own engine talks to servers: the main one, or none.
    ...remote,
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

/** Each figure's metric: its name, its help, and the label of its values. */
const METRICS: {
  [Name in keyof ServerFigures | "cpuSeconds" | "rssBytes"]?: [string, string, string?];
} = {
  connections: ["connections", "Clients now.", "dialect"],
  held: ["held_connections", "Clients that the runtime holds."],
  rooms: ["rooms", "Rooms with subscribers, in each worker."],
  members: ["members", "Sockets that have joined, a room each."],
  queueBytes: ["queue_bytes", "Unsent bytes of all sockets."],
  workers: ["workers", "Workers that answer."],
  messagesIn: ["received_messages_total", "Objects received."],
  bytesIn: ["received_bytes_total", "Bytes received, of text its length."],
  framesOut: ["sent_frames_total", "Frames sent."],
  bytesOut: ["sent_bytes_total", "Bytes sent, of text its length."],
  deliveries: ["deliveries_total", "Messages, once a subscriber."],
  closes: ["closes_total", "Closes by the server.", "reason"],
  refusals: ["refusals_total", "Errors sent.", "code"],
  recoveries: ["recoveries_total", "Rooms resumed.", "result"],
  keyFailures: ["key_failures_total", "Reads of the public keys that failed."],
  logDropped: ["log_dropped_total", "Lines of the log that nobody read."],
  hookCalls: ["hook_calls_total", "Hooks that answered later.", "outcome"],
  hookSeconds: ["hook_seconds_total", "Seconds that they took."],
  hookWaiting: ["hook_waiting", "Hooks that have not answered."],
  engineReady: ["engine_ready", "Workers whose engine takes messages.", "engine"],
  engineRooms: ["engine_rooms", "Rooms known, empty ones too."],
  historyBytes: ["history_bytes", "Bytes of history."],
  commands: ["engine_commands_total", "Commands sent."],
  reconnects: ["engine_reconnects_total", "Reconnects."],
  roundTrips: ["engine_round_trips_total", "Round trips measured."],
  roundTripSeconds: ["engine_round_trip_seconds_total", "Seconds of the measured round trips."],
  // What prom-client itself measures of a Node process is wrong or missing in Deno.
  cpuSeconds: ["process_cpu_seconds_total", "CPU time, user and system."],
  startSeconds: ["process_start_time_seconds", "Start, in Unix time."],
  rssBytes: ["process_resident_memory_bytes", "Memory of the process."],
  batchSizes: ["batch_messages", "Objects in a merged frame."],
  fanOutSeconds: [
    "fan_out_seconds",
    "From a message's arrival until it was written, of one in 64.",
  ],
};

/** The figures of an ended thread that still count: a total, or a histogram, must not fall. */
export function totalsOf(figures: Figures): Figures {
  const isTotal = (name: string) =>
    name === "batchSizes" || name === "fanOutSeconds" ||
    METRICS[name as keyof typeof METRICS]?.[0].endsWith("_total");
  return Object.fromEntries(Object.entries(figures).filter(([name]) => isTotal(name)));
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

/** Answers `/metrics`. */
export const metrics: Handler = async (_call, app) => {
  const [prom, threads] = await Promise.all([import("prom-client"), eachFigures(app)]);
  const figures = addUp(threads) as ServerFigures;
  const register = new prom.Registry();
  const { counters } = app.registry;
  const closes = Object.entries(CLOSE).map((
    [why, { reason }],
  ) => [reason.replaceAll(" ", "_"), figures.closes[why as keyof typeof CLOSE]]);
  const all: Record<string, Values | undefined> = {
    ...figures,
    closes: Object.fromEntries(closes),
    engineReady: { [app.registry.engineOf("").name]: figures.engineReady },
    cpuSeconds: thisMachine.cpuSeconds(),
    rssBytes: thisMachine.rssBytes(),
  };
  for (const [figure, [title, help, label]] of Object.entries(METRICS)) {
    const values = all[figure];
    if (values === undefined) continue;
    const name = title.startsWith("process_") ? title : `parley_${title}`;
    const { bounds } = counters[figure as "batchSizes"] ?? {};
    const type = bounds ? "histogram" : name.endsWith("_total") ? "counter" : "gauge";
    const get = () => ({ name, help, type, values: samplesOf(name, values, bounds ?? label) });
    // prom-client's own classes do the counting; these are counted already.
    register.registerMetric({ name, get } as unknown as Gauge);
  }
  const headers = { "content-type": register.contentType };
  return new Response(await register.metrics(), { headers });
};

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
