/** The main thread of several: it starts the workers, and restarts those that die. */
import { LimitTable } from "../access/shared_limits.ts";
import type { Threads } from "../app.ts";
import { Channel } from "../engine/channel.ts";
import { type SharedEngine, shareEngine } from "../engine/shared.ts";
import { totalsOf } from "../http/metrics.ts";
import { addUp, type Figures } from "../registry/counters.ts";
import { type Clock, systemClock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { SettingError } from "./setting_error.ts";
import { openEngine } from "./options.ts";
import { limitsAndAccess, type Settings } from "./settings.ts";
import { type MainCalls, type Running, WORKER_NAME, type WorkerCalls } from "./threads.ts";

/** In so much time a worker must have reported. */
const BEAT_MS = 5_000;
const MAX_MISSED_BEATS = 2;
/** Before another try where a worker died before it served. */
const RETRY_MS = 1_000;

/**
 * Serves in this thread and in WORKERS - 1 others.
 * @param module URL of the module that the workers run
 * @param serve serves in this thread
 * @throws {SettingError} if they cannot listen, or a worker dies before it serves
 */
export async function startWorkers(
  settings: Settings,
  log: Log,
  module: string,
  serve: (settings: Settings, log: Log, threads: Threads) => Promise<Running>,
): Promise<Running> {
  const shared = shareEngine(await openEngine(settings, log));
  const clock = systemClock;
  const limits = new LimitTable(limitsAndAccess(settings).limits, clock);
  const count = settings.WORKERS;
  const workers = createWorkers<Settings>({ count, module, shared, limits, log, clock });
  const main = await serve(settings, log, workers);
  await workers.launch({ ...settings, PORT: Number(new URL(main.address).port) });
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
 * Makes the main thread's place among workers that `launch` starts.
 * @param options how many threads there are, the main thread included, the URL of the module that they
 * run, and what they share
 */
export function createWorkers<Settings>({ count, module, shared, limits, log, clock }: {
  count: number;
  module: string;
  shared: SharedEngine;
  limits: LimitTable;
  log: Log;
  clock: Clock;
}) {
  /** In the order of their indexes, from 1 on. */
  const lives: ReturnType<typeof start>[] = [];
  let mainFigures: Figures = {};
  /** What those counted that have died. */
  let lostTotals: Figures = {};
  let isLaunched = false;
  let hasEnded = false;
  let stopBeat = () => {};

  function start(index: number, settings: Settings) {
    const [control, engine] = [new MessageChannel(), new MessageChannel()];
    const served = Promise.withResolvers<void>();
    const worker = new Worker(module, { type: "module", name: WORKER_NAME + index });
    const clients = new LimitTable(limits.limits, clock, limits);
    const channel = new Channel<MainCalls, WorkerCalls>(control.port1, {
      calls: {
        acquire: (...client) => clients.acquire(...client),
        release: (...client) => clients.release(...client),
        trySend: (user) => clients.trySend(user),
        tryPublish: (...post) => clients.tryPublish(...post),
        ready() {
          life.isReady = true;
          served.resolve();
        },
        report(figures) {
          life.figures = figures;
          life.missedBeats = 0;
          return { all: all(), isFull: limits.isFull };
        },
      },
    });
    const stopServing = shared.serve(engine.port1, () => end("it does not keep up"));
    const restart = () => {
      if (!hasEnded) lives[index - 1] = start(index, settings);
    };
    const end = (reason: string) => {
      if (life.hasDied) return;
      life.hasDied = true;
      lostTotals = addUp([lostTotals, totalsOf(life.figures)]);
      life.figures = {};
      channel.close();
      worker.terminate();
      clients.releaseAll();
      stopServing();
      served.reject(new SettingError(`Cannot start the workers: ${reason}`));
      if (hasEnded || !(life.isReady || isLaunched)) return;
      const fields = { event: "worker_died", peer: index };
      log.error(`Worker ${index} died, another takes its place: ${reason}`, fields);
      if (life.isReady) restart();
      else clock.after(RETRY_MS, restart);
    };
    const life = {
      isReady: false,
      hasDied: false,
      figures: {} as Figures,
      missedBeats: 0,
      served: served.promise,
      stop: () => channel.call("stop"),
      end,
    };
    // Only the launch waits for it.
    served.promise.catch(() => {});
    worker.onerror = (event) => {
      event.preventDefault();
      end(event.message);
    };
    worker.postMessage(settings, [control.port2, engine.port2]);
    return life;
  }

  function beat(): void {
    lives.forEach((life) => {
      if (life.missedBeats++ >= MAX_MISSED_BEATS) life.end("it does not answer");
    });
  }

  function all(): Figures[] {
    return [mainFigures, ...lives.map((life) => life.figures), lostTotals];
  }

  const threads: Threads = {
    index: 0,
    engine: { ...shared.here, close: () => shared.close() },
    limits,
    report(figures) {
      mainFigures = figures;
      return Promise.resolve(all());
    },
  };
  return {
    ...threads,
    /** Starts the workers; done when all serve. @throws {SettingError} if one dies before it does */
    async launch(settings: Settings) {
      for (let index = 1; index < count; index++) lives.push(start(index, settings));
      await Promise.all(lives.map((life) => life.served));
      isLaunched = true;
      stopBeat = clock.every(BEAT_MS, beat);
    },
    /** Drains the workers, then ends them. */
    async stop() {
      hasEnded = true;
      // One that hangs is ended by the beat.
      await Promise.all(lives.map((life) => life.stop()));
      stopBeat();
      for (const life of lives) life.end("the process ends");
    },
  };
}
