/**
 * An engine in a real worker, shared over the ports that it is sent.
 *
 * @module
 */
import type { Engine } from "../../handlers/engine/engine.ts";
import { createMemoryEngine, type HistoryLimits } from "../../handlers/engine/memory.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { remoteEngine, shareEngine } from "../../handlers/engine/remote.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import type { Cluster } from "./contract.ts";

/** What the worker makes its engine of; memory, where it has no `redisUrl`. */
interface EngineOptions {
  limits: HistoryLimits;
  redisUrl?: string;
}

/** Starts a worker that owns the engine; the nodes are remote engines of this thread. */
export async function startOwner(options: EngineOptions): Promise<Required<Cluster>> {
  const worker = new Worker(import.meta.url, { type: "module" });
  const channels = [new MessageChannel(), new MessageChannel(), new MessageChannel()];
  worker.postMessage(options, channels.map(({ port2 }) => port2));
  const [control, ...ports] = channels.map(({ port1 }) => port1);
  const nodes = ports.map((port) => remoteEngine(port));
  // The owner's state comes before its first answer.
  for (const node of nodes) await node.members("any");
  const closed = new Promise((resolve) => control.onmessage = resolve);
  return {
    nodes,
    async stop() {
      control.postMessage("close");
      await closed;
      control.close();
      worker.terminate();
    },
  };
}

async function serve({ limits, redisUrl }: EngineOptions, all: readonly MessagePort[]) {
  const [control, ...ports] = all;
  const engine: Engine = redisUrl
    ? await createRedisEngine(redisUrl, limits, systemClock, silentLog)
    : createMemoryEngine(limits, systemClock);
  const shared = shareEngine(engine);
  for (const port of ports) shared.serve(port);
  control.onmessage = async () => {
    await shared.close();
    control.postMessage("closed");
  };
}

if ("WorkerGlobalScope" in globalThis) {
  addEventListener("message", (event) => {
    const { data, ports } = event as MessageEvent<EngineOptions>;
    serve(data, ports);
  }, { once: true });
}
