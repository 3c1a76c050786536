/**
 * Rooms that live in Redis, for many processes and machines: give the engine to `createParley`.
 *
 * @module
 */
import { fullLimits, type Limits } from "./access/limits.ts";
import type { Engine } from "./engine/engine.ts";
import { createRedisEngine } from "./engine/redis/engine.ts";
import { systemClock } from "./util/clock.ts";
import { type Log, silentLog } from "./util/log.ts";

export type * from "./parley.ts";
export { OptionError } from "./util/option_error.ts";

/**
 * Connects to Redis.
 *
 * @param url `redis://host`, several addresses of a cluster with commas, or `redis+sentinel://host:port,…/name`
 * @throws {OptionError} if the URL is of another kind, or a limit cannot be used
 */
export function redisEngine(
  url: string,
  { limits = {}, log = silentLog }: { limits?: Partial<Limits>; log?: Log } = {},
): Promise<Engine> {
  return createRedisEngine(url, fullLimits(limits), systemClock, log);
}
