/**
 * Memory engines in a real worker, shared over the ports that it is sent.
 *
 * @module
 */
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import type { HistoryLimits } from "../../handlers/engine/room_rules.ts";
import { remoteEngine } from "../../handlers/engine/remote.ts";
import { shareEngine } from "../../handlers/engine/shared.ts";
import { FakeClock } from "../support/fakes.ts";
import type { Cluster } from "./contract.ts";

/** One worker, with an engine for each test. */
const worker = "WorkerGlobalScope" in globalThis
  ? undefined
  : new Worker(import.meta.url, { type: "module" });

/** Has the worker own another memory engine; the nodes are remote engines of this thread. */
export async function startOwner(limits: HistoryLimits): Promise<Cluster> {
  const channels = [new MessageChannel(), new MessageChannel(), new MessageChannel()];
  worker!.postMessage(limits, channels.map(({ port2 }) => port2));
  const [control, ...ports] = channels.map(({ port1 }) => port1);
  const nodes = ports.map((port) => remoteEngine(port));
  // The owner's state comes before its first answer.
  for (const node of nodes) await node.members("any");
  const closed = new Promise((resolve) => control.onmessage = resolve);
  return {
    nodes,
    pass: (ms) => control.postMessage(ms),
    async stop() {
      control.postMessage("close");
      await closed;
      control.close();
    },
  };
}

function serve(limits: HistoryLimits, [control, ...ports]: readonly MessagePort[]): void {
  const clock = new FakeClock(Date.now());
  const shared = shareEngine(createMemoryEngine(limits, clock));
  for (const port of ports) shared.serve(port);
  control.onmessage = async ({ data }) => {
    if (data !== "close") return clock.tick(data);
    await shared.close();
    control.postMessage("closed");
    control.close();
  };
}

if (!worker) {
  addEventListener("message", (event) => {
    const { data, ports } = event as MessageEvent<HistoryLimits>;
    serve(data, ports);
  });
}
