/**
 * The main thread of several workers, worker 0 itself: it starts the others, restarts those that
 * die, sends their clients away and asks for their figures.
 *
 * @module
 */
import { Line } from "../engine/channel.ts";
import { isRefusal } from "../engine/engine.ts";
import { createMesh, type Ports } from "../engine/workers.ts";
import type { Parley } from "../parley.ts";
import { type Clock, systemClock } from "../util/clock.ts";
import { SettingError } from "../util/setting_error.ts";
import type { Log } from "../util/log.ts";
import {
  checkWorkers,
  type Cluster,
  CONTROL_ANSWER_MS,
  type LocalWorker,
  type MainCalls,
  type Restarted,
  type Start,
  WORKER_NAME,
  type WorkerCalls,
} from "./cluster.ts";
import type { Settings } from "./settings.ts";

/** A server that listens. */
export interface Running {
  parley: Parley;
  /** Where it listens: `http://127.0.0.1:8000`, or the path of its socket. */
  address: string;
  drain(): Promise<void>;
  /** Drains it, then ends it. */
  stop(): Promise<void>;
}

/**
 * Serves in this thread and in WORKERS - 1 others.
 *
 * @param module URL of the module that the workers run
 * @param serve serves in this thread
 * @throws {SettingError} if they cannot listen in one place, or a worker dies before it serves
 */
export async function startWorkers(
  settings: Settings,
  log: Log,
  module: string,
  serve: (settings: Settings, log: Log, cluster: Cluster) => Promise<Running>,
): Promise<Running> {
  const count = settings.WORKERS;
  checkWorkers(count, settings.SOCKET_PATH);
  const workers = createWorkers<Settings>({ count, module, log, clock: systemClock });
  const main = await serve(settings, log, workers);
  const PORT = Number(new URL(main.address).port);
  try {
    await workers.launch({ ...settings, PORT });
  } catch (error) {
    throw new SettingError((error as Error).message);
  }
  return {
    ...main,
    drain: () => workers.drain(),
    async stop() {
      await workers.drain();
      workers.end();
      await main.stop();
    },
  };
}

/** What makes the workers. */
export interface WorkersOptions {
  /** How many there are, the main thread included. */
  count: number;
  /** URL of the module that they run. */
  module: string;
  log: Log;
  clock: Clock;
}

/** The workers, as the main thread sees them. */
export interface Workers<Settings> extends Cluster {
  /**
   * Starts them; done when all serve.
   *
   * @throws {Error} if one dies before it does
   */
  launch(settings: Settings): Promise<void>;
  /** Sends the clients of all away, the main thread's too. */
  drain(): Promise<void>;
  /** Ends the others. */
  end(): void;
}

/** One worker, from its start to its death. */
interface Life {
  worker: Worker;
  line: Line<MainCalls, WorkerCalls>;
  /** Done when it serves. */
  ready: Promise<void>;
  isReady: boolean;
  /** Why it died, when it has. */
  death: Promise<string>;
  end(reason: string): void;
  /** Beats that it has not answered. */
  missedBeats: number;
}

const BEAT_MS = 5_000;
const MAX_MISSED_BEATS = 2;
/** Before another try where a worker died before it served. */
const RETRY_MS = 1_000;

/** Makes the main thread's place among workers that {@link Workers.launch} starts. */
export function createWorkers<Settings>(
  { count, module, log, clock }: WorkersOptions,
): Workers<Settings> {
  const mesh = createMesh(count);
  /** By index; the main thread's place is empty. */
  const lives: (Life | undefined)[] = [undefined];
  const local = Promise.withResolvers<LocalWorker>();
  let hasEnded = false;
  let stopBeat = () => {};

  function start(index: number, settings: Settings, ports: Ports): Life {
    const { port1, port2 } = new MessageChannel();
    const ready = Promise.withResolvers<void>();
    const death = Promise.withResolvers<string>();
    const worker = new Worker(module, { type: "module", name: WORKER_NAME + index });
    const line = new Line<MainCalls, WorkerCalls>(port1, {
      calls: {
        ready() {
          life.isReady = true;
          ready.resolve();
        },
        figures: workers.figures,
      },
      answerMs: CONTROL_ANSWER_MS,
      clock,
    });
    const life: Life = {
      worker,
      line,
      ready: ready.promise,
      isReady: false,
      death: death.promise,
      end(reason) {
        line.close();
        worker.terminate();
        death.resolve(reason);
      },
      missedBeats: 0,
    };
    worker.onerror = (event) => {
      event.preventDefault();
      life.end(event.message);
    };
    const first: Start<Settings> = { index, settings };
    worker.postMessage(first, [port2, ...ports.filter((port) => port !== undefined)]);
    return life;
  }

  /** Puts another in a worker's place each time that it dies. */
  async function keep(index: number, settings: Settings): Promise<void> {
    for (let life = lives[index]; life; lives[index] = life) {
      const reason = await life.death;
      if (hasEnded) return;
      log.error(`Worker ${index} died, another takes its place: ${reason}`, {
        event: "worker_died",
        peer: index,
      });
      if (!life.isReady) await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve));
      if (hasEnded) return;
      life = start(index, settings, reconnect(index));
    }
  }

  /** Gives each other worker a port to the next worker `index`; answers the other ends. */
  function reconnect(index: number): Ports {
    return mesh.map((_, peer) => {
      if (peer === index) return undefined;
      const { port1, port2 } = new MessageChannel();
      const restarted: Restarted = { peer: index };
      if (peer === 0) local.promise.then((main) => main.replacePeer?.(index, port1));
      else lives[peer]?.worker.postMessage(restarted, [port1]);
      return port2;
    });
  }

  /** Ends workers that hang. */
  function beat(): void {
    for (const life of lives) {
      if (!life) continue;
      if (life.missedBeats >= MAX_MISSED_BEATS) life.end("it does not answer");
      life.missedBeats++;
      life.line.ask("figures").then(() => life.missedBeats = 0);
    }
  }

  const workers: Workers<Settings> = {
    index: 0,
    ports: mesh[0],
    serve: local.resolve,
    async figures() {
      const main = await local.promise;
      const answers = await Promise.all(lives.map((life) => life?.line.ask("figures") ?? []));
      return [main.figures(), ...answers.flatMap((answer) => isRefusal(answer) ? [] : answer)];
    },
    async launch(settings) {
      for (let index = 1; index < count; index++) {
        lives[index] = start(index, settings, mesh[index]);
      }
      await Promise.all(lives.map((life) =>
        life && Promise.race([
          life.ready,
          life.death.then((reason) => {
            throw new Error(`Cannot start the workers: ${reason}`);
          }),
        ])
      ));
      for (let index = 1; index < count; index++) keep(index, settings);
      stopBeat = clock.every(BEAT_MS, beat);
    },
    async drain() {
      const main = await local.promise;
      await Promise.all([main.drain(), ...lives.map((life) => life?.line.ask("drain"))]);
    },
    end() {
      hasEnded = true;
      stopBeat();
      for (const life of lives) life?.end("the process ends");
    },
  };
  return workers;
}
