/** What the rooms of a node need of it. */
import type { Clock } from "../../util/clock.ts";
import type { RedisRoom } from "./room.ts";
import type { RunScript } from "./run_script.ts";

/** The node that a room is on. */
export interface RedisNode {
  /** Identifies it among all nodes. */ readonly id: string;
  readonly clock: Clock;
  /** The nodes with a lease, as one text, and the Unix ms at which that was seen; 0: not to be used. */
  readonly live: { nodes: string; seenAt: number };
  /** What `_events` is to hear; empty for nothing. */ readonly events: string;
  readonly run: RunScript;
  /** Publishes what the room's outbox has. */
  flush(room: RedisRoom): Promise<void>;
  /** Rooms that must be synced: at once if they deliver nothing before, else at their `endsAt`. */
  readonly due: Set<RedisRoom>;
}
