/**
 * The door: who may come in. Checked before an upgrade, so that a refused browser can ask why.
 *
 * @module
 */
import type { App, RequestInfo, Visitor } from "./app.ts";
import { HttpError } from "./http_error.ts";
import { type Dialect, PARLEY_V1 } from "./registry/messages.ts";

/** Seconds after which a client that found the server full may come back. */
const FULL_RETRY_SECONDS = 5;

/**
 * Lets a request in.
 *
 * @throws {HttpError} 403 for an origin that is not allowed
 */
export function admit(app: App, request: Request, info: RequestInfo): Visitor {
  const origin = request.headers.get("origin");
  if (origin !== null && !isAllowedOrigin(origin, app.settings.ALLOWED_ORIGINS)) {
    app.registry.counters.refuse("forbidden");
    throw new HttpError(403, "forbidden", "This origin is not allowed.");
  }
  return { remote: formatAddress(info.remoteAddr) };
}

/**
 * Finds a place for a connection that stays: a socket or a reader of events.
 *
 * @throws {HttpError} 503 with `Retry-After` while the server drains or is full
 */
export function admitClient({ registry, settings }: App): void {
  if (registry.isDraining) {
    registry.counters.refuse("draining");
    const after = String(Math.max(1, settings.DRAIN_SECONDS));
    throw new HttpError(503, "draining", "The server is going away.", { "retry-after": after });
  }
  if (registry.isFull) {
    registry.counters.refuse("full");
    const after = String(FULL_RETRY_SECONDS);
    throw new HttpError(503, "full", "The server is full.", { "retry-after": after });
  }
}

/** Whether a page of this origin may connect. `*.example.com` stands for the hosts below it. */
export function isAllowedOrigin(origin: string, allowed: string[]): boolean {
  if (allowed.length === 0) return true;
  return allowed.some((rule) => {
    if (!rule.startsWith("*.")) return rule === origin;
    const host = URL.canParse(origin) ? new URL(origin).hostname : "";
    return host.endsWith(rule.slice(1)) && host.length >= rule.length;
  });
}

/**
 * Checks what the runtime does not of a handshake, and tells its dialect.
 *
 * @throws {HttpError} 426 without an upgrade to version 13, 400 for a bad key. RFC 6455, 4.2.1
 */
export function checkHandshake({ headers, method }: Request): Dialect {
  if (method !== "GET" || !isUpgrade(headers)) {
    throw new HttpError(426, "upgrade_required", "This is a WebSocket endpoint.", {
      upgrade: "websocket",
      connection: "Upgrade",
    });
  }
  if (headers.get("sec-websocket-version") !== "13") {
    throw new HttpError(426, "bad_version", "Only version 13 of WebSocket is spoken here.", {
      "sec-websocket-version": "13",
    });
  }
  if (!/^[A-Za-z0-9+/]{22}==$/.test(headers.get("sec-websocket-key") ?? "")) {
    throw new HttpError(400, "bad_key", "Sec-WebSocket-Key must be 16 bytes in base64.");
  }
  return offeredProtocols(headers).includes(PARLEY_V1) ? "v1" : "plain";
}

/** Whether a request asks for a WebSocket. */
export function isUpgrade(headers: Headers): boolean {
  return hasToken(headers.get("upgrade"), "websocket") &&
    hasToken(headers.get("connection"), "upgrade");
}

/** The subprotocols that a client offers, in its order. */
export function offeredProtocols(headers: Headers): string[] {
  return splitList(headers.get("sec-websocket-protocol"));
}

function hasToken(header: string | null, token: string): boolean {
  return splitList(header).some((one) => one.toLowerCase() === token);
}

function splitList(header: string | null): string[] {
  return (header ?? "").split(",").map((part) => part.trim());
}

/** An address as `host:port`, an IPv6 host in brackets; `unix` for a socket's path. */
function formatAddress(address: Deno.Addr): string {
  if (!("hostname" in address)) return "unix";
  const { hostname, port } = address;
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}
