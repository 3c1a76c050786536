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
 * @param threads the threads that listen on the same port, of which this one is `index`
 * @throws {SettingError} if it cannot listen there, or use the certificate
 */
export async function listen(
  settings: Settings,
  log: Log,
  handler: Fetch,
  threads?: { index: number },
): Promise<Deno.HttpServer<Deno.Addr>> {
  const { PORT, HOST, SOCKET_PATH, TLS_CERT, TLS_KEY } = settings;
  if (SOCKET_PATH) await removeStaleSocket(SOCKET_PATH);
  const options = {
    ...(SOCKET_PATH ? { path: SOCKET_PATH } : { port: PORT, hostname: HOST }),
    ...(threads && { reusePort: true }),
    ...(TLS_CERT && { cert: readPem("TLS_CERT", TLS_CERT), key: readPem("TLS_KEY", TLS_KEY) }),
    automaticCompression: true,
    onListen() {},
    // The router answers all errors; what comes here is a body that broke off: an evicted reader's.
    onError(error: unknown) {
      log.debug?.(`Cannot finish a response: ${reasonOf(error)}`, { event: "broken" });
      return new Response(null, { status: 500 });
    },
  };
  try {
    // With reusePort, a port that another process has would be shared in silence.
    if (threads?.index === 0) Deno.listen({ port: PORT, hostname: HOST }).close();
    return Deno.serve(options, handler);
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

/** The URL of a listening server, a wildcard address as this machine; or the path of its socket. */
export function addressOf(addr: Deno.Addr, { TLS_CERT }: Settings): string {
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
