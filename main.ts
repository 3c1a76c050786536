/**
 * Parley's start: settings → log, workers, server; signals. The only file that reads the environment.
 *
 * @module
 */
import config from "./deno.json" with { type: "json" };
import { type Running, start } from "./handlers/parley.ts";
import { checkWorkers, isWorker, joinCluster } from "./handlers/start/cluster.ts";
import { createLog } from "./handlers/start/log.ts";
import { helpText, readSettings, type Settings } from "./handlers/start/settings.ts";
import { systemClock } from "./handlers/util/clock.ts";
import type { Log } from "./handlers/util/log.ts";
import { SettingError } from "./handlers/util/setting_error.ts";

export { type Running, start };

/** Deno's own OpenTelemetry is on: its spans keep each request's query. */
function isTraced(): boolean {
  return ["true", "1"].includes(Deno.env.get("OTEL_DENO") ?? "");
}

/** Starts one thread, or the main thread of several and those. */
async function startAll(settings: Settings, log: Log): Promise<Running> {
  const count = settings.WORKERS;
  checkWorkers(count, settings.SOCKET_PATH);
  if (count === 1) return await start(settings, log, { isTraced: isTraced() });
  const { createWorkers } = await import("./handlers/start/threads.ts");
  const module = import.meta.url;
  const workers = createWorkers<Settings>({ count, module, log, clock: systemClock });
  const running = await start(settings, log, { cluster: workers, isTraced: isTraced() });
  const PORT = Number(new URL(running.address).port);
  try {
    await workers.launch({ ...settings, PORT });
  } catch (error) {
    throw new SettingError((error as Error).message);
  }
  return {
    ...running,
    drain: () => workers.drain(),
    async stop() {
      await workers.drain();
      workers.end();
      await running.stop();
    },
  };
}

async function work(): Promise<void> {
  const { cluster, settings } = await joinCluster<Settings>(systemClock);
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, cluster.index);
  await start(settings, log, { cluster, isTraced: isTraced() });
}

function isOpenToAll({ ALLOWED_ORIGINS, AUTH_SECRET, AUTH_JWKS, HOST, SOCKET_PATH }: Settings) {
  return ALLOWED_ORIGINS.length === 0 && !AUTH_SECRET && !AUTH_JWKS && !SOCKET_PATH &&
    !/^(localhost|127\.[\d.]+|::1|\[::1\])$/.test(HOST);
}

/** What to open: the page, and the sockets beside it. */
function urlsOf(address: string): string {
  if (!address.startsWith("http")) return address;
  const sockets = address.replace("http", "ws");
  return `${address}/ ${sockets}/echo ${sockets}/chat/lobby`;
}

/** Ends the process after a drain at the first signal, at once at the second. */
function onSignals(running: Running, log: Log): void {
  let isStopping = false;
  const stop = async () => {
    if (isStopping) Deno.exit(1);
    isStopping = true;
    log.info(`Parley stops: ${running.registry.clients.size} clients`, { event: "stop" });
    await running.stop();
    log.info("Parley stopped", { event: "stopped" });
    Deno.exit(0);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, stop);
  }
}

async function main(): Promise<void> {
  const command = readSettings(Deno.args, (name) => Deno.env.get(name));
  if ("print" in command) {
    console.log(command.print === "help" ? helpText() : `parley ${config.version}`);
    return;
  }
  const { settings } = command;
  const worker = settings.WORKERS > 1 ? 0 : undefined;
  const log = createLog(settings.LOG_LEVEL, settings.LOG_FORMAT, worker);
  const running = await startAll(settings, log);
  onSignals(running, log);
  const { address } = running;
  log.info(`Parley ${config.version} started: ${urlsOf(address)}`, { event: "start", address });
  if (isOpenToAll(settings)) {
    log.warn("Anybody may connect: set ALLOWED_ORIGINS, or AUTH_SECRET, or a loopback HOST", {
      event: "open",
    });
  }
}

if (isWorker()) await work();
else if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SettingError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
