/**
 * What every handler is given: nothing in here is global, so that a test brings its own.
 *
 * @module
 */
import type { Upgrade } from "./access/handshake.ts";
import type { Grants, TokenCheck } from "./access/token.ts";
import type { Registry } from "./registry/registry.ts";
import type { Cluster } from "./start/cluster.ts";
import type { Limits } from "./access/limits.ts";
import type { Clock } from "./util/clock.ts";
import type { Log } from "./util/log.ts";

/** The parts that the handlers work with. */
export interface App {
  registry: Registry;
  log: Log;
  clock: Clock;
  limits: Limits;
  /** Origins of pages that may connect; see ALLOWED_ORIGINS. */
  allowedOrigins: string[];
  /** Proxies in front, whose X-Forwarded-For is believed. */
  trustedProxies: number;
  /** Checks tokens, where they are on. */
  tokens?: TokenCheck;
  /** The other workers of the process, where there are any. */
  cluster?: Cluster;
  /** Requests are traced with their query, so that no token may stand in it. */
  isTraced?: boolean;
  /** How a request becomes a socket; `denoUpgrade` but in tests. */
  upgrade: Upgrade;
}

/** What the server knows of a request's other end; `Deno.ServeHandlerInfo` has it. */
export interface RequestInfo {
  remoteAddr: Deno.Addr;
}

/** Who asks: what the door found out. */
export interface Visitor {
  /** Address and port, for the log. */
  remote: string;
  /** What limits count by: the address, or its /64. */
  address: string;
  grants: Grants;
}

/** A request on its way to a handler. */
export interface Call {
  request: Request;
  url: URL;
  visitor: Visitor;
  /** The room that the path names, checked; empty where it names none. */
  room: string;
}

/** Answers a call. */
export type Handler = (call: Call) => Response | Promise<Response>;
