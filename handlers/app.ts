/**
 * What every handler is given: nothing in here is global, so that a test brings its own.
 *
 * @module
 */
import type { AccessRules, Visitor } from "./access/access.ts";
import type { Upgrade } from "./access/handshake.ts";
import type { Limits } from "./access/limits.ts";
import type { Registry } from "./registry/registry.ts";
import type { Cluster } from "./start/cluster.ts";
import type { Clock } from "./util/clock.ts";
import type { Log } from "./util/log.ts";

export type { RequestInfo, Visitor } from "./access/access.ts";

/** The parts that the handlers work with. */
export interface App extends AccessRules {
  registry: Registry;
  log: Log;
  clock: Clock;
  limits: Limits;
  /** The other workers of the process, where there are any. */
  cluster?: Cluster;
  /** How a request becomes a socket; `denoUpgrade` but in tests. */
  upgrade: Upgrade;
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
