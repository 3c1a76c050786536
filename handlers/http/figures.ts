/**
 * What a server counts, as numbers that can be added up over the workers of a process.
 *
 * @module
 */
import type { App } from "../app.ts";
import type { Histogram } from "../registry/counters.ts";

/** What one thread counts: numbers, which {@link addUp} adds. */
export type Figures = { [name: string]: number | Figures };

/** The sum of what several threads count, name by name. */
export function addUp(all: Figures[]): Figures {
  const sums: Figures = {};
  for (const [name, value] of all.flatMap((figures) => Object.entries(figures))) {
    const sum = sums[name] ?? 0;
    sums[name] = typeof value === "number"
      ? Number(sum) + value
      : addUp([typeof sum === "number" ? {} : sum, value]);
  }
  return sums;
}

/** The figures of this thread. */
export function readFigures({ registry, threads }: Pick<App, "registry" | "threads">) {
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
    startSeconds: threads && threads.index > 0 ? 0 : performance.timeOrigin / 1_000,
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
export async function allFigures(
  app: Pick<App, "registry" | "threads">,
): Promise<ServerFigures> {
  const own = readFigures(app);
  return await app.threads?.report(own) as Figures & ServerFigures | undefined ?? own;
}

function readHistogram({ counts, sum }: Histogram) {
  return { sum, counts: Object.fromEntries(counts.entries()) };
}
