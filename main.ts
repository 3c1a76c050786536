/**
 * Parley's start: settings → log, engine, registry → `Deno.serve`; signals. The only file that
 * reads the environment.
 *
 * @module
 */
import config from "./deno.json" with { type: "json" };
import { systemClock } from "./handlers/clock.ts";
import { createMemoryEngine } from "./handlers/engine/memory.ts";
import { createLog, type Log } from "./handlers/log.ts";
import { denoUpgrade } from "./handlers/registry/connection.ts";
import { Registry } from "./handlers/registry/registry.ts";
import { createRouter } from "./handlers/router.ts";
import { createTokenCheck } from "./handlers/tokens.ts";
import { publishStats } from "./handlers/stats.ts";
import { helpText, readSettings, SettingError, type Settings } from "./handlers/settings.ts";

/** A running server. */
export interface Running {
  /** Where it listens: `http://127.0.0.1:8000`, or the path of its socket. */
  readonly address: string;
  readonly registry: Registry;
  /** Drains, then ends all. */
  stop(): Promise<void>;
}

/** How long the last frames and requests get after the drain. */
const GRACE_MS = 500;
const GUARD_MS = 500;

/**
 * Starts a server in this process.
 *
 * @throws {SettingError} if it cannot listen with these settings
 */
export async function start(settings: Settings, log: Log): Promise<Running> {
  const clock = systemClock;
  const tokens = await createTokenCheck(settings, clock);
  const limits = {
    historySize: settings.HISTORY_SIZE,
    historySeconds: settings.HISTORY_SECONDS,
    historyMb: settings.HISTORY_MB,
    maxRooms: settings.MAX_ROOMS,
  };
  const engine = createMemoryEngine(limits, clock);
  // Five minutes of the server's own figures.
  const localEngine = createMemoryEngine({ ...limits, historySize: 300 }, clock);
  const registry = new Registry({
    engine,
    localEngine,
    log,
    clock,
    limits: {
      maxConnections: settings.MAX_CONNECTIONS,
      maxQueueBytes: settings.MAX_QUEUE_BYTES,
      maxMessageBytes: settings.MAX_MESSAGE_BYTES,
      drainSeconds: settings.DRAIN_SECONDS,
    },
  });
  const isTraced = ["true", "1"].includes(Deno.env.get("OTEL_DENO") ?? "");
  const app = { registry, log, clock, settings, tokens, isTraced, upgrade: denoUpgrade };
  const router = createRouter(app);
  const stopGuard = guardMemory(registry, settings.MAX_RSS_MB);
  const stopStats = publishStats(app, () => Deno.memoryUsage().rss);
  if (settings.SOCKET_PATH) await removeStaleSocket(settings.SOCKET_PATH);
  const server = listen(settings, log, router);
  const address = describe(server.addr, settings);
  log.info(`Parley ${config.version} started: ${urlsOf(address)}`, { event: "start", address });
  if (isOpenToAll(settings)) {
    log.warn("Anybody may connect: set ALLOWED_ORIGINS, or AUTH_SECRET, or a loopback HOST", {
      event: "open",
    });
  }
  return {
    address,
    registry,
    async stop() {
      log.info(`Parley stops: ${registry.clients.size} clients`, { event: "stop" });
      await registry.drain();
      await allGone(registry);
      stopGuard();
      stopStats();
      await within(GRACE_MS, Promise.all([server.shutdown(), engine.close(), localEngine.close()]));
      log.info("Parley stopped", { event: "stopped" });
    },
  };
}

function listen(
  settings: Settings,
  log: Log,
  handler: ReturnType<typeof createRouter>,
): Deno.HttpServer<Deno.Addr> {
  const { PORT, HOST, SOCKET_PATH, TLS_CERT, TLS_KEY } = settings;
  const onListen = () => {};
  // The router answers all errors; what comes here is a body that broke off: an evicted reader's.
  const onError = (error: unknown) => {
    log.debug(`Cannot finish a response: ${reasonOf(error)}`, { event: "broken" });
    return new Response(null, { status: 500 });
  };
  const tls = TLS_CERT
    ? { cert: readPem("TLS_CERT", TLS_CERT), key: readPem("TLS_KEY", TLS_KEY) }
    : {};
  try {
    return SOCKET_PATH
      ? Deno.serve({ path: SOCKET_PATH, onListen, onError }, handler)
      : Deno.serve({ port: PORT, hostname: HOST, onListen, onError, ...tls }, handler);
  } catch (error) {
    if (TLS_CERT && error instanceof Deno.errors.InvalidData) {
      throw new SettingError(`Cannot use TLS_CERT and TLS_KEY: ${reasonOf(error)}`);
    }
    const where = SOCKET_PATH ? SOCKET_PATH : `${HOST}:${PORT}`;
    throw new SettingError(`Cannot listen on ${where}: ${reasonOf(error)}`);
  }
}

/** Takes away the socket of a server that did not end by itself; one that answers stays. */
async function removeStaleSocket(path: string): Promise<void> {
  try {
    const { isSocket } = await Deno.lstat(path);
    if (isSocket) (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) await Deno.remove(path);
  }
}

/** Shuts the door while the process uses more than `maxMb`; 0 never. The answer ends it. */
function guardMemory(registry: Registry, maxMb: number): () => void {
  if (maxMb === 0) return () => {};
  const measure = () => registry.isOverMemory = Deno.memoryUsage().rss > maxMb * 1_000_000;
  measure();
  return systemClock.every(GUARD_MS, measure);
}

function isOpenToAll({ ALLOWED_ORIGINS, AUTH_SECRET, AUTH_JWKS, HOST, SOCKET_PATH }: Settings) {
  return ALLOWED_ORIGINS.length === 0 && !AUTH_SECRET && !AUTH_JWKS && !SOCKET_PATH &&
    !/^(localhost|127\.[\d.]+|::1)$/.test(HOST);
}

function readPem(name: string, path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    const reason = error instanceof Deno.errors.NotFound ? `no file at ${path}` : reasonOf(error);
    throw new SettingError(`Cannot read ${name}: ${reason}`);
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.AddrInUse) return "the address is in use";
  return error instanceof Error ? error.message : String(error);
}

/** The URL to open: a wildcard address is this machine. */
function describe(addr: Deno.Addr, { TLS_CERT }: Settings): string {
  if (!("hostname" in addr)) return "path" in addr ? addr.path : "a socket";
  const host = ["0.0.0.0", "::"].includes(addr.hostname) ? "localhost" : addr.hostname;
  const shown = host.includes(":") ? `[${host}]` : host;
  return `${TLS_CERT ? "https" : "http"}://${shown}:${addr.port}`;
}

/** What to open: the page, and the sockets beside it. */
function urlsOf(address: string): string {
  if (!address.startsWith("http")) return address;
  const sockets = address.replace("http", "ws");
  return `${address}/ ${sockets}/echo ${sockets}/chat/lobby`;
}

/** Waits for the peers' last word: `server.shutdown` would overtake our Close frames with its own. */
async function allGone(registry: Registry): Promise<void> {
  const end = systemClock.now() + GRACE_MS;
  while (registry.heldCount > 0 && systemClock.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function within(ms: number, task: Promise<unknown>): Promise<unknown> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise((resolve) => timer = setTimeout(resolve, ms));
  return Promise.race([task, limit]).finally(() => clearTimeout(timer));
}

/** Ends the process after a drain at the first signal, at once at the second. */
function onSignals(running: Running): void {
  let isStopping = false;
  const stop = async () => {
    if (isStopping) Deno.exit(1);
    isStopping = true;
    await running.stop();
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
  onSignals(await start(settings, createLog(settings.LOG_LEVEL, settings.LOG_FORMAT)));
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SettingError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
