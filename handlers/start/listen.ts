/**
 * Where a server listens: a port, with TLS or without, or a Unix domain socket.
 *
 * @module
 */
import type { Fetch } from "../router.ts";
import type { Log } from "../util/log.ts";
import { SettingError } from "../util/setting_error.ts";
import type { Settings } from "./settings.ts";

/**
 * Serves on the address that the settings name.
 *
 * @param reusePort other threads listen on the same port
 * @throws {SettingError} if it cannot listen there, or use the certificate
 */
export function listen(
  settings: Settings,
  log: Log,
  handler: Fetch,
  reusePort = false,
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
    if (SOCKET_PATH) return Deno.serve({ path: SOCKET_PATH, onListen, onError }, handler);
    const at = { port: PORT, hostname: HOST, ...(reusePort && { reusePort }) };
    return Deno.serve({ ...at, onListen, onError, ...tls }, handler);
  } catch (error) {
    if (TLS_CERT && !isAboutAddress(error)) {
      throw new SettingError(
        `Cannot use TLS_CERT ${TLS_CERT} and TLS_KEY ${TLS_KEY}: ${reasonOf(error)}`,
      );
    }
    const where = SOCKET_PATH ? SOCKET_PATH : `${HOST}:${PORT}`;
    throw new SettingError(`Cannot listen on ${where}: ${reasonOf(error)}`);
  }
}

/**
 * Takes away the socket of a server that did not end by itself; one that answers stays.
 *
 * @throws {SettingError} if something else stands there
 */
export async function removeStaleSocket(path: string): Promise<void> {
  const found = await Deno.lstat(path).catch(() => undefined);
  if (found && !found.isSocket) {
    throw new SettingError(`Cannot listen on ${path}: what stands there is no socket`);
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

function isAboutAddress(error: unknown): boolean {
  const { AddrInUse, AddrNotAvailable, PermissionDenied, NotCapable } = Deno.errors;
  return [AddrInUse, AddrNotAvailable, PermissionDenied, NotCapable]
    .some((kind) => error instanceof kind);
}

/** An error's reason in the words of a start that fails. */
export function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.AddrInUse) return "the address is in use";
  return error instanceof Error ? error.message : String(error);
}

/** The URL to open: a wildcard address is this machine. */
export function describeAddress(addr: Deno.Addr, { TLS_CERT }: Settings): string {
  if (!("hostname" in addr)) return "path" in addr ? addr.path : "a socket";
  const host = ["0.0.0.0", "::"].includes(addr.hostname) ? "localhost" : addr.hostname;
  const shown = host.includes(":") ? `[${host}]` : host;
  return `${TLS_CERT ? "https" : "http"}://${shown}:${addr.port}`;
}
