/**
 * Rooms that live in Redis, for many processes and machines: give the engine to `createParley`.
 *
 * @module
 */
import { DEFAULT_LIMITS, type Limits } from "./access/limits.ts";
import type { Engine } from "./engine/engine.ts";
import { createRedisEngine } from "./engine/redis/engine.ts";
import { systemClock } from "./util/clock.ts";
import { type Log, silentLog } from "./util/log.ts";

export type * from "./parley.ts";

/**
 * Connects to Redis.
 *
 * @param url as REDIS_URL: `redis://host`, several addresses of a cluster, or Sentinels
 * @throws {Error} if Redis cannot be reached or used
 */
export function redisEngine(
  url: string,
  { limits = {}, log = silentLog }: { limits?: Partial<Limits>; log?: Log } = {},
): Promise<Engine> {
  return createRedisEngine(url, { ...DEFAULT_LIMITS, ...limits }, systemClock, log);
}
