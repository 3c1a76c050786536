/** The room `_stats`: what this process does, all threads together, once a second, for the dashboard. */
import config from "../../deno.json" with { type: "json" };
import { unavailableReason } from "../access/access.ts";
import type { App } from "../app.ts";
import { allFigures, readFigures, type ServerFigures, STATS_ROOM, thisMachine } from "./metrics.ts";

/** Keeps rates sane where one look comes right behind a late one. */
const MIN_SECONDS = 0.1;
const INTERVAL_MS = 1_000;
/** About the size of a `parley.v1` object around a message of the server's own. */
const OBJECT_BYTES = 120;

/** A second of this process. Who only watches these figures is not in them, but as `watchers`. */
export type Stats = ReturnType<typeof compare> & { host?: string; lagMs: number; rssMb: number };

/** One look at the process: when, by a clock that nobody can set, in ms; `ownBytes` is what its stats took for each watcher. */
type Look = { figures: ServerFigures; at: number; cpuSeconds: number; ownBytes: number };

/** Publishes {@link Stats} each second, until the returned function is called. */
export function publishStats(app: App, machine = thisMachine): () => void {
  const { registry, clock } = app;
  const { host } = machine;
  const look = (figures: ServerFigures): Look => {
    return { figures, at: clock.elapsedMs(), cpuSeconds: machine.cpuSeconds(), ownBytes: 0 };
  };
  let last = look(readFigures(app));
  const publish = (figures: ServerFigures, lagMs: number) => {
    const now = look(figures);
    const rssMb = Math.round(machine.rssBytes() / 100_000) / 10;
    const message = JSON.stringify({ host, lagMs, rssMb, ...compare(app, last, now) });
    now.ownBytes = message.length + OBJECT_BYTES;
    last = now;
    registry.engineOf(STATS_ROOM).publish(STATS_ROOM, { sender: "parley", message });
  };
  return clock.every(INTERVAL_MS, () => {
    const lagMs = Math.max(0, Math.round(clock.elapsedMs() - last.at - INTERVAL_MS));
    if (app.threads) allFigures(app).then((figures) => publish(figures, lagMs));
    else publish(readFigures(app), lagMs);
  });
}

/** What happened between two looks. */
function compare({ registry, limits }: App, before: Look, { figures: now, at, cpuSeconds }: Look) {
  const last = before.figures;
  // A busy process may be late.
  const seconds = Math.max(MIN_SECONDS, (at - before.at) / 1_000);
  // A worker that restarts is not counted meanwhile, and then starts from 0.
  const since = (before: number, after: number) =>
    last.workers === now.workers ? Math.max(0, after - before) : 0;
  const rate = (before: number, after: number, own = 0) =>
    Math.round(Math.max(0, since(before, after) - own) / seconds);
  const { bounds } = registry.counters.fanOutSeconds;
  const counts = [...bounds, "more"].map((_, i) =>
    since(last.fanOutSeconds.counts[i], now.fanOutSeconds.counts[i])
  );
  const watching: Record<string, number> = now.watchers;
  const watchers = total(watching);
  const trips = since(last.roundTrips ?? 0, now.roundTrips ?? 0);
  const tripSeconds = since(last.roundTripSeconds ?? 0, now.roundTripSeconds ?? 0);
  const clients = Object.entries(now.connections)
    .map(([kind, count]) => [kind, count - (watching[kind] ?? 0)] as const);
  return {
    version: config.version,
    upSeconds: Math.max(0, Math.round(registry.clock.now() / 1_000 - now.startSeconds)),
    workers: now.workers,
    /** Clients now, by dialect. */
    connections: Object.fromEntries(clients),
    maxConnections: limits.maxConnections,
    watchers,
    rooms: now.rooms - now.watchedRooms,
    members: now.members,
    /** A second, like the next two. */
    messagesIn: rate(last.messagesIn, now.messagesIn),
    deliveries: rate(last.deliveries, now.deliveries, watchers),
    bytesOut: rate(last.bytesOut, now.bytesOut, watchers * before.ownBytes),
    /** Since the stats before, like the next two. */
    refusals: since(total(last.refusals), total(now.refusals)),
    evictions: since(last.closes.tooSlow, now.closes.tooSlow),
    reconnects: since(total(last.recoveries), total(now.recoveries)),
    queueBytes: now.queueBytes,
    /** The median and the 99th percentile, as bounds of the histogram. */
    fanOutMs: counts.some((count) => count > 0)
      ? { p50: percentile(counts, bounds, 0.5), p99: percentile(counts, bounds, 0.99) }
      : undefined,
    /** Cores in use: 1 is one core's whole second. */
    cpu: Math.round((cpuSeconds - before.cpuSeconds) / seconds * 100) / 100,
    engine: {
      name: registry.engineOf("").name,
      isReady: now.engineReady === now.workers,
      rooms: now.engineRooms,
      historyBytes: now.historyBytes,
      /** To a remote engine and back, on average over the samples. */
      roundTripMs: trips > 0 ? Math.round(tripSeconds / trips * 100_000) / 100 : undefined,
    },
    /** Why no new client is accepted, as `/readyz` says it. */
    shut: unavailableReason(registry),
  };
}

function total(counts: Record<string, number> | number[]): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** The bound, in ms, that a share of the samples is within; the highest one if they exceed all. */
function percentile(samples: number[], bounds: number[], share: number): number {
  let seen = 0;
  const i = samples.findIndex((count) => (seen += count) >= total(samples) * share);
  return Math.round((bounds[i] ?? bounds[bounds.length - 1]) * 1_000_000) / 1_000;
}
