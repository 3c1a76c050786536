/** Where a server listens: a port, with TLS or without, or a Unix domain socket. */
import type { Health } from "../app.ts";
import type { Fetch } from "../router.ts";
import { systemClock, within } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { SettingError } from "./setting_error.ts";
import type { Settings } from "./settings.ts";

/** What a listener works with; in `health` it says why it takes no connection. */
interface ListenOptions {
  settings: Settings;
  handler: Fetch;
  log: Log;
  health: Health;
  /** The threads that listen on the same port, of which this one is `index`. */
  threads?: { index: number };
}

const RETRY_MS = 250;
/** A problem is shown so long after it was solved: load balancers look every few seconds. */
const SHOWN_MS = 10_000;
/** How long the requests under way get: a download that stalls must not hold the stop. */
const SHUTDOWN_MS = 500;

/**
 * Serves on the address that the settings name, and goes on when the system refuses it a connection.
 * @returns its URL, a wildcard address as this machine, or the path of its socket; and what ends it,
 * once the requests under way are answered or their time is over
 * @throws {SettingError} if it cannot listen there, or use the certificate
 */
export async function listen(options: ListenOptions) {
  const { settings, log, health } = options;
  let server = await start(options);
  const { addr } = server;
  const port = "port" in addr ? addr.port : 0;
  let isStopping = false;

  // After a failure, such as no file descriptor left. Sockets that are open live on.
  async function listenAgain(error: unknown): Promise<void> {
    health.problem = "not accepting connections";
    log.error(`Cannot accept connections: ${reasonOf(error)}. Listening again`, { event: "deaf" });
    while (!isStopping) {
      // Not by the clock: nothing else may keep the process alive now.
      await new Promise<void>((resolve) => setTimeout(resolve, RETRY_MS));
      try {
        server = await serveAt(port, options);
        log.warn("Accepting connections again", { event: "listening" });
        systemClock.after(SHOWN_MS, () => health.problem = undefined);
        return;
      } catch (again) {
        log.debug?.(`Cannot listen yet: ${reasonOf(again)}`, { event: "deaf" });
      }
    }
  }

  (async () => {
    while (!isStopping) await server.finished.catch(listenAgain);
  })();
  return {
    address: addressOf(addr, settings),
    shutdown(): Promise<void> {
      isStopping = true;
      return within(systemClock, SHUTDOWN_MS, server.shutdown());
    },
  };
}

/** Listens for the first time, and says what is wrong with the settings if it cannot. */
async function start(options: ListenOptions) {
  const { PORT, HOST, SOCKET_PATH, TLS_CERT, TLS_KEY } = options.settings;
  try {
    // With reusePort, a port that another process has would be shared in silence.
    if (options.threads?.index === 0) Deno.listen({ port: PORT, hostname: HOST }).close();
    return await serveAt(PORT, options);
  } catch (error) {
    if (error instanceof SettingError) throw error;
    const { AddrInUse, AddrNotAvailable, PermissionDenied, NotCapable } = Deno.errors;
    const reason = reasonOf(error);
    if (error instanceof AddrNotAvailable || reason.includes("lookup address")) {
      throw new SettingError(`Cannot use HOST: ${HOST} is no address of this machine`);
    }
    const kinds = [AddrInUse, PermissionDenied, NotCapable];
    const isOfAddress = kinds.some((kind) => error instanceof kind);
    const what = TLS_CERT && !isOfAddress
      ? `use TLS_CERT ${TLS_CERT} and TLS_KEY ${TLS_KEY}`
      : `listen on ${SOCKET_PATH || `${HOST}:${PORT}`}`;
    throw new SettingError(`Cannot ${what}: ${reason}`);
  }
}

async function serveAt(port: number, options: ListenOptions) {
  const { settings, handler, log, threads } = options;
  const { HOST, SOCKET_PATH, TLS_CERT, TLS_KEY } = settings;
  if (SOCKET_PATH) await removeStaleSocket(SOCKET_PATH);
  return Deno.serve({
    ...(SOCKET_PATH ? { path: SOCKET_PATH } : { port, hostname: HOST }),
    ...(threads && { reusePort: true }),
    ...(TLS_CERT && { cert: readPem("TLS_CERT", TLS_CERT), key: readPem("TLS_KEY", TLS_KEY) }),
    automaticCompression: true,
    onListen() {},
    // The router answers all errors; what comes here is a body that broke off: an evicted reader's.
    onError(error) {
      log.debug?.(`Cannot finish a response: ${reasonOf(error)}`, { event: "broken" });
      return new Response(null, { status: 500 });
    },
  }, handler) as Deno.HttpServer<Deno.Addr>;
}

/**
 * Takes away the socket of a server that did not end by itself; one that answers stays.
 * @throws {SettingError} if something else stands there
 */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await Deno.lstat(path).catch(() => undefined);
  if (found && !found.isSocket) {
    throw new SettingError(`Cannot listen on ${path}: a file is there, not a socket`);
  }
  try {
    if (found) (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) await Deno.remove(path);
  }
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

function addressOf(addr: Deno.Addr, { TLS_CERT }: Settings): string {
  if (!("hostname" in addr)) return "path" in addr ? addr.path : "a socket";
  const host = ["0.0.0.0", "::"].includes(addr.hostname) ? "localhost" : addr.hostname;
  const shown = host.includes(":") ? `[${host}]` : host;
  return `${TLS_CERT ? "https" : "http"}://${shown}:${addr.port}`;
}

/** What a person may open there: the page, and the sockets beside it. */
export function urlsOf(address: string): string {
  if (!address.startsWith("http")) return address;
  const sockets = address.replace("http", "ws");
  return `${address}/ ${sockets}/echo ${sockets}/chat/lobby`;
}
