/**
 * Parley's start: settings → log → server; signals. The only file that reads the environment.
 *
 * @module
 */
import config from "./deno.json" with { type: "json" };
import { isStoreWorker } from "./handlers/engine/store_name.ts";
import { createParley } from "./handlers/parley.ts";
import { addressOf, listen, urlsOf } from "./handlers/start/listen.ts";
import { createLog } from "./handlers/start/log.ts";
import { parleyOptions } from "./handlers/start/options.ts";
import { helpText } from "./handlers/start/help.ts";
import { onSignals, onUncaught } from "./handlers/start/process.ts";
import { isOnDeploy, readSettings } from "./handlers/start/read_settings.ts";
import { isOpenToAll, type Settings } from "./handlers/start/settings.ts";
import { isWorker, joinThreads, type Running, type Threads } from "./handlers/start/threads.ts";
import { systemClock } from "./handlers/util/clock.ts";
import type { Log } from "./handlers/util/log.ts";
import { SettingError } from "./handlers/util/setting_error.ts";

/** Serves in this thread; `threads` are those of which it is one. */
async function serve(settings: Settings, log: Log, threads?: Threads): Promise<Running> {
  onUncaught(log);
  const isTraced = ["true", "1"].includes(Deno.env.get("OTEL_DENO") ?? "");
  const options = await parleyOptions(settings, log, threads, isTraced);
  const parley = createParley(options);
  const { health } = options;
  const server = await listen({ settings, handler: parley.fetch, log, health, threads });
  const stop = async () => {
    await parley[Symbol.asyncDispose]();
    await server.shutdown();
  };
  const clientCount = () => parley.clientCount;
  return { parley, clientCount, address: addressOf(server.addr, settings), stop };
}

/** Serves in this thread and in workers, which run this module too. */
async function serveInThreads(settings: Settings, log: Log): Promise<Running> {
  const { startWorkers } = await import("./handlers/start/workers.ts");
  return await startWorkers(settings, log, import.meta.url, serve);
}

async function main(): Promise<void> {
  const env = (name: string) => Deno.env.get(name);
  const command = readSettings(Deno.args, env);
  if ("print" in command) {
    console.log(command.print === "help" ? helpText() : `parley ${config.version}`);
    return;
  }
  const { settings } = command;
  const isAlone = settings.WORKERS === 1;
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, isAlone ? {} : { worker: 0 });
  const running = isAlone ? await serve(settings, log) : await serveInThreads(settings, log);
  onSignals(log, async () => {
    log.info(`Parley stops: ${running.clientCount()} clients`, { event: "stop" });
    await running.stop();
    log.info("Parley stopped", { event: "stopped" });
  });
  const { address } = running;
  log.info(`Parley ${config.version} started: ${urlsOf(address)}`, { event: "start", address });
  if (isOpenToAll(settings)) {
    log.warn("Anybody may connect: set AUTH_SECRET or AUTH_JWKS, or a loopback HOST", {
      event: "open",
    });
  }
  if (settings.AUTH_JWKS && !settings.AUTH_ISSUER && !settings.AUTH_AUDIENCE) {
    log.warn("Tokens that their issuer made for other services count too: set AUTH_AUDIENCE", {
      event: "any_audience",
    });
  }
  if (isOnDeploy(env) && !settings.REDIS_URL) {
    log.warn("Rooms are split over the instances of Deno Deploy: set REDIS_URL", {
      event: "split",
    });
  }
}

if (isWorker()) {
  const { threads, settings, ready } = await joinThreads<Settings>(systemClock);
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, { worker: threads.index });
  ready(await serve(settings, log, threads));
} else if (isStoreWorker()) {
  await import("./handlers/engine/store.ts");
} else if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    const isOfPermissions = error instanceof Deno.errors.NotCapable;
    if (!(error instanceof SettingError) && !isOfPermissions) throw error;
    console.error(isOfPermissions ? `Cannot start: ${error.message}` : error.message);
    Deno.exit(1);
  }
}

/** Nothing to serve: `deno serve` stops at this with a clear line. */
export default {
  get fetch() {
    return undefined;
  },
};
