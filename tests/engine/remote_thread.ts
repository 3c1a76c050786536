/**
 * A memory engine in a real worker, shared over the ports that it is sent.
 *
 * @module
 */
import { createMemoryEngine, type HistoryLimits } from "../../handlers/engine/memory.ts";
import { remoteEngine } from "../../handlers/engine/remote.ts";
import { shareEngine } from "../../handlers/engine/shared.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import type { Cluster } from "./contract.ts";

/** Starts a worker that owns a memory engine; the nodes are remote engines of this thread. */
export async function startOwner(limits: HistoryLimits): Promise<Required<Cluster>> {
  const worker = new Worker(import.meta.url, { type: "module" });
  const channels = [new MessageChannel(), new MessageChannel(), new MessageChannel()];
  worker.postMessage(limits, channels.map(({ port2 }) => port2));
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

function serve(limits: HistoryLimits, [control, ...ports]: readonly MessagePort[]): void {
  const shared = shareEngine(createMemoryEngine(limits, systemClock));
  for (const port of ports) shared.serve(port);
  control.onmessage = async () => {
    await shared.close();
    control.postMessage("closed");
  };
}

if ("WorkerGlobalScope" in globalThis) {
  addEventListener("message", (event) => {
    const { data, ports } = event as MessageEvent<HistoryLimits>;
    serve(data, ports);
  }, { once: true });
}
