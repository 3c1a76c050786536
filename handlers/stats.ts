/**
 * The room `_stats`: what this process does, all workers together, once a second, for the dashboard.
 *
 * @module
 */
import type { App } from "./app.ts";
import { allFigures, readFigures, type ServerFigures } from "./figures.ts";

/** The server's own room that carries {@link Stats}. */
export const STATS_ROOM = "_stats";

/** A second of this process. */
export interface Stats {
  /** Clients now, by dialect. */
  connections: Record<string, number>;
  rooms: number;
  members: number;
  /** In the last second. */
  messagesIn: number;
  deliveries: number;
  bytesOut: number;
  /** Closes for being too slow, in the last second. */
  evictions: number;
  refusals: number;
  /** Unsent bytes of all sockets now. */
  queueBytes: number;
  /** Milliseconds of fan-out that a half, and 99 of 100, of the second's samples keep to: bounds of the histogram. */
  fanOutMs?: { p50: number; p99: number };
  rssMb: number;
  engine: { name: string; isReady: boolean; rooms: number; historyBytes: number };
  isDraining: boolean;
}

/** Publishes {@link Stats} each second; the answer ends it. `rssBytes` measures the process. */
export function publishStats(app: App, rssBytes: () => number): () => void {
  const { registry, clock } = app;
  const local = registry.engineOf(STATS_ROOM);
  let last = readFigures(registry);
  const publish = (now: ServerFigures) => {
    const rssMb = Math.round(rssBytes() / 100_000) / 10;
    const stats: Stats = { ...compare(app, last, now), rssMb, isDraining: registry.isDraining };
    last = now;
    local.publish(STATS_ROOM, { sender: "parley", message: JSON.stringify(stats) });
  };
  return clock.every(1_000, () => {
    if (app.cluster) allFigures(app).then(publish);
    else publish(readFigures(registry));
  });
}

/** What happened between two looks at the figures. */
function compare({ registry }: App, last: ServerFigures, now: ServerFigures) {
  const { bounds } = registry.counters.fanOutSeconds;
  const counts = [...bounds, "more"].map((_, i) =>
    now.fanOutSeconds.counts[i] - last.fanOutSeconds.counts[i]
  );
  const { name } = registry.engineOf("");
  return {
    connections: now.connections,
    rooms: now.rooms,
    members: now.members,
    messagesIn: now.messagesIn - last.messagesIn,
    deliveries: now.deliveries - last.deliveries,
    bytesOut: now.bytesOut - last.bytesOut,
    evictions: now.closes.tooSlow - last.closes.tooSlow,
    refusals: total(now.refusals) - total(last.refusals),
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
