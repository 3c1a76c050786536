/**
 * What every handler is given: nothing in here is global, so that a test brings its own.
 *
 * @module
 */
import type { Clock } from "./clock.ts";
import type { Log } from "./log.ts";
import type { Upgrade } from "./registry/connection.ts";
import type { Registry } from "./registry/registry.ts";
import type { Settings } from "./settings.ts";

/** The parts that the handlers work with. */
export interface App {
  registry: Registry;
  log: Log;
  clock: Clock;
  settings: Settings;
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
}

/** A request on its way to a handler. */
export interface Call {
  request: Request;
  url: URL;
  visitor: Visitor;
  /** The room that the path names, checked. */
  room: string;
}

/** Answers a call. */
export type Handler = (call: Call) => Response | Promise<Response>;
