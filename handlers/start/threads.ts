/**
 * Several threads in one process, all on one port, as one of them sees the others. The main thread, 0,
 * has the engine and serves clients too (`workers.ts`).
 *
 * @module
 */
import type { SharedLimits } from "../access/shared_limits.ts";
import { Channel } from "../engine/channel.ts";
import { type Engine, isRefusal } from "../engine/engine.ts";
import type { Parley } from "../parley.ts";
import type { Figures } from "../registry/counters.ts";
import type { Clock } from "../util/clock.ts";

/** The threads of the process, as one of them sees the others. */
export interface Threads {
  /** Which of them this one is; the main thread is 0. */
  readonly index: number;
  /** The engine that all of them use. */
  readonly engine: Engine;
  /** The limits that count for all of them. */
  readonly limits: SharedLimits;
  /**
   * Reports what this one counts, once a second at least: it is its sign of life. Answers the sum of
   * all, of the others as they reported last.
   */
  report(figures: Figures): Promise<Figures>;
}

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

/** What the main thread answers a report with. */
export interface Report {
  sum: Figures;
  isFull: boolean;
}

/** What a worker asks the main thread. */
export interface MainCalls {
  ready(): void;
  report(figures: Figures): Report;
  acquire: SharedLimits["acquire"];
  release: SharedLimits["release"];
  tryPublish: SharedLimits["tryPublish"];
}

/** The first message to a worker; its ports, for control and engine, come with it. */
export interface Start<Settings> {
  index: number;
  settings: Settings;
}

/** What the names of the workers begin with; their index follows. */
export const WORKER_NAME = "parley ";
/** What a request to publish is told to wait while the main thread takes none. */
const RETRY_MS = 1_000;

/** Whether this thread is a worker, which has to call {@link joinThreads}. */
export function isWorker(): boolean {
  const { name } = globalThis as { name?: string };
  return "WorkerGlobalScope" in globalThis && name?.startsWith(WORKER_NAME) === true;
}

/** A worker's place among the threads, and the settings that all run with. */
export interface Place<Settings> {
  threads: Threads;
  settings: Settings;
  /** Says that the worker serves; `stop` drains and ends it. */
  ready(running: Pick<Running, "stop">): void;
}

/** In a worker: waits for its place. */
export async function joinThreads<Settings>(clock: Clock): Promise<Place<Settings>> {
  const { data, ports: [control, port] } = await firstMessage<Start<Settings>>();
  const { remoteEngine } = await import("../engine/remote.ts");
  const running = Promise.withResolvers<Pick<Running, "stop">>();
  let isFull = false;
  const channel = new Channel<WorkerCalls, MainCalls>(control, {
    calls: { stop: async () => (await running.promise).stop() },
  });
  return {
    settings: data.settings,
    threads: {
      index: data.index,
      engine: remoteEngine(port, clock),
      limits: {
        async acquire(address) {
          const noSlot = await channel.call("acquire", address);
          return isRefusal(noSlot) ? "full" : noSlot;
        },
        release: (address) => channel.notify("release", address),
        get isFull() {
          return isFull;
        },
        async tryPublish(key, size) {
          const ms = await channel.call("tryPublish", key, size);
          return isRefusal(ms) ? RETRY_MS : ms;
        },
      },
      async report(figures) {
        const report = await channel.call("report", figures);
        if (isRefusal(report)) return figures;
        isFull = report.isFull;
        return report.sum;
      },
    },
    ready(thread) {
      running.resolve(thread);
      channel.notify("ready");
    },
  };
}

function firstMessage<Data>(): Promise<MessageEvent<Data>> {
  return new Promise((resolve) =>
    addEventListener("message", (event) => resolve(event as MessageEvent<Data>), { once: true })
  );
}
