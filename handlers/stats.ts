/**
 * The room `_stats`: what this process does, once a second, for the dashboard.
 *
 * @module
 */
import type { App } from "./app.ts";

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
  /** Milliseconds of fan-out at the 50th and 99th percentile of the second's samples; bucket bounds. */
  fanOutMs: { p50: number; p99: number };
  rssMb: number;
  engine: { name: string; isReady: boolean; rooms: number; historyBytes: number };
  isDraining: boolean;
}

/** Publishes {@link Stats} each second; the answer ends it. `rssBytes` measures the process. */
export function publishStats({ registry, clock }: App, rssBytes: () => number): () => void {
  const { counters } = registry;
  const local = registry.engineOf(STATS_ROOM);
  const engine = registry.engineOf("");
  const read = () => ({
    messagesIn: counters.messagesIn,
    deliveries: counters.deliveries,
    bytesOut: counters.bytesOut,
    evictions: counters.closes.tooSlow,
    refusals: Object.values(counters.refusals).reduce((sum, count) => sum + count, 0),
  });
  let last = read();
  let lastCounts = [...counters.fanOutSeconds.counts];
  return clock.every(1_000, () => {
    const now = read();
    const { counts, bounds } = counters.fanOutSeconds;
    const samples = counts.map((count, i) => count - lastCounts[i]);
    const stats: Stats = {
      messagesIn: now.messagesIn - last.messagesIn,
      deliveries: now.deliveries - last.deliveries,
      bytesOut: now.bytesOut - last.bytesOut,
      evictions: now.evictions - last.evictions,
      refusals: now.refusals - last.refusals,
      connections: { ...counters.connections },
      rooms: registry.rooms.size,
      members: registry.countMembers(),
      queueBytes: registry.countQueueBytes(),
      fanOutMs: { p50: percentile(samples, bounds, 0.5), p99: percentile(samples, bounds, 0.99) },
      rssMb: Math.round(rssBytes() / 100_000) / 10,
      engine: { name: engine.name, isReady: engine.isReady(), ...engine.stats() },
      isDraining: registry.isDraining,
    };
    last = now;
    lastCounts = [...counts];
    local.publish(STATS_ROOM, { sender: "parley", message: JSON.stringify(stats) });
  });
}

/** The bound, in ms, that a share of the samples keeps to; 0 without samples. */
function percentile(samples: number[], bounds: number[], share: number): number {
  const total = samples.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  const i = samples.findIndex((count) => (seen += count) >= total * share && total > 0);
  return i < 0 ? 0 : (bounds[i] ?? bounds[bounds.length - 1]) * 1_000;
}
