/**
 * Parley's start: settings → log → server; signals. The only file that reads the environment.
 *
 * @module
 */
import config from "./deno.json" with { type: "json" };
import { createParley } from "./handlers/parley.ts";
import { addressOf, listen, urlsOf } from "./handlers/start/listen.ts";
import { createLog } from "./handlers/start/log.ts";
import { parleyOptions } from "./handlers/start/options.ts";
import { helpText, isOpenToAll, readSettings, type Settings } from "./handlers/start/settings.ts";
import {
  isWorker,
  joinThreads,
  type Running,
  startWorkers,
  type Threads,
} from "./handlers/start/threads.ts";
import { systemClock } from "./handlers/util/clock.ts";
import type { Log } from "./handlers/util/log.ts";
import { SettingError } from "./handlers/util/setting_error.ts";

/** Serves in this thread; `threads` are those of which it is one. */
async function serve(settings: Settings, log: Log, threads?: Threads): Promise<Running> {
  const isTraced = ["true", "1"].includes(Deno.env.get("OTEL_DENO") ?? "");
  const parley = createParley({ ...await parleyOptions(settings, log, threads), isTraced });
  const server = await listen(settings, log, parley.fetch, threads);
  const stop = async () => {
    await parley[Symbol.asyncDispose]();
    await server.shutdown();
  };
  return { parley, address: addressOf(server.addr, settings), stop };
}

/** Ends the process after a drain at the first signal, at once at the second. */
function onSignals({ parley, stop }: Running, log: Log): void {
  let isStopping = false;
  const end = async () => {
    if (isStopping) Deno.exit(1);
    isStopping = true;
    log.info(`Parley stops: ${parley.clientCount} clients`, { event: "stop" });
    await stop();
    log.info("Parley stopped", { event: "stopped" });
    Deno.exit(0);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, end);
}

async function main(): Promise<void> {
  const command = readSettings(Deno.args, (name) => Deno.env.get(name));
  if ("print" in command) {
    console.log(command.print === "help" ? helpText() : `parley ${config.version}`);
    return;
  }
  const { settings } = command;
  const isAlone = settings.WORKERS === 1;
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, isAlone ? undefined : 0);
  const running = isAlone
    ? await serve(settings, log)
    : await startWorkers(settings, log, import.meta.url, serve);
  onSignals(running, log);
  const { address } = running;
  log.info(`Parley ${config.version} started: ${urlsOf(address)}`, { event: "start", address });
  if (isOpenToAll(settings)) {
    log.warn("Anybody may connect: set ALLOWED_ORIGINS, or AUTH_SECRET, or a loopback HOST", {
      event: "open",
    });
  }
}

if (isWorker()) {
  const { threads, settings, ready } = await joinThreads<Settings>(systemClock);
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, threads.index);
  ready(await serve(settings, log, threads));
} else if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SettingError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
