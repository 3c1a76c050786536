/**
 * Engines that keep rooms elsewhere: give one to `createParley`. What it needs is loaded when it is opened.
 * @module
 */
import { fullLimits, type Limits } from "./access/limits.ts";
import type { Engine } from "./engine/engine.ts";
import { systemClock } from "./util/clock.ts";
import { guardLog, type Log, silentLog } from "./util/log.ts";

export type * from "./parley.ts";
export { OptionError } from "./util/option_error.ts";

/** What an engine keeps, and where it says what happens. */
export interface EngineOptions {
  /** What it keeps. @default DEFAULT_LIMITS */
  limits?: Partial<Limits>;
  /** What happens is written here. @default silent */
  log?: Log;
}

/**
 * Opens a file, or makes it: rooms survive a restart there.
 * @throws {OptionError} if the file cannot be used, or another process uses it
 */
export async function durableEngine(
  file: string,
  { limits, log = silentLog }: EngineOptions = {},
): Promise<Engine> {
  const { createDurableEngine } = await import("./engine/durable.ts");
  return await createDurableEngine(file, fullLimits(limits), systemClock, guardLog(log));
}

/**
 * Connects to Redis: rooms live there, for many processes and machines.
 * @param url `redis://host`, several addresses of a cluster with commas, or `redis+sentinel://host:port,…/name`
 * @throws {OptionError} if the URL is of another kind, or a limit cannot be used
 */
export async function redisEngine(
  url: string,
  { limits, log = silentLog }: EngineOptions = {},
): Promise<Engine> {
  const { createRedisEngine } = await import("./engine/redis/engine.ts");
  return await createRedisEngine(url, fullLimits(limits), systemClock, guardLog(log));
}
