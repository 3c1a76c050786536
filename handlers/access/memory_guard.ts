/**
 * Watches the memory of the process: shuts the door over MAX_RSS_MB, and gives garbage back.
 *
 * @module
 */
import type { Registry } from "../registry/registry.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";

const GUARD_MS = 500;
/** An empty server that has grown so much since the last collection collects again. */
const GROWTH = 1.2;
/** While the door is shut for memory, garbage is collected no more often than this. */
const SHUT_MS = 10_000;

/** The process as the guard sees it; tests give another. */
export interface Memory {
  /** Resident bytes. */
  rss(): number;
  /** Collects all garbage of this thread, if the runtime lets it. */
  collect(): Promise<void>;
}

/** V8's own collector. It is loaded at its first use: that takes some 50 ms. */
export const processMemory: Memory = {
  rss: () => Deno.memoryUsage().rss,
  async collect() {
    try {
      const [{ default: v8 }, { default: vm }] = await Promise.all([
        import("node:v8"),
        import("node:vm"),
      ]);
      v8.setFlagsFromString("--expose-gc");
      vm.runInNewContext("gc")();
    } catch {
      // A host without flags of V8: it collects when it likes.
    }
  },
};

/** What the guard works with. */
export interface MemoryGuardOptions {
  registry: Registry;
  /** MAX_RSS_MB; 0 is no bound. */
  maxMb: number;
  clock: Clock;
  log: Log;
  memory?: Memory;
}

/**
 * Looks twice a second. V8 collects as it allocates, so after a crowd has gone its garbage would
 * stay, and a door that is shut for memory would let nobody in whose allocations could open it.
 *
 * @returns ends the watch
 */
export function guardMemory(
  { registry, maxMb, clock, log, memory = processMemory }: MemoryGuardOptions,
): () => void {
  let level = memory.rss();
  let collectedAt = 0;
  const isDue = (rss: number) =>
    registry.isOverMemory
      ? clock.now() - collectedAt >= SHUT_MS
      : registry.heldCount === 0 && rss > GROWTH * level;
  const look = async () => {
    const rss = memory.rss();
    registry.isOverMemory = maxMb > 0 && rss > maxMb * 1_000_000;
    if (!isDue(rss)) return;
    collectedAt = clock.now();
    await memory.collect();
    level = memory.rss();
    log.debug?.(`Collected garbage: ${rss} bytes resident, now ${level}`, { event: "collected" });
  };
  look();
  return clock.every(GUARD_MS, look);
}
