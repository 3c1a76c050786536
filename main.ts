/**
 * Parley's start: settings → log → server; signals. The only file that reads the environment.
 *
 * @module
 */
import config from "./deno.json" with { type: "json" };
import { createParley } from "./handlers/parley.ts";
import { type Cluster, isWorker, joinCluster } from "./handlers/start/cluster.ts";
import { addressOf, listen, urlsOf } from "./handlers/start/listen.ts";
import { createLog, type ServerLog } from "./handlers/start/log.ts";
import { parleyOptions } from "./handlers/start/options.ts";
import { helpText, isOpenToAll, readSettings, type Settings } from "./handlers/start/settings.ts";
import { type Running, startWorkers } from "./handlers/start/threads.ts";
import { systemClock } from "./handlers/util/clock.ts";
import type { Log } from "./handlers/util/log.ts";
import { SettingError } from "./handlers/util/setting_error.ts";

/** How long the last lines of the log get. */
const LAST_LINES_MS = 300;

/** Keeps the process alive through an error that nothing caught: it costs a line of the log. */
function onUncaught(log: Log): void {
  const report = (event: Event, error: unknown) => {
    event.preventDefault();
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    log.error(`Uncaught: ${text}`, { event: "uncaught" });
  };
  addEventListener("unhandledrejection", (event) => report(event, event.reason));
  addEventListener("error", (event) => report(event, event.error));
}

/** Serves in this thread; `cluster` are the workers of which it is one. */
async function serve(settings: Settings, log: Log, cluster?: Cluster): Promise<Running> {
  onUncaught(log);
  const isTraced = ["true", "1"].includes(Deno.env.get("OTEL_DENO") ?? "");
  const health = {};
  const options = await parleyOptions(settings, log, cluster, isTraced);
  const parley = createParley({ ...options, health });
  const server = await listen({ settings, handler: parley.fetch, log, health, cluster });
  const stop = async () => {
    await parley[Symbol.asyncDispose]();
    await server.shutdown();
  };
  return { parley, address: addressOf(server.addr, settings), drain: parley.drain, stop };
}

/** Ends the process after a drain at the first signal, at once at the second. */
function onSignals({ parley, stop }: Running, log: ServerLog): void {
  let isStopping = false;
  const end = async () => {
    if (isStopping) Deno.exit(1);
    isStopping = true;
    log.info(`Parley stops: ${parley.clientCount} clients`, { event: "stop" });
    await stop();
    log.info("Parley stopped", { event: "stopped" });
    // A reader of the log that stalls must not keep the process.
    systemClock.after(LAST_LINES_MS, () => Deno.exit(0));
    await log.flush();
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
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, isAlone ? {} : { worker: 0 });
  const running = isAlone
    ? await serve(settings, log)
    : await startWorkers(settings, log, import.meta.url, serve);
  onSignals(running, log);
  const { address } = running;
  log.info(`Parley ${config.version} started: ${urlsOf(address)}`, { event: "start", address });
  if (isOpenToAll(settings)) {
    log.warn("Anybody may connect: set AUTH_SECRET or AUTH_JWKS, or a loopback HOST", {
      event: "open",
    });
  }
  if (settings.AUTH_JWKS && !settings.AUTH_ISSUER && !settings.AUTH_AUDIENCE) {
    log.warn(
      "Tokens that the same issuer made for other services are taken too: set AUTH_AUDIENCE or AUTH_ISSUER",
      { event: "any_audience" },
    );
  }
}

if (isWorker()) {
  const { cluster, settings } = await joinCluster<Settings>(systemClock);
  const options = { worker: cluster.index };
  await serve(settings, createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, options), cluster);
} else if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SettingError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
