/** Watches the memory of the process: lets no new client in above MAX_RSS_MB, and collects garbage. */
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";

const GUARD_MS = 500;
/** A server without clients that has grown by this factor since the last collection collects again. */
const GROWTH = 1.2;
/** While the server is over its memory, garbage is collected no more often than this. */
const COLLECT_MS = 10_000;

/** The process as the guard sees it: its resident bytes, and V8's own collector of this thread's garbage. */
export const processMemory = {
  rss: (): number => Deno.memoryUsage().rss,
  async collect(): Promise<void> {
    // Loaded at its first use, which takes some 50 ms.
    try {
      (await import("node:v8")).setFlagsFromString("--expose-gc");
      (await import("node:vm")).runInNewContext("gc")();
    } catch {
      // A host without V8's flags collects when it likes.
    }
  },
};

interface Guarded {
  isOverMemory: boolean;
  readonly heldCount: number;
  readonly limits: { maxRssMb: number };
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Looks twice a second. V8 collects as it allocates: without this the garbage of a crowd that has left
 * would stay, and a server that lets nobody in for lack of memory would never have reason to collect.
 * @returns stops the watch
 */
export function guardMemory(registry: Guarded, memory = processMemory): () => void {
  const { clock, log, limits: { maxRssMb } } = registry;
  let level = memory.rss();
  let collectedAt = -Infinity;
  const isDue = (rss: number) =>
    registry.isOverMemory
      ? clock.elapsedMs() - collectedAt >= COLLECT_MS
      : registry.heldCount === 0 && rss > GROWTH * level;
  const look = async () => {
    const rss = memory.rss();
    registry.isOverMemory = maxRssMb > 0 && rss > maxRssMb * 1_000_000;
    if (!isDue(rss)) return;
    collectedAt = clock.elapsedMs();
    await memory.collect();
    level = memory.rss();
    log.debug?.(`Collected garbage: ${rss} bytes resident, now ${level}`, { event: "collected" });
  };
  look();
  return clock.every(GUARD_MS, look);
}
