/** Parley's start: settings → createParley → listen → signals. Only it reads the environment. */
import config from "./deno.json" with { type: "json" };
import type { Threads } from "./handlers/app.ts";
import { isStoreWorker } from "./handlers/engine/store_name.ts";
import { createParley } from "./handlers/parley.ts";
import { helpText } from "./handlers/start/help.ts";
import { listen, urlsOf } from "./handlers/start/listen.ts";
import { createLog } from "./handlers/start/log.ts";
import { parleyOptions } from "./handlers/start/options.ts";
import {
  freeFrameBuffers,
  onSignals,
  onUncaught,
  runCommand,
  startUnderRun,
} from "./handlers/start/process.ts";
import { readSettings } from "./handlers/start/read_settings.ts";
import type { Settings } from "./handlers/start/settings.ts";
import { isWorker, joinThreads, type Running } from "./handlers/start/threads.ts";
import { systemClock } from "./handlers/util/clock.ts";
import type { Log } from "./handlers/util/log.ts";

/** Serves in this thread; `threads` are those of which it is one. */
async function serve(settings: Settings, log: Log, threads?: Threads): Promise<Running> {
  onUncaught(log);
  const isTraced = ["true", "1"].includes(Deno.env.get("OTEL_DENO") ?? "");
  const options = await parleyOptions(settings, log, threads, isTraced);
  const { health } = options;
  const parley = createParley(options);
  const server = await listen({ settings, handler: parley.fetch, log, health, threads });
  const stop = async () => {
    await parley[Symbol.asyncDispose]();
    await server.shutdown();
  };
  return { parley, clientCount: () => parley.clientCount, address: server.address, stop };
}

/** Serves in this thread and in workers, which run this module too. */
async function serveInThreads(settings: Settings, log: Log): Promise<Running> {
  const { startWorkers } = await import("./handlers/start/workers.ts");
  return await startWorkers(settings, log, import.meta.url, serve);
}

async function main(): Promise<void> {
  freeFrameBuffers();
  const command = readSettings(Deno.args, (name) => Deno.env.get(name));
  if ("print" in command) {
    console.log(command.print === "help" ? helpText() : `parley ${config.version}`);
    return;
  }
  const { settings, warnings } = command;
  const isAlone = settings.WORKERS === 1;
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, isAlone ? {} : { worker: 0 });
  const running = isAlone ? await serve(settings, log) : await serveInThreads(settings, log);
  const { clientCount, address, stop } = running;
  onSignals(log, async () => {
    log.info(`Parley stops: ${clientCount()} clients`, { event: "stop" });
    await stop();
    log.info("Parley stopped", { event: "stopped" });
  });
  log.info(`Parley ${config.version} started: ${urlsOf(address)}`, { event: "start", address });
  for (const { text, event } of warnings) log.warn(text, { event });
}

if (isWorker()) {
  const { threads, settings, ready } = await joinThreads<Settings>(systemClock);
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, { worker: threads.index });
  ready(await serve(settings, log, threads));
} else if (isStoreWorker()) {
  await import("./handlers/engine/store.ts");
} else if (import.meta.main) {
  startUnderRun(() => runCommand(main));
}

/** Nothing to serve: `deno serve` refuses this, and `startUnderRun` says why. */
export default { fetch: undefined };
