/**
 * The main thread of several: it starts the workers and restarts those that die. Their clients are
 * lost, nothing else.
 *
 * @module
 */
import { LimitTable } from "../access/shared_limits.ts";
import { Channel } from "../engine/channel.ts";
import { type SharedEngine, shareEngine } from "../engine/shared.ts";
import { totalsOf } from "../http/metrics.ts";
import { addUp, type Figures } from "../registry/counters.ts";
import { type Clock, systemClock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { SettingError } from "../util/setting_error.ts";
import { openEngine } from "./options.ts";
import { limitsAndAccess, type Settings } from "./settings.ts";
import {
  type MainCalls,
  type Running,
  type Start,
  type Threads,
  WORKER_NAME,
  type WorkerCalls,
} from "./threads.ts";

/** In so much time a worker must have reported. */
const BEAT_MS = 5_000;
const MAX_MISSED_BEATS = 2;
/** Before another try where a worker died before it served. */
const RETRY_MS = 1_000;

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
  serve: (settings: Settings, log: Log, threads: Threads) => Promise<Running>,
): Promise<Running> {
  const count = settings.WORKERS;
  checkWorkers(count, settings.SOCKET_PATH);
  const shared = shareEngine(await openEngine(settings, log));
  const clock = systemClock;
  const limits = new LimitTable(limitsAndAccess(settings).limits, clock);
  const workers = createWorkers<Settings>({ count, module, shared, limits, log, clock });
  const main = await serve(settings, log, workers);
  const PORT = Number(new URL(main.address).port);
  try {
    await workers.launch({ ...settings, PORT });
  } catch (error) {
    throw new SettingError((error as Error).message);
  }
  return {
    ...main,
    clientCount: () => limits.count,
    async stop() {
      await Promise.all([main.parley.drain(), workers.stop()]);
      await main.stop();
    },
  };
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

/** What makes the workers. */
export interface WorkersOptions {
  /** How many threads there are, the main thread included. */
  count: number;
  /** URL of the module that they run. */
  module: string;
  shared: SharedEngine;
  limits: LimitTable;
  log: Log;
  clock: Clock;
}

/** The threads, as the main thread sees them. */
export interface Workers<Settings> extends Threads {
  /**
   * Starts the workers; done when all serve.
   *
   * @throws {Error} if one dies before it does
   */
  launch(settings: Settings): Promise<void>;
  /** Drains the workers, then ends them. */
  stop(): Promise<void>;
}

/** One worker, from its start to its death. */
interface Life {
  channel: Channel<MainCalls, WorkerCalls>;
  /** Done when it serves. */
  ready: Promise<void>;
  isReady: boolean;
  /** What it counted when it reported last. */
  figures: Figures;
  missedBeats: number;
  /** Why it died, when it has. */
  death: Promise<string>;
  end(reason: string): void;
}

/** Makes the main thread's place among workers that {@link Workers.launch} starts. */
export function createWorkers<Settings>(
  { count, module, shared, limits, log, clock }: WorkersOptions,
): Workers<Settings> {
  /** By index; the main thread's place is empty. */
  const lives: (Life | undefined)[] = [undefined];
  let mainFigures: Figures = {};
  /** What those counted that have died. */
  let lostTotals: Figures = {};
  let hasEnded = false;
  let stopBeat = () => {};

  function start(index: number, settings: Settings): Life {
    const [control, engine] = [new MessageChannel(), new MessageChannel()];
    const ready = Promise.withResolvers<void>();
    const death = Promise.withResolvers<string>();
    const worker = new Worker(module, { type: "module", name: WORKER_NAME + index });
    const own = limits.share();
    const channel = new Channel<MainCalls, WorkerCalls>(control.port1, {
      calls: {
        ...own,
        ready() {
          life.isReady = true;
          ready.resolve();
        },
        report(figures) {
          life.figures = figures;
          life.missedBeats = 0;
          return { sum: sum(), isFull: limits.isFull };
        },
      },
    });
    const stopServing = shared.serve(engine.port1, () => life.end("it does not keep up"));
    const life: Life = {
      channel,
      ready: ready.promise,
      isReady: false,
      figures: {},
      missedBeats: 0,
      death: death.promise,
      end(reason) {
        lostTotals = addUp([lostTotals, totalsOf(life.figures)]);
        life.figures = {};
        channel.close();
        worker.terminate();
        own.releaseAll();
        death.resolve(reason);
        stopServing();
      },
    };
    worker.onerror = (event) => {
      event.preventDefault();
      life.end(event.message);
    };
    const first: Start<Settings> = { index, settings };
    worker.postMessage(first, [control.port2, engine.port2]);
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
      life = start(index, settings);
    }
  }

  /** Ends workers that hang. */
  function beat(): void {
    for (const life of lives) {
      if (life && life.missedBeats++ >= MAX_MISSED_BEATS) life.end("it does not answer");
    }
  }

  function sum(): Figures {
    return addUp([lostTotals, mainFigures, ...lives.flatMap((life) => life ? [life.figures] : [])]);
  }

  return {
    index: 0,
    engine: { ...shared.here, close: () => shared.close() },
    limits,
    report(figures) {
      mainFigures = figures;
      return Promise.resolve(sum());
    },
    async launch(settings) {
      for (let index = 1; index < count; index++) lives[index] = start(index, settings);
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
    async stop() {
      hasEnded = true;
      // One that hangs is ended by the beat.
      await Promise.all(lives.map((life) => life?.channel.call("stop")));
      stopBeat();
      for (const life of lives) life?.end("the process ends");
    },
  };
}
