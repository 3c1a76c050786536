/**
 * What every handler is given, and how it is put together. Nothing in here is global, so that a test
 * brings its own parts.
 */
import type { AccessRules, Visitor } from "./access/access.ts";
import { denoUpgrade, type Upgrade } from "./access/handshake.ts";
import { fullLimits, type Limits } from "./access/limits.ts";
import { OriginRules, SAME_ORIGIN } from "./access/origins.ts";
import { LimitTable, type SharedLimits } from "./access/shared_limits.ts";
import type { SlotHandler } from "./access/slot.ts";
import type { Engine } from "./engine/engine.ts";
import { createMemoryEngine } from "./engine/memory.ts";
import type { Turn } from "./registry/flush.ts";
import type { Hooks } from "./hooks/hooks.ts";
import { Registry } from "./registry/registry.ts";
import type { Figures } from "./registry/counters.ts";
import { type Clock, systemClock } from "./util/clock.ts";
import type { MaybePromise } from "./util/maybe_promise.ts";
import { guardLog, silentLog } from "./util/log.ts";
import { OptionError } from "./util/option_error.ts";

export type { RequestInfo, Visitor } from "./access/access.ts";

/** What the process around a Parley knows of its health. */
export interface Health {
  /** Why no client should come here now; `/readyz` shows it. */
  problem?: string;
}

/** The threads of the process, as one of them sees the others. */
export interface Threads {
  /** Which of them this one is; the main thread is 0. */
  readonly index: number;
  /** The engine that all of them use. */
  readonly engine: Engine;
  /** The limits that count for all of them. */
  readonly limits: SharedLimits;
  /**
   * Reports what this one counts, once a second at least: it is its sign of life. Answers what each
   * counted when it reported last, by index, and behind that what those counted that have ended.
   */
  report(figures: Figures): Promise<Figures[]>;
}

/** What a Parley is made of; what is missing has a default. */
export interface ParleyOptions extends Hooks, Partial<AccessRules> {
  /** Keeps the rooms. @default memoryEngine(limits) */
  engine?: Engine;
  /** What clients may use, and what is kept. */
  limits?: Partial<Limits>;
  /** The path below which everything is: `/rt`. @default "" */
  prefix?: string;
  /** Whether the pages are served: chat and dashboard. @default true */
  pages?: boolean;
}

/** What a process and tests give besides. */
export interface AppOptions extends ParleyOptions {
  clock?: Clock;
  /** The threads of the process, where there are several. */
  threads?: Threads;
  health?: Health;
  /** How a request becomes a socket. @default denoUpgrade */
  upgrade?: Upgrade;
  /** Ends the turns of the event loop; tests end them by hand. */
  turn?: Turn;
}

/** The parts that the handlers work with. */
export interface App extends AccessRules, Pick<AppOptions, "threads">, Required<Given> {
  registry: Registry;
  limits: Limits;
  /** The limits that other threads count for too. */
  sharedLimits: SharedLimits;
}

type Given = Pick<AppOptions, "clock" | "health" | "prefix" | "pages" | "upgrade">;

/** What five minutes of the server's own figures need. */
const STATS_LIMITS = { historyMb: 4, maxKeys: 1_000 };

/** Puts an app together. @throws {OptionError} if an option cannot be used; nothing runs then */
export function createApp(options: AppOptions = {}): App {
  const { clock = systemClock, prefix = "", allowedOrigins = SAME_ORIGIN } = options;
  if (!/^(?:\/[\w.~-]+)*$/.test(prefix)) {
    throw new OptionError("prefix", `must be a path like /rt, is ${JSON.stringify(prefix)}`);
  }
  // Throws where no browser sends such an origin.
  new OriginRules(allowedOrigins);
  const { authorize } = options;
  const log = guardLog(options.log ?? silentLog);
  const limits = fullLimits(options.limits);
  const sharedLimits = options.threads?.limits ?? new LimitTable(limits, clock);
  const registry = new Registry({
    engine: options.engine ?? createMemoryEngine(limits, clock),
    localEngine: createMemoryEngine({ ...limits, ...STATS_LIMITS }, clock),
    log,
    clock,
    limits,
    sharedLimits,
    hooks: options,
    turn: options.turn,
  });
  return {
    registry,
    log,
    clock,
    limits,
    allowedOrigins,
    trustedProxies: options.trustedProxies ?? 0,
    // It may be a method of the options, and has figures.
    authorize: authorize && Object.assign(authorize.bind(options), authorize),
    sharedLimits,
    threads: options.threads,
    health: options.health ?? {},
    prefix,
    pages: options.pages ?? true,
    upgrade: options.upgrade ?? denoUpgrade,
  };
}

/** A request on its way to a handler. */
export interface Call {
  request: Request;
  url: URL;
  visitor: Visitor;
  /** The room that the path names, checked; empty where it names none. */
  room: string;
  /** The key or user that the path names, unchecked. */
  key?: string;
}

/** Answers a call. */
export type Handler = (call: Call, app: App) => MaybePromise<Response>;

/** Answers a call of a client that stays. */
export type ClientHandler = SlotHandler<Call, App>;
