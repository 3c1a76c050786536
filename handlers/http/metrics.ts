/**
 * What the server counts: as numbers that add up over the workers of a process, and as `/metrics` for
 * Prometheus. Both are read when somebody asks.
 */
import process from "node:process";
import type { Counter, Gauge } from "prom-client";
import type { App, Handler } from "../app.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import type { Figures, Histogram } from "../registry/counters.ts";

/** The server's own room that carries what the dashboard shows. */
export const STATS_ROOM = "_stats";

/** What has figures. */
type FiguresOf = Pick<App, "registry" | "threads" | "authorize" | "log">;

/** The figures of this thread. */
export function readFigures({ registry, threads, authorize, log }: FiguresOf) {
  const { counters } = registry;
  const { connections, closes, refusals, recoveries } = counters;
  const engine = registry.engineOf("");
  const { rooms, historyBytes, remote } = engine.stats();
  return {
    messagesIn: counters.messagesIn,
    bytesIn: counters.bytesIn,
    framesOut: counters.framesOut,
    bytesOut: counters.bytesOut,
    deliveries: counters.deliveries,
    held: registry.heldCount,
    /** A room counts once in each worker that has subscribers of it. */
    rooms: registry.rooms.size,
    members: counters.members,
    /** Clients that hear {@link STATS_ROOM} alone, by kind, and whether there is any. */
    watchers: registry.rooms.get(STATS_ROOM)?.exclusiveCounts() ?? {},
    watchedRooms: Number(registry.rooms.has(STATS_ROOM)),
    queueBytes: registry.countQueueBytes(),
    engineRooms: rooms,
    historyBytes,
    engineCommands: remote?.commands ?? 0,
    engineReconnects: remote?.reconnects ?? 0,
    engineRoundTrips: remote?.roundTrips ?? 0,
    engineRoundTripSeconds: remote?.roundTripSeconds ?? 0,
    keyFailures: authorize?.figures?.keyFailures ?? 0,
    logDropped: log.droppedCount ?? 0,
    workers: 1,
    /** Of the process, in Unix time; only the main thread has it. */
    startSeconds: threads && threads.index > 0 ? 0 : performance.timeOrigin / 1_000,
    engineReady: Number(engine.isReady()),
    connections: { ...connections },
    closes: { ...closes },
    refusals: { ...refusals },
    recoveries: { ...recoveries },
    batchMessages: readHistogram(counters.batchSizes),
    fanOutSeconds: readHistogram(counters.fanOutSeconds),
  };
}

/** The figures of one worker, or of all. */
export type ServerFigures = ReturnType<typeof readFigures>;

/** The figures that only grow. */
const TOTALS: (keyof ServerFigures)[] = [
  ...["messagesIn", "bytesIn", "framesOut", "bytesOut", "deliveries"] as const,
  ...["keyFailures", "logDropped", "closes", "refusals", "recoveries"] as const,
  ...["batchMessages", "fanOutSeconds"] as const,
];

/** What still counts of a thread that has ended: a total must not fall. */
export function totalsOf(figures: Figures): Figures {
  return Object.fromEntries(
    Object.entries(figures).filter(([name]) => TOTALS.some((total) => total === name)),
  );
}

/** The figures of the whole process. */
export async function allFigures(app: FiguresOf): Promise<ServerFigures> {
  const own = readFigures(app);
  return app.threads ? await app.threads.report(own) as Figures & ServerFigures : own;
}

function readHistogram({ counts, sum }: Histogram) {
  return { sum, counts: Object.fromEntries(counts.entries()) };
}

/** A metric's values: one number, or one for each value of its label. */
type Values = number | Record<string, number>;

/** Makes the handler of `/metrics`. prom-client is loaded at the first scrape. */
export function metrics(app: App): Handler {
  let scrape: Promise<() => Promise<Response>> | undefined;
  return async () => {
    scrape ??= createScrape(app);
    // What failed once is tried again at the next scrape.
    scrape.catch(() => scrape = undefined);
    return await (await scrape)();
  };
}

async function createScrape(app: App): Promise<() => Promise<Response>> {
  const prom = await import("prom-client");
  const register = new prom.Registry();
  let figures = await allFigures(app);

  const define = (
    Kind: typeof Counter | typeof Gauge,
    name: string,
    help: string,
    read: (figures: ServerFigures) => Values,
    label?: string,
  ) => {
    new Kind({
      name: name.startsWith("process_") ? name : `parley_${name}`,
      help,
      labelNames: label ? [label] : [],
      registers: [register],
      collect() {
        this.reset();
        const values = read(figures);
        if (typeof values === "number") this.inc(values);
        else for (const [key, value] of Object.entries(values)) this.inc({ [label!]: key }, value);
      },
    });
  };
  const { Counter, Gauge } = prom;
  define(Gauge, "connections", "Clients now.", ({ connections }) => connections, "dialect");
  define(Gauge, "held_connections", "Clients that the runtime holds.", ({ held }) => held);
  define(Gauge, "rooms", "Rooms with subscribers, in each worker.", ({ rooms }) => rooms);
  define(Gauge, "members", "Sockets that have joined, a room each.", ({ members }) => members);
  define(Gauge, "queue_bytes", "Unsent bytes of all sockets.", ({ queueBytes }) => queueBytes);
  define(Gauge, "workers", "Workers that answer.", ({ workers }) => workers);
  define(Counter, "received_messages_total", "Objects received.", (all) => all.messagesIn);
  define(
    Counter,
    "received_bytes_total",
    "Bytes received, of text its length.",
    (all) => all.bytesIn,
  );
  define(Counter, "sent_frames_total", "Frames sent.", (all) => all.framesOut);
  define(Counter, "sent_bytes_total", "Bytes sent, of text its length.", (all) => all.bytesOut);
  define(Counter, "deliveries_total", "Messages, once a subscriber.", (all) => all.deliveries);
  define(Counter, "closes_total", "Closes by the server.", ({ closes }) => {
    const reasons = Object.keys(CLOSE) as (keyof typeof CLOSE)[];
    return Object.fromEntries(
      reasons.map((key) => [CLOSE[key].reason.replaceAll(" ", "_"), closes[key]]),
    );
  }, "reason");
  define(Counter, "refusals_total", "Errors sent.", ({ refusals }) => refusals, "code");
  define(Counter, "recoveries_total", "Rooms resumed.", ({ recoveries }) => recoveries, "result");
  define(
    Counter,
    "key_failures_total",
    "Reads of AUTH_JWKS that failed.",
    (all) => all.keyFailures,
  );
  define(
    Counter,
    "log_dropped_total",
    "Lines of the log that nobody read.",
    (all) => all.logDropped,
  );
  const { name } = app.registry.engineOf("");
  define(Gauge, "engine_ready", "Workers whose engine takes messages.", ({ engineReady }) => ({
    [name]: engineReady,
  }), "engine");
  define(Gauge, "engine_rooms", "Rooms known, empty ones too.", (all) => all.engineRooms);
  define(Gauge, "history_bytes", "Bytes of history.", ({ historyBytes }) => historyBytes);
  if (app.registry.engineOf("").stats().remote) {
    define(Counter, "engine_commands_total", "Commands sent.", (all) => all.engineCommands);
    define(Counter, "engine_reconnects_total", "Reconnects.", (all) => all.engineReconnects);
    define(
      Counter,
      "engine_round_trips_total",
      "Round trips that were measured.",
      (all) => all.engineRoundTrips,
    );
    define(
      Counter,
      "engine_round_trip_seconds_total",
      "Seconds of the measured round trips.",
      (all) => all.engineRoundTripSeconds,
    );
  }
  // What prom-client itself measures of a Node process is wrong or missing in Deno.
  define(Counter, "process_cpu_seconds_total", "CPU time, user and system.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  define(Gauge, "process_start_time_seconds", "Start, in Unix time.", (all) => all.startSeconds);
  define(Gauge, "process_resident_memory_bytes", "Memory of the process.", () => {
    return Deno.memoryUsage().rss;
  });
  const { batchSizes, fanOutSeconds } = app.registry.counters;

  return async () => {
    figures = await allFigures(app);
    const text = await register.metrics() +
      exposeHistogram(
        "parley_batch_messages",
        "Objects in a merged frame.",
        batchSizes.bounds,
        figures.batchMessages,
      ) +
      exposeHistogram(
        "parley_fan_out_seconds",
        "From a message's arrival until it was written, of one in 64.",
        fanOutSeconds.bounds,
        figures.fanOutSeconds,
      );
    return new Response(text, {
      headers: { "content-type": register.contentType, "cache-control": "no-store" },
    });
  };
}

/** prom-client's histogram takes single figures only; these are counted already. */
function exposeHistogram(
  name: string,
  help: string,
  bounds: number[],
  { sum, counts }: ServerFigures["fanOutSeconds"],
): string {
  let total = 0;
  const buckets = [...bounds, "+Inf"].map((bound, i) => {
    total += counts[i];
    return `${name}_bucket{le="${bound}"} ${total}\n`;
  });
  return `\n# HELP ${name} ${help}\n# TYPE ${name} histogram\n${buckets.join("")}` +
    `${name}_sum ${sum}\n${name}_count ${total}\n`;
}
