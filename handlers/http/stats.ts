/**
 * The room `_stats`: what this process does, all workers together, once a second, for the dashboard.
 *
 * @module
 */
import { unavailableReason } from "../access/access.ts";
import type { App } from "../app.ts";
import { allFigures, readFigures, type ServerFigures } from "./metrics.ts";

/** The server's own room that carries {@link Stats}. */
export const STATS_ROOM = "_stats";

/** A clock that was set back must not make rates of nothing. */
const MIN_SECONDS = 0.1;

/** A second of this process. */
export interface Stats {
  /** Clients now, by dialect. */
  connections: Record<string, number>;
  rooms: number;
  members: number;
  /** A second. */
  messagesIn: number;
  deliveries: number;
  bytesOut: number;
  refusals: number;
  /** Closes for being too slow, since the stats before. */
  evictions: number;
  /** Unsent bytes of all sockets now. */
  queueBytes: number;
  /** Milliseconds of fan-out that a half, and 99 of 100, of the second's samples keep to: bounds of the histogram. */
  fanOutMs?: { p50: number; p99: number };
  rssMb: number;
  engine: { name: string; isReady: boolean; rooms: number; historyBytes: number };
  /** Why nobody is let in, as `/readyz` says it; missing while the door is open. */
  shut?: string;
}

/** Publishes {@link Stats} each second; the answer ends it. `rssBytes` measures the process. */
export function publishStats(app: App, rssBytes: () => number): () => void {
  const { registry, clock } = app;
  const local = registry.engineOf(STATS_ROOM);
  let last = readFigures(app);
  let lastAt = clock.now();
  const publish = (now: ServerFigures) => {
    // A busy process is late.
    const seconds = Math.max(MIN_SECONDS, (clock.now() - lastAt) / 1_000);
    const rssMb = Math.round(rssBytes() / 100_000) / 10;
    const stats: Stats = {
      ...compare(app, last, now, seconds),
      rssMb,
      shut: unavailableReason(app.registry),
    };
    last = now;
    lastAt = clock.now();
    local.publish(STATS_ROOM, { sender: "parley", message: JSON.stringify(stats) });
  };
  return clock.every(1_000, () => {
    if (app.threads) allFigures(app).then(publish);
    else publish(readFigures(app));
  });
}

/** What happened between two looks at the figures. */
function compare({ registry }: App, last: ServerFigures, now: ServerFigures, seconds: number) {
  // While a worker is started again it does not count, and then it begins at nothing.
  const since = (before: number, after: number) =>
    last.workers === now.workers ? Math.max(0, after - before) : 0;
  const rate = (before: number, after: number) => Math.round(since(before, after) / seconds);
  const { bounds } = registry.counters.fanOutSeconds;
  const counts = [...bounds, "more"].map((_, i) =>
    since(last.fanOutSeconds.counts[i], now.fanOutSeconds.counts[i])
  );
  const { name } = registry.engineOf("");
  return {
    connections: now.connections,
    rooms: now.rooms,
    members: now.members,
    messagesIn: rate(last.messagesIn, now.messagesIn),
    deliveries: rate(last.deliveries, now.deliveries),
    bytesOut: rate(last.bytesOut, now.bytesOut),
    refusals: rate(total(last.refusals), total(now.refusals)),
    evictions: since(last.closes.tooSlow, now.closes.tooSlow),
    queueBytes: now.queueBytes,
    fanOutMs: counts.some((count) => count > 0)
      ? { p50: percentile(counts, bounds, 0.5), p99: percentile(counts, bounds, 0.99) }
      : undefined,
    engine: {
      name,
      isReady: now.engineReady === now.workers,
      rooms: now.engineRooms,
      historyBytes: now.historyBytes,
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
