/** From settings to what `createParley` takes: keys are read and the engine is opened. */
import type { Authorize } from "../access/grants.ts";
import { jwtAuthorizer } from "../access/token.ts";
import type { AppOptions, Health, Threads } from "../app.ts";
import type { Engine } from "../engine/engine.ts";
import { durableEngine, redisEngine } from "../engines.ts";
import type { Hooks } from "../hooks/hooks.ts";
import { memoryEngine } from "../parley.ts";
import type { Log } from "../util/log.ts";
import { limitsAndAccess, type Settings } from "./settings.ts";

/**
 * Makes the options of a server.
 * @param threads the threads of which this one is one, with their engine
 * @param isTraced requests are traced with their query, so no token may be in it
 * @throws {OptionError} if keys cannot be read or the engine cannot be opened
 */
export async function parleyOptions(
  settings: Settings,
  log: Log,
  threads?: Threads,
  isTraced = false,
): Promise<AppOptions & { health: Health }> {
  const { limits, ...access } = limitsAndAccess(settings);
  return {
    ...access,
    // Each thread bounds its own queues.
    limits: { ...limits, queueMb: limits.queueMb / settings.WORKERS },
    ...await hooksBy(settings, log),
    authorize: authorizeBy(settings, log, isTraced),
    engine: threads?.engine ?? await openEngine(settings, log),
    log,
    threads,
    health: {},
  };
}

function authorizeBy(settings: Settings, log: Log, isTraced: boolean): Authorize | undefined {
  if (!settings.AUTH_SECRET && !settings.AUTH_JWKS) return undefined;
  return jwtAuthorizer({
    secret: settings.AUTH_SECRET || undefined,
    jwks: settings.AUTH_JWKS || undefined,
    issuer: settings.AUTH_ISSUER || undefined,
    audience: settings.AUTH_AUDIENCE || undefined,
    maxTokenSeconds: settings.MAX_TOKEN_SECONDS,
    isTraced,
    log,
  });
}

/** Hooks that may wait for the backend, over all threads. */
const MAX_WAITING_HOOKS = 1_000;

async function hooksBy(settings: Settings, log: Log): Promise<Hooks> {
  const { HOOK_URL, HOOK_EVENTS, HOOK_MS, HOOK_SECRET, MAX_MESSAGE_BYTES, WORKERS } = settings;
  if (!HOOK_URL) return {};
  const { urlHooks } = await import("../hooks/url_hooks.ts");
  return urlHooks({
    url: HOOK_URL,
    events: HOOK_EVENTS,
    timeoutMs: HOOK_MS,
    secret: HOOK_SECRET,
    maxMessageBytes: MAX_MESSAGE_BYTES,
    maxWaiting: Math.ceil(MAX_WAITING_HOOKS / WORKERS),
    log,
  });
}

/**
 * Opens the engine that the settings ask for; what it needs is loaded only then.
 * @throws {OptionError} if it cannot be opened
 */
export async function openEngine(settings: Settings, log: Log): Promise<Engine> {
  const { DATA_FILE, REDIS_URL } = settings;
  const { limits } = limitsAndAccess(settings);
  if (DATA_FILE) return await durableEngine(DATA_FILE, { limits, log });
  if (REDIS_URL) return await redisEngine(REDIS_URL, { limits, log });
  return memoryEngine(limits);
}
