/**
 * Who may come in, and whether there is room. Checked before an upgrade, so that a browser that was
 * refused can ask why.
 *
 * @module
 */
import { HttpError } from "../protocol/http_error.ts";
import { addressGroup, clientAddress } from "./address.ts";
import { offeredProtocols } from "./handshake.ts";
import { type Grants, missingToken, OPEN_GRANTS, type TokenCheck } from "./token.ts";

/** What the server knows of a request's other end; `Deno.ServeHandlerInfo` has it. */
export interface RequestInfo {
  remoteAddr: Deno.Addr;
}

/** Who asks. */
export interface Visitor {
  /** Address and port, for the log. */
  remote: string;
  /** What limits count by: the address, or its /64. */
  address: string;
  grants: Grants;
}

/** What a route needs of its visitors where access is restricted. */
export type Need = "nothing" | "grants" | "admin";

/** How full the server is. */
export interface Capacity {
  readonly isDraining: boolean;
  readonly isFull: boolean;
  readonly isOverMemory: boolean;
}

/** The rules of who may come in. */
export interface AccessRules {
  /** Origins of pages that may connect; see ALLOWED_ORIGINS. */
  allowedOrigins: string[];
  /** Proxies in front, whose X-Forwarded-For is believed. */
  trustedProxies: number;
  /** Checks tokens, where they are on. */
  tokens?: TokenCheck;
  /** Requests are traced with their query, so no token may be in it. */
  isTraced?: boolean;
}

/** What is to be authorized. */
export interface AccessRequest {
  request: Request;
  url: URL;
  info: RequestInfo;
  need: Need;
  room?: string;
}

/**
 * Finds out who asks, and whether they may.
 *
 * @throws {HttpError} 403 for an origin or a room that is not allowed, 401 without a good token
 */
export async function authorize(
  rules: AccessRules,
  { request, url, info, need, room }: AccessRequest,
): Promise<Visitor> {
  const { headers } = request;
  const origin = headers.get("origin");
  if (origin !== null && !isAllowedOrigin(origin, rules.allowedOrigins)) {
    throw new HttpError(403, "forbidden", "This origin is not allowed.");
  }
  const forwardedFor = headers.get("x-forwarded-for");
  const address = clientAddress(info.remoteAddr, forwardedFor, rules.trustedProxies);
  const remote = formatRemote(address, info.remoteAddr);
  let grants = OPEN_GRANTS;
  if (rules.tokens && need !== "nothing") {
    grants = await rules.tokens(findToken(rules, headers, url));
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
function findToken({ isTraced }: AccessRules, headers: Headers, url: URL): string {
  const bearer = /^Bearer +(\S+)$/i.exec(headers.get("authorization") ?? "");
  if (bearer) return bearer[1];
  const offered = offeredProtocols(headers).find((protocol) => protocol.startsWith("token."));
  if (offered) return offered.slice("token.".length);
  const token = url.searchParams.get("token");
  if (!token) throw missingToken();
  if (isTraced) {
    throw new HttpError(401, "bad_token", "A traced server takes no token in the URL.");
  }
  return token;
}

/** Why no new client should come now. */
export function unavailableReason(
  { isDraining, isFull, isOverMemory }: Capacity,
): "draining" | "full" | "overloaded" | undefined {
  return isDraining ? "draining" : isFull ? "full" : isOverMemory ? "overloaded" : undefined;
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

/** An address as `host:port`, an IPv6 host in brackets; without a port where a proxy gave it. */
function formatRemote(address: string, remote: Deno.Addr): string {
  const host = address.includes(":") ? `[${address}]` : address;
  return "hostname" in remote && remote.hostname === address ? `${host}:${remote.port}` : host;
}
