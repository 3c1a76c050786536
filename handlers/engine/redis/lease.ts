/** A node's lease in Redis: it tells the nodes that live from those that died, for all rooms at once. */
import type { Clock } from "../../util/clock.ts";
import { LEASE_MS } from "./scripts/nodes.ts";

/** Keeps a node's lease, and what it has seen of the other nodes'. */
export class Lease {
  /** The nodes with a lease, as one text, and the Unix ms at which that was seen; 0: not to be used. */
  readonly live = { nodes: "", seenAt: 0 };
  /** Since when every renewal has succeeded, by {@link Clock.elapsedMs}. */
  #since?: number;
  #hadOne = false;
  /** The nodes that were seen at the last renewal, if that could be used. */
  #seen?: string[];

  /** @param renew runs the script; resolves to `undefined` if no answer came */
  constructor(readonly clock: Clock, readonly renew: () => Promise<unknown>) {}

  get isLost(): boolean {
    return this.#since === undefined;
  }

  /**
   * Renews the lease. While Redis was away no node could, so what is seen is used only when the others
   * have had the time of a lease to come back. Returns whether the lease had ended, so that other nodes
   * may have removed this one, and whether a node may have died since the last renewal.
   */
  async keep(): Promise<{ hasEnded: boolean; isNodeGone: boolean }> {
    const answer = await this.renew();
    if (!Array.isArray(answer)) {
      this.#since = undefined;
      this.live.seenAt = 0;
      this.#seen = undefined;
      return { hasEnded: false, isNodeGone: false };
    }
    const [hadNone, now, ...nodes] = answer;
    this.#since ??= this.clock.elapsedMs();
    const isUsable = this.clock.elapsedMs() - this.#since > LEASE_MS;
    Object.assign(this.live, { nodes: nodes.join(" "), seenAt: isUsable ? now : 0 });
    const hasEnded = this.#hadOne && hadNone === 1;
    this.#hadOne = true;
    const isNodeGone = isUsable && (this.#seen?.some((node) => !nodes.includes(node)) ?? true);
    this.#seen = isUsable ? nodes : undefined;
    return { hasEnded, isNodeGone };
  }
}
