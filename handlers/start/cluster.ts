/**
 * Several workers in one process, all on one port, as one of them sees the others.
 *
 * @module
 */
import { Line } from "../engine/channel.ts";
import { isRefusal } from "../engine/engine.ts";
import type { Ports } from "../engine/workers.ts";
import type { Clock } from "../util/clock.ts";
import { SettingError } from "../util/setting_error.ts";

/** What one worker counts: numbers, which {@link addUp} adds. */
export type Figures = { [name: string]: number | Figures };

/** The sum of what several workers count, name by name. */
export function addUp(all: Figures[]): Figures {
  const sums: Figures = {};
  for (const [name, value] of all.flatMap((figures) => Object.entries(figures))) {
    const sum = sums[name] ?? 0;
    sums[name] = typeof value === "number"
      ? Number(sum) + value
      : addUp([typeof sum === "number" ? {} : sum, value]);
  }
  return sums;
}

/** What a worker does for the others once it serves. */
export interface LocalWorker {
  figures(): Figures;
  /** Sends its clients away. Its engine goes on: the others may still need it. */
  drain(): Promise<void>;
  /** A worker was restarted: its engine is reached over this port from now on. */
  replacePeer?(index: number, port: MessagePort): void;
}

/** The workers of the process. */
export interface Cluster {
  /** Which of them this one is; the main thread is 0. */
  readonly index: number;
  readonly ports: Ports;
  /** Says that this one serves. */
  serve(worker: LocalWorker): void;
  /** The figures of each that answers. */
  figures(): Promise<Figures[]>;
}

/** What the main thread asks a worker. */
export interface WorkerCalls {
  figures(): Promise<Figures[]>;
  drain(): Promise<void>;
}

/** What a worker asks the main thread. */
export interface MainCalls {
  ready(): void;
  figures(): Promise<Figures[]>;
}

/** The first message to a worker; the control port and the engine's ports come with it. */
export interface Start<Settings> {
  index: number;
  settings: Settings;
}

/** Tells a worker that another was restarted; the port to that one comes with it. */
export interface Restarted {
  peer: number;
}

/** A call on a control line waits as long as a timer can: the main thread finds who hangs. */
export const CONTROL_ANSWER_MS = 2 ** 31 - 1;

/** What the names of the workers begin with; their index follows. */
export const WORKER_NAME = "parley ";

/** Whether this thread is a worker, which has to call {@link joinCluster}. */
export function isWorker(): boolean {
  const { name } = globalThis as { name?: string };
  return "WorkerGlobalScope" in globalThis && name?.startsWith(WORKER_NAME) === true;
}

/** In a worker: waits for its place among the others, and the settings that all run with. */
export async function joinCluster<Settings>(
  clock: Clock,
): Promise<{ cluster: Cluster; settings: Settings }> {
  const { data, ports: [control, ...ports] } = await firstMessage<Start<Settings>>();
  const local = Promise.withResolvers<LocalWorker>();
  addEventListener("message", async (event) => {
    const { data, ports: [port] } = event as MessageEvent<Restarted>;
    (await local.promise).replacePeer?.(data.peer, port);
  });
  const line = new Line<WorkerCalls, MainCalls>(control, {
    calls: {
      figures: async () => [(await local.promise).figures()],
      drain: async () => (await local.promise).drain(),
    },
    answerMs: CONTROL_ANSWER_MS,
    clock,
  });
  const cluster: Cluster = {
    index: data.index,
    ports: [...ports.slice(0, data.index), undefined, ...ports.slice(data.index)],
    serve(worker) {
      local.resolve(worker);
      line.tell("ready");
    },
    async figures() {
      const answer = await line.ask("figures");
      return isRefusal(answer) ? [] : answer;
    },
  };
  return { cluster, settings: data.settings };
}

function firstMessage<Data>(): Promise<MessageEvent<Data>> {
  return new Promise((resolve) =>
    addEventListener("message", (event) => resolve(event as MessageEvent<Data>), { once: true })
  );
}

/**
 * Checks that `count` workers can listen in one place.
 *
 * @throws {SettingError} if they cannot
 */
export function checkWorkers(count: number, socketPath: string): void {
  if (count === 1) return;
  if (socketPath) {
    throw new SettingError(
      `Cannot use WORKERS: with SOCKET_PATH there is one worker, is ${count}`,
    );
  }
  if (!("listenDatagram" in Deno)) {
    throw new SettingError(
      `Cannot use WORKERS: a port for several needs deno run --unstable-net, is ${count}`,
    );
  }
}
