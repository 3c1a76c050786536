/** Several threads on one port: the main one, 0, has the engine and serves too (`workers.ts`). */
import type { SharedLimits } from "../access/shared_limits.ts";
import type { Threads } from "../app.ts";
import { Channel } from "../engine/channel.ts";
import { isRefusal, type Refusal } from "../engine/engine.ts";
import type { Parley } from "../parley.ts";
import type { Figures } from "../registry/counters.ts";
import type { Clock } from "../util/clock.ts";

/** A server that listens. */
export interface Running {
  parley: Parley;
  /** How many clients there are, in all threads. */
  clientCount(): number;
  /** Where it listens: `http://127.0.0.1:8000`, or the path of its socket. */
  address: string;
  /** Drains it, then ends it. */
  stop(): Promise<void>;
}

/** What the main thread asks a worker. */
export interface WorkerCalls {
  stop(): Promise<void>;
}

/** What a worker asks the main thread. */
export interface MainCalls
  extends Pick<SharedLimits, "acquire" | "release" | "trySend" | "tryPublish"> {
  ready(): void;
  report(figures: Figures): { all: Figures[]; isFull: boolean };
}

/** What the names of the workers begin with; their index follows. */
export const WORKER_NAME = "parley ";
/** What a message or a request to publish is told to wait while the main thread takes none. */
const RETRY_MS = 1_000;

/** Whether this thread is a worker, which has to call {@link joinThreads}. */
export function isWorker(): boolean {
  return "WorkerGlobalScope" in globalThis && self.name.startsWith(WORKER_NAME);
}

/**
 * In a worker: waits for its settings and its ports, for control and engine. When it serves it is to
 * call `ready`, with what drains and ends it.
 */
export async function joinThreads<Settings>(clock: Clock) {
  const first = Promise.withResolvers<Event>();
  addEventListener("message", first.resolve, { once: true });
  const { data: settings, ports: [control, port] } = await first.promise as MessageEvent<Settings>;
  const { remoteEngine } = await import("../engine/remote.ts");
  const running = Promise.withResolvers<Pick<Running, "stop">>();
  let isFull = false;
  const retryMs = (ms: number | Refusal) => isRefusal(ms) ? RETRY_MS : ms;
  const channel = new Channel<WorkerCalls, MainCalls>(control, {
    calls: { stop: async () => (await running.promise).stop() },
  });
  const limits: SharedLimits = {
    async acquire(...client) {
      const noSlot = await channel.call("acquire", ...client);
      return isRefusal(noSlot) ? "full" : noSlot;
    },
    release: (...client) => channel.notify("release", ...client),
    get isFull() {
      return isFull;
    },
    trySend: async (user) => retryMs(await channel.call("trySend", user)),
    tryPublish: async (...post) => retryMs(await channel.call("tryPublish", ...post)),
  };
  const report = async (figures: Figures) => {
    const answer = await channel.call("report", figures);
    if (isRefusal(answer)) return [figures];
    isFull = answer.isFull;
    return answer.all;
  };
  const index = Number(self.name.slice(WORKER_NAME.length));
  const threads: Threads = { index, engine: remoteEngine(port, clock), limits, report };
  return {
    threads,
    settings,
    ready(thread: Pick<Running, "stop">) {
      running.resolve(thread);
      channel.notify("ready");
    },
  };
}
