/**
 * The door: who may come in. Checked before an upgrade, so that a refused browser can ask why.
 *
 * @module
 */
import { offeredProtocols } from "./handshake.ts";
import type { App, RequestInfo, Visitor } from "../app.ts";
import { HttpError } from "../http/error.ts";
import { addressGroup, clientAddress } from "./address.ts";
import { type Grants, missingToken, OPEN_GRANTS } from "./token.ts";

/** Seconds after which a client that found the server full may come back. */
const FULL_RETRY_SECONDS = 5;

/** What a route asks of its visitors where tokens are on. */
export type Need = "nothing" | "token" | "admin";

/**
 * Lets a request in.
 *
 * @throws {HttpError} 403 for an origin or a room that is not allowed, 401 without a good token
 */
export async function admit(
  app: App,
  request: Request,
  url: URL,
  info: RequestInfo,
  need: Need,
  room: string | undefined,
): Promise<Visitor> {
  const { tokens } = app;
  const { headers } = request;
  const origin = headers.get("origin");
  if (origin !== null && !isAllowedOrigin(origin, app.allowedOrigins)) {
    throw new HttpError(403, "forbidden", "This origin is not allowed.");
  }
  const forwardedFor = headers.get("x-forwarded-for");
  const address = clientAddress(info.remoteAddr, forwardedFor, app.trustedProxies);
  const remote = formatRemote(address, info.remoteAddr);
  let grants = OPEN_GRANTS;
  if (tokens && need !== "nothing") {
    grants = await tokens(findToken(app, headers, url));
    checkGrants(grants, need, room);
  }
  return { remote, address: addressGroup(address), grants };
}

function checkGrants(grants: Grants, need: Need, room: string | undefined): void {
  if (need === "admin" ? !grants.isAdmin : room !== undefined && !grants.mayHear(room)) {
    const what = need === "admin" ? "This needs the claim admin." : "This room is not allowed.";
    throw new HttpError(403, "forbidden", what);
  }
}

/** The token of a request: in its header, as a subprotocol, or in its query. */
function findToken(app: App, headers: Headers, url: URL): string {
  const bearer = /^Bearer +(\S+)$/i.exec(headers.get("authorization") ?? "");
  if (bearer) return bearer[1];
  const offered = offeredProtocols(headers).find((protocol) => protocol.startsWith("token."));
  if (offered) return offered.slice("token.".length);
  const token = url.searchParams.get("token");
  if (!token) throw missingToken();
  if (app.isTraced) {
    throw new HttpError(401, "bad_token", "A traced server takes no token in the URL.");
  }
  return token;
}

/** Why no new client should come here now. */
export function closedReason({ registry }: App): "draining" | "full" | "overloaded" | undefined {
  return registry.isDraining
    ? "draining"
    : registry.isFull
    ? "full"
    : registry.isOverMemory
    ? "overloaded"
    : undefined;
}

/**
 * Finds a place for a connection that stays: a socket or a reader of events.
 *
 * @throws {HttpError} 503 with `Retry-After` while the server drains or is full, 429 for an address
 * that has too many
 */
export function admitClient(app: App, { address }: Visitor): void {
  const { registry, limits } = app;
  const reason = closedReason(app);
  if (reason) {
    const seconds = reason === "draining" ? Math.max(1, limits.drainSeconds) : FULL_RETRY_SECONDS;
    const text = `The server is ${reason}.`;
    throw new HttpError(503, reason, text, { "retry-after": String(seconds) });
  }
  const limit = limits.maxConnectionsPerIp;
  if (limit > 0 && registry.heldBy(address) >= limit) {
    const text = "Too many connections from this address.";
    const headers = { "retry-after": String(FULL_RETRY_SECONDS) };
    throw new HttpError(429, "too_many_connections", text, headers);
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

/** An address as `host:port`, an IPv6 host in brackets; without a port where a proxy told it. */
function formatRemote(address: string, remote: Deno.Addr): string {
  const host = address.includes(":") ? `[${address}]` : address;
  return "hostname" in remote && remote.hostname === address ? `${host}:${remote.port}` : host;
}
