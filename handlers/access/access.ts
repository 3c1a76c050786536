/** Who may come in. Checked before an upgrade, so that a browser that was refused can ask why. */
import { HttpError } from "../protocol/http_error.ts";
import { type Clock, systemClock, within } from "../util/clock.ts";
import { errorText, type Log } from "../util/log.ts";
import { addressGroup, clientAddress, isLoopback } from "./address.ts";
import {
  type Authorize,
  type Grants,
  OPEN_RIGHTS,
  type Rights,
  rightsOf,
  unfitRules,
} from "./grants.ts";
import { isUpgrade } from "./handshake.ts";
import { OriginRules } from "./origins.ts";

/** What the server knows of a request's other end; `Deno.ServeHandlerInfo` has it. */
export interface RequestInfo {
  /** The connection's peer. */
  remoteAddr: Deno.Addr;
}

/** Who asks. */
export interface Visitor {
  /** Address and port, for the log. */
  remote: string;
  /** What limits of connections count by: the address, or its /64. */
  address: string;
  /** What limits of requests count by: the user, else the address; nothing for an admin. */
  rateKey?: string;
  rights: Rights;
  /** The {@link BanList.count} at which it was checked; nothing where access is open. */
  bansSeen?: number;
  /** Asks for the rights of a fresh token; there only for a socket where access is restricted. */
  renew?(token: string): Promise<Rights>;
}

/** What a route needs of its visitors where access is restricted. */
export type Need = "nothing" | "grants" | "admin";

/** Who was sent away. */
export interface BanList {
  /** Whether a user is refused now. */
  has(user: string | undefined): boolean;
  /** How many users were sent away so far: who was checked before one of them may be that user. */
  readonly count: number;
}

/** How full the server is. */
export interface Capacity {
  readonly isDraining: boolean;
  readonly isFull: boolean;
  readonly isOverMemory: boolean;
}

/** The rules of who may come in. */
export interface AccessRules {
  /** Origins of pages that may connect. @default ["same"]: pages of the server's own host */
  allowedOrigins: string[];
  /** Proxies in front, whose X-Forwarded-For is believed. @default 0 */
  trustedProxies: number;
  /** Decides who may come in and do what. @default everybody may do everything */
  authorize?: Authorize;
  /** What happens is written here. @default silent */
  log: Log;
}

/** Times out an `authorize`, as a hook. */
const AUTHORIZE_MS = 30_000;
/** So many origins that were refused are told to the log. */
const MAX_REFUSED_ORIGINS = 100;

/** Who may come in. */
export class Access {
  readonly #rules: AccessRules & { clock?: Clock };
  readonly #bans: BanList;
  readonly #origins: OriginRules;
  readonly #refusedOrigins = new Set<string>();

  /** @throws {OptionError} if an allowed origin could never match */
  constructor(
    rules: AccessRules & { clock?: Clock },
    bans: BanList = { has: () => false, count: 0 },
  ) {
    this.#bans = bans;
    this.#rules = rules;
    this.#origins = new OriginRules(rules.allowedOrigins);
  }

  /** Which page may read the answer to a request: `*`, an origin, or none. */
  readerOf({ headers, url }: Request, info: RequestInfo): string | undefined {
    const origin = headers.get("origin");
    if (origin === null) return undefined;
    if (this.#origins.isAny) return "*";
    const host = headers.get("host") ?? URL.parse(url)?.host ?? "";
    const isLocal = this.#rules.trustedProxies === 0 && isLoopback(info.remoteAddr);
    return this.#origins.allows(origin, { host, isLocal }) ? origin : undefined;
  }

  /**
   * Finds out who asks, and whether they may.
   * @returns the visitor, or the answer with which an `authorize` refused
   * @throws {HttpError} 403 for an origin or a room that is not allowed, 401 without a good token
   */
  async authorize(
    { request, info, need, room }: {
      request: Request;
      info: RequestInfo;
      need: Need;
      room?: string;
    },
  ): Promise<Visitor | Response> {
    const { headers } = request;
    const { trustedProxies, authorize } = this.#rules;
    const { remoteAddr } = info;
    const forwardedFor = headers.get("x-forwarded-for");
    const { address, isForwarded } = clientAddress(remoteAddr, forwardedFor, trustedProxies);
    const host = address.includes(":") ? `[${address}]` : address;
    const port = "port" in remoteAddr && !isForwarded ? `:${remoteAddr.port}` : "";
    // No limit counts by an address that nobody knows.
    const isKnown = isForwarded || !("hostname" in remoteAddr) || remoteAddr.hostname !== "unknown";
    const visitor: Visitor = {
      remote: host + port,
      address: isKnown ? addressGroup(address) : "",
      rateKey: isKnown ? addressGroup(address) : undefined,
      rights: OPEN_RIGHTS,
    };
    return await this.#loggingRefusals(visitor, async () => {
      this.#checkOrigin(request, info);
      if (!authorize || need === "nothing") return visitor;
      const renew = isUpgrade(headers) ? this.#renewal(request, room, visitor) : undefined;
      const grants = await this.#grantsOf(request, room);
      if (grants instanceof Response) return grants;
      const rights = this.#rightsOf(grants, visitor);
      const bansSeen = this.#bans.count;
      if (need === "admin" && !rights.isAdmin) throw forbidden("This needs the right admin.");
      if (need !== "admin" && room !== undefined && !rights.maySubscribe(room)) {
        throw forbidden("This room is not allowed.");
      }
      const user = rights.user === undefined ? visitor.rateKey : `user ${rights.user}`;
      return { ...visitor, rights, renew, bansSeen, rateKey: rights.isAdmin ? undefined : user };
    });
  }

  /** Asks `authorize`, and gives up where it does not answer: a client that has gone would be held for ever. */
  async #grantsOf(request: Request, room?: string): Promise<Grants | Response> {
    const { authorize, clock = systemClock } = this.#rules;
    const asked = Promise.try(authorize!, request, room).then((grants) => ({ grants }));
    const answer = await within(clock, AUTHORIZE_MS, asked);
    if (!answer) throw new Error(`authorize did not answer in ${AUTHORIZE_MS} ms`);
    return answer.grants;
  }

  #rightsOf(grants: Grants, { remote }: Visitor): Rights {
    const rights = rightsOf(grants);
    if (this.#bans.has(rights.user)) throw forbidden("This user is not allowed now.");
    const { log } = this.#rules;
    const unfit = log.debug ? unfitRules(grants) : [];
    if (unfit.length > 0) {
      const found = JSON.stringify({ sub: rights.user, rules: unfit }).slice(0, 300);
      const text = `Rules of ${remote} name no room: ${found}`;
      log.debug?.(text, { event: "unfit_rules", remote });
    }
    return rights;
  }

  #checkOrigin(request: Request, info: RequestInfo): void {
    const origin = request.headers.get("origin");
    if (origin === null || this.readerOf(request, info) !== undefined) return;
    const text = this.#origins.explain(origin);
    const seen = this.#refusedOrigins;
    // By its text: an origin in other letters is the same, and those that are none are one.
    if (!seen.has(text) && seen.size < MAX_REFUSED_ORIGINS && origin.length < 300) {
      seen.add(text);
      this.#rules.log.warn(`Refused a page: ${text}`, { event: "origin_refused", origin });
    }
    throw forbidden(text);
  }

  /** Keeps of an upgrade what a later token needs: the request itself is gone by then. */
  #renewal({ url, headers }: Request, room: string | undefined, visitor: Visitor) {
    const kept = [...headers];
    return (token: string): Promise<Rights> =>
      this.#loggingRefusals(visitor, async () => {
        const headers = new Headers(kept);
        headers.set("authorization", `Bearer ${token}`);
        const grants = await this.#grantsOf(new Request(url, { headers }), room);
        if (!(grants instanceof Response)) return this.#rightsOf(grants, visitor);
        throw new HttpError(grants.status, "forbidden", "The token was refused.");
      }).catch((error) => {
        // A defect of the program's: the client is told `forbidden`, nothing of it.
        if (!(error instanceof HttpError)) {
          const text = `Cannot renew the rights of ${visitor.remote}: ${errorText(error)}`;
          this.#rules.log.error(text, { event: "error", remote: visitor.remote });
        }
        throw error;
      });
  }

  async #loggingRefusals<T>({ remote }: Visitor, task: () => Promise<T>): Promise<T> {
    try {
      return await task();
    } catch (error) {
      if (error instanceof HttpError) {
        const fields = { event: "refused", remote, code: error.code };
        this.#rules.log.debug?.(`Refused ${remote}: ${error.message}`, fields);
      }
      throw error;
    }
  }
}

function forbidden(text: string): HttpError {
  return new HttpError(403, "forbidden", text);
}

/** Why no new client should come now. */
export function unavailableReason(
  { isDraining, isFull, isOverMemory }: Capacity,
): "draining" | "full" | "overloaded" | undefined {
  return isDraining ? "draining" : isFull ? "full" : isOverMemory ? "overloaded" : undefined;
}
