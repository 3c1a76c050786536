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

/** The process that runs this. */
export const thisMachine = {
  rssBytes: () => Deno.memoryUsage().rss,
  /** Processor time since the start. */
  cpuSeconds() {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  },
  get host(): string | undefined {
    // To ask without the permission would ask the person who started the server.
    const { state } = Deno.permissions.querySync({ name: "sys", kind: "hostname" });
    return state === "granted" ? Deno.hostname() : undefined;
  },
};

/** What has figures. */
type FiguresOf = Pick<App, "registry" | "threads" | "authorize" | "log">;

/** The figures of this thread. */
export function readFigures({ registry, threads, authorize, log }: FiguresOf) {
  const { batchSizes, fanOutSeconds, ...counts } = registry.counters;
  const engine = registry.engineOf("");
  const { rooms, historyBytes, remote } = engine.stats();
  return {
    ...structuredClone(counts),
    batchMessages: readHistogram(batchSizes),
    fanOutSeconds: readHistogram(fanOutSeconds),
    held: registry.heldCount,
    /** A room counts once in each worker that has subscribers of it. */
    rooms: registry.rooms.size,
    /** Clients that hear {@link STATS_ROOM} alone, by kind, and whether there is any. */
    watchers: registry.rooms.get(STATS_ROOM)?.exclusiveCounts() ?? {},
    watchedRooms: Number(registry.rooms.has(STATS_ROOM)),
    queueBytes: registry.countQueueBytes(),
    engineRooms: rooms,
    historyBytes,
    engine: { commands: 0, reconnects: 0, roundTrips: 0, roundTripSeconds: 0, ...remote },
    keyFailures: authorize?.figures?.keyFailures ?? 0,
    logDropped: log.droppedCount ?? 0,
    workers: 1,
    /** Of the process, in Unix time; only the main thread has it. */
    startSeconds: threads && threads.index > 0 ? 0 : performance.timeOrigin / 1_000,
    engineReady: Number(engine.isReady()),
  };
}

/** The figures of one worker, or of all. */
export type ServerFigures = ReturnType<typeof readFigures>;

/** The figures that only grow. */
const TOTALS: (keyof ServerFigures)[] = [
  ...["messagesIn", "bytesIn", "framesOut", "bytesOut", "deliveries"] as const,
  ...["keyFailures", "logDropped", "closes", "refusals", "recoveries"] as const,
  ...["hookCalls", "hookSeconds"] as const,
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

  const define =
    (Kind: typeof Counter | typeof Gauge) =>
    (name: string, help: string, read: (figures: ServerFigures) => Values, label?: string) =>
      void new Kind({
        name: name.startsWith("process_") ? name : `parley_${name}`,
        help,
        labelNames: label ? [label] : [],
        registers: [register],
        collect() {
          this.reset();
          const values = read(figures);
          if (typeof values === "number") this.inc(values);
          else {for (const [key, value] of Object.entries(values)) {
              this.inc({ [label!]: key }, value);
            }}
        },
      });
  const gauge = define(prom.Gauge);
  const counter = define(prom.Counter);
  gauge("connections", "Clients now.", ({ connections }) => connections, "dialect");
  gauge("held_connections", "Clients that the runtime holds.", ({ held }) => held);
  gauge("rooms", "Rooms with subscribers, in each worker.", ({ rooms }) => rooms);
  gauge("members", "Sockets that have joined, a room each.", ({ members }) => members);
  gauge("queue_bytes", "Unsent bytes of all sockets.", ({ queueBytes }) => queueBytes);
  gauge("workers", "Workers that answer.", ({ workers }) => workers);
  counter("received_messages_total", "Objects received.", (all) => all.messagesIn);
  counter("received_bytes_total", "Bytes received, of text its length.", (all) => all.bytesIn);
  counter("sent_frames_total", "Frames sent.", (all) => all.framesOut);
  counter("sent_bytes_total", "Bytes sent, of text its length.", (all) => all.bytesOut);
  counter("deliveries_total", "Messages, once a subscriber.", (all) => all.deliveries);
  counter("closes_total", "Closes by the server.", ({ closes }) => {
    const named = Object.entries(CLOSE).map(([why, { reason }]) =>
      [reason.replaceAll(" ", "_"), closes[why as keyof typeof CLOSE]] as const
    );
    return Object.fromEntries(named);
  }, "reason");
  counter("refusals_total", "Errors sent.", ({ refusals }) => refusals, "code");
  counter("recoveries_total", "Rooms resumed.", ({ recoveries }) => recoveries, "result");
  counter("key_failures_total", "Reads of the public keys that failed.", (all) => all.keyFailures);
  counter("log_dropped_total", "Lines of the log that nobody read.", (all) => all.logDropped);
  counter("hook_calls_total", "Hooks that answered later.", (all) => all.hookCalls, "outcome");
  counter("hook_seconds_total", "Seconds that they took.", ({ hookSeconds }) => hookSeconds);
  gauge("hook_waiting", "Hooks that have not answered.", ({ hookWaiting }) => hookWaiting);
  const engine = app.registry.engineOf("");
  const isReady = (all: ServerFigures) => ({ [engine.name]: all.engineReady });
  gauge("engine_ready", "Workers whose engine takes messages.", isReady, "engine");
  gauge("engine_rooms", "Rooms known, empty ones too.", (all) => all.engineRooms);
  gauge("history_bytes", "Bytes of history.", ({ historyBytes }) => historyBytes);
  if (engine.stats().remote) {
    counter("engine_commands_total", "Commands sent.", (all) => all.engine.commands);
    counter("engine_reconnects_total", "Reconnects.", (all) => all.engine.reconnects);
    counter("engine_round_trips_total", "Round trips measured.", (all) => all.engine.roundTrips);
    const seconds = (all: ServerFigures) => all.engine.roundTripSeconds;
    counter("engine_round_trip_seconds_total", "Seconds of the measured round trips.", seconds);
  }
  // What prom-client itself measures of a Node process is wrong or missing in Deno.
  counter("process_cpu_seconds_total", "CPU time, user and system.", thisMachine.cpuSeconds);
  gauge("process_start_time_seconds", "Start, in Unix time.", (all) => all.startSeconds);
  gauge("process_resident_memory_bytes", "Memory of the process.", thisMachine.rssBytes);
  const { batchSizes, fanOutSeconds } = app.registry.counters;
  const fanOutHelp = "From a message's arrival until it was written, of one in 64.";

  return async () => {
    figures = await allFigures(app);
    const { batchMessages, fanOutSeconds: times } = figures;
    const text = await register.metrics() +
      expose("batch_messages", "Objects in a merged frame.", batchSizes.bounds, batchMessages) +
      expose("fan_out_seconds", fanOutHelp, fanOutSeconds.bounds, times);
    return new Response(text, { headers: { "content-type": register.contentType } });
  };
}

/** prom-client's histogram takes single figures only; these are counted already. */
function expose(
  name: string,
  help: string,
  bounds: number[],
  { sum, counts }: ServerFigures["fanOutSeconds"],
): string {
  let total = 0;
  const buckets = [...bounds, "+Inf"].map((bound, i) => {
    total += counts[i];
    return `parley_${name}_bucket{le="${bound}"} ${total}\n`;
  });
  return `\n# HELP parley_${name} ${help}\n# TYPE parley_${name} histogram\n` +
    `${buckets.join("")}parley_${name}_sum ${sum}\nparley_${name}_count ${total}\n`;
}
