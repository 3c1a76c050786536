/**
 * The module of the workers in `cluster_test.ts`: each has a workers engine and a room of its own,
 * `worker-{index}`, where it takes orders.
 *
 * @module
 */
import type { HistoryLimits } from "../../handlers/engine/memory.ts";
import { createWorkersEngine } from "../../handlers/engine/workers.ts";
import { isWorker, joinCluster } from "../../handlers/start/cluster.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";

/** What the workers of the test run with. */
export interface ThreadSettings {
  limits: HistoryLimits;
  /** This worker dies before it serves. */
  failing?: number;
}

/** What a worker can be told to do. */
export type Order = "throw" | "reject" | "close" | "hang" | "figures";

if (isWorker()) {
  const { cluster, settings } = await joinCluster<ThreadSettings>(systemClock);
  const { index, ports } = cluster;
  if (settings.failing === index) throw new Error("no port is free");
  const { limits } = settings;
  const engine = createWorkersEngine({ ports, limits, clock: systemClock, log: silentLog });
  const room = `worker-${index}`;
  const say = (text: unknown) =>
    engine.publish("said", { sender: room, message: JSON.stringify(text) });
  const obey: Record<Order, () => unknown> = {
    throw() {
      throw new Error("thrown");
    },
    reject: () => void Promise.reject(new Error("rejected")),
    close: () => self.close(),
    hang() {
      while (true);
    },
    figures: async () => say(await cluster.figures()),
  };
  await engine.host(room, {
    listenerCount: 1,
    deliver(event) {
      if (event.type === "chat") obey[JSON.parse(event.chat.message) as Order]();
    },
  });
  cluster.serve({
    figures: () => ({ index, rooms: engine.stats().rooms }),
    drain: async () => void await say("drained"),
    replacePeer: engine.replacePeer,
  });
}
