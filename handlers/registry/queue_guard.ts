/** Bounds what is unsent to all clients together: near QUEUE_MB each may have less. */
import type { Registry } from "./registry.ts";

const LOOK_MS = 500;
/** However much is unsent in sum, one client may have so many bytes. */
const MIN_BYTES = 65_536;

/**
 * Looks twice a second at what is unsent, to evicted peers too while the runtime holds it. Up to a half
 * of QUEUE_MB a client may have MAX_QUEUE_BYTES; from there on its limit falls with what is left.
 * @returns ends the watch
 */
export function guardQueues(registry: Registry): () => void {
  const { clock, clients, holders, limits: { maxQueueBytes, queueMb } } = registry;
  const totalBytes = queueMb * 1_000_000;
  return clock.every(LOOK_MS, () => {
    let sum = 0;
    for (const holder of holders) {
      if (!holder.mayBeUnsent) continue;
      const { unsentBytes } = holder;
      holder.mayBeUnsent = unsentBytes > 0;
      sum += unsentBytes;
    }
    const share = Math.max(0, Math.min(1, 2 - 2 * sum / totalBytes));
    const limit = Math.max(MIN_BYTES, Math.floor(maxQueueBytes * share));
    registry.queueLimit = Math.min(maxQueueBytes, limit);
    if (share === 1) return;
    for (const client of [...clients]) {
      if (client.unsentBytes > registry.queueLimit) client.close("tooSlow");
    }
  });
}
