/**
 * The room `_stats`: what this process does, all workers together, once a second, for the dashboard.
 */
import process from "node:process";
import config from "../../deno.json" with { type: "json" };
import { unavailableReason } from "../access/access.ts";
import type { App } from "../app.ts";
import { allFigures, readFigures, type ServerFigures, STATS_ROOM } from "./metrics.ts";

export { STATS_ROOM };

/** A clock that was set back must not make rates of nothing. */
const MIN_SECONDS = 0.1;
const INTERVAL_MS = 1_000;
/** About what a `parley.v1` object has around a message of the server's own. */
const OBJECT_BYTES = 120;

/** A second of this process. Who only watches these figures is not in them, but as `watchers`. */
export interface Stats {
  version: string;
  /** The machine's name, where it may be read. */
  host?: string;
  upSeconds: number;
  /** Threads that serve clients. */
  workers: number;
  /** Clients now, by dialect. */
  connections: Record<string, number>;
  maxConnections: number;
  watchers: number;
  rooms: number;
  members: number;
  /** A second. */
  messagesIn: number;
  deliveries: number;
  bytesOut: number;
  /** Since the stats before: errors sent, closes for being too slow, rooms resumed by who came back. */
  refusals: number;
  evictions: number;
  reconnects: number;
  /** Unsent bytes of all sockets now. */
  queueBytes: number;
  /** Milliseconds of fan-out that a half, and 99 of 100, of the second's samples keep to: bounds of the histogram. */
  fanOutMs?: { p50: number; p99: number };
  /** How late the event loop was for these stats. */
  lagMs: number;
  /** Cores in use: 1 is one core's whole second. */
  cpu: number;
  rssMb: number;
  engine: {
    name: string;
    isReady: boolean;
    rooms: number;
    historyBytes: number;
    /** To a remote engine and back, in ms, on average over the second's samples. */
    roundTripMs?: number;
  };
  /** Why nobody is let in, as `/readyz` says it; missing while clients are. */
  shut?: string;
}

/** What {@link publishStats} asks of the process. */
export interface Machine {
  rssBytes(): number;
  /** Processor time since the start. */
  cpuSeconds(): number;
  host?: string;
}

/** The process that runs this. */
export const thisMachine: Machine = {
  rssBytes: () => Deno.memoryUsage().rss,
  cpuSeconds() {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  },
  get host() {
    // To ask without the permission would ask the person who started the server.
    const { state } = Deno.permissions.querySync({ name: "sys", kind: "hostname" });
    return state === "granted" ? Deno.hostname() : undefined;
  },
};

/** Publishes {@link Stats} each second; the answer ends it. */
export function publishStats(app: App, machine: Machine): () => void {
  const { registry, clock } = app;
  const local = registry.engineOf(STATS_ROOM);
  const { host } = machine;
  let last = readFigures(app);
  let lastAt = clock.now();
  let lastCpu = machine.cpuSeconds();
  let lastBytes = 0;
  const publish = (now: ServerFigures, lagMs: number) => {
    const at = clock.now();
    const cpuSeconds = machine.cpuSeconds();
    // A busy process is late.
    const seconds = Math.max(MIN_SECONDS, (at - lastAt) / 1_000);
    const stats: Stats = {
      version: config.version,
      host,
      upSeconds: Math.max(0, Math.round(at / 1_000 - now.startSeconds)),
      ...compare(app, last, now, seconds, lastBytes),
      lagMs,
      cpu: Math.round((cpuSeconds - lastCpu) / seconds * 100) / 100,
      rssMb: Math.round(machine.rssBytes() / 100_000) / 10,
      shut: unavailableReason(app.registry),
    };
    last = now;
    lastAt = at;
    lastCpu = cpuSeconds;
    const message = JSON.stringify(stats);
    lastBytes = message.length + OBJECT_BYTES;
    local.publish(STATS_ROOM, { sender: "parley", message });
  };
  return clock.every(INTERVAL_MS, () => {
    const lagMs = Math.max(0, Math.round(clock.now() - lastAt - INTERVAL_MS));
    if (app.threads) allFigures(app).then((figures) => publish(figures, lagMs));
    else publish(readFigures(app), lagMs);
  });
}

/** What happened between two looks at the figures; the last stats had `ownBytes` for each watcher. */
function compare(
  { registry, limits }: App,
  last: ServerFigures,
  now: ServerFigures,
  seconds: number,
  ownBytes: number,
) {
  // While a worker is started again it does not count, and then it begins at nothing.
  const since = (before: number, after: number) =>
    last.workers === now.workers ? Math.max(0, after - before) : 0;
  const rate = (before: number, after: number, own = 0) =>
    Math.round(Math.max(0, since(before, after) - own) / seconds);
  const { bounds } = registry.counters.fanOutSeconds;
  const counts = [...bounds, "more"].map((_, i) =>
    since(last.fanOutSeconds.counts[i], now.fanOutSeconds.counts[i])
  );
  const { name } = registry.engineOf("");
  const watchers = total(now.watchers);
  const trips = since(last.engineRoundTrips, now.engineRoundTrips);
  const tripSeconds = since(last.engineRoundTripSeconds, now.engineRoundTripSeconds);
  return {
    workers: now.workers,
    connections: Object.fromEntries(
      Object.entries(now.connections).map((
        [kind, count],
      ) => [kind, count - ((now.watchers as Record<string, number>)[kind] ?? 0)]),
    ),
    maxConnections: limits.maxConnections,
    watchers,
    rooms: now.rooms - now.watchedRooms,
    members: now.members,
    messagesIn: rate(last.messagesIn, now.messagesIn),
    deliveries: rate(last.deliveries, now.deliveries, watchers),
    bytesOut: rate(last.bytesOut, now.bytesOut, watchers * ownBytes),
    refusals: since(total(last.refusals), total(now.refusals)),
    evictions: since(last.closes.tooSlow, now.closes.tooSlow),
    reconnects: since(total(last.recoveries), total(now.recoveries)),
    queueBytes: now.queueBytes,
    fanOutMs: counts.some((count) => count > 0)
      ? { p50: percentile(counts, bounds, 0.5), p99: percentile(counts, bounds, 0.99) }
      : undefined,
    engine: {
      name,
      isReady: now.engineReady === now.workers,
      rooms: now.engineRooms,
      historyBytes: now.historyBytes,
      roundTripMs: trips > 0 ? Math.round(tripSeconds / trips * 100_000) / 100 : undefined,
    },
  };
}

function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** The bound, in ms, that a share of the samples keeps to; the highest bound for what is above all. */
function percentile(samples: number[], bounds: number[], share: number): number {
  const total = samples.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  const i = samples.findIndex((count) => (seen += count) >= total * share);
  return Math.round((bounds[i] ?? bounds[bounds.length - 1]) * 1_000_000) / 1_000;
}
