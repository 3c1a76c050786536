/**
 * What a server counts, as numbers that can be added up over the workers of a process.
 *
 * @module
 */
import type { App } from "../app.ts";
import type { Histogram } from "../registry/counters.ts";
import type { Registry } from "../registry/registry.ts";
import { addUp, type Figures, isWorker } from "../start/cluster.ts";

/** The figures of one worker. */
export function readFigures(registry: Registry) {
  const { counters } = registry;
  const engine = registry.engineOf("");
  const { rooms, historyBytes } = engine.stats();
  return {
    messagesIn: counters.messagesIn,
    bytesIn: counters.bytesIn,
    framesOut: counters.framesOut,
    bytesOut: counters.bytesOut,
    deliveries: counters.deliveries,
    held: registry.heldCount,
    /** A room counts once in each worker that hears it. */
    rooms: registry.rooms.size,
    members: counters.members,
    queueBytes: registry.countQueueBytes(),
    engineRooms: rooms,
    historyBytes,
    workers: 1,
    /** Of the process, in Unix time: the main thread's. */
    startSeconds: isWorker() ? 0 : performance.timeOrigin / 1_000,
    engineReady: Number(engine.isReady()),
    connections: { ...counters.connections },
    closes: { ...counters.closes },
    refusals: { ...counters.refusals },
    recoveries: { ...counters.recoveries },
    batchMessages: readHistogram(counters.batchSizes),
    fanOutSeconds: readHistogram(counters.fanOutSeconds),
  };
}

/** The figures of one worker, or of all. */
export type ServerFigures = ReturnType<typeof readFigures>;

/** The figures of the whole process. */
export async function allFigures(app: Pick<App, "registry" | "cluster">): Promise<ServerFigures> {
  const { cluster, registry } = app;
  if (!cluster) return readFigures(registry);
  return addUp(await cluster.figures()) as Figures & ServerFigures;
}

function readHistogram({ counts, sum }: Histogram) {
  return { sum, counts: Object.fromEntries(counts.entries()) };
}
