/**
 * Rooms that survive a restart, in one file: give the engine to `createParley`.
 *
 * @module
 */
import { DEFAULT_LIMITS, type Limits } from "./access/limits.ts";
import { createDurableEngine } from "./engine/durable.ts";
import type { Engine } from "./engine/engine.ts";
import { systemClock } from "./util/clock.ts";
import { type Log, silentLog } from "./util/log.ts";

export type * from "./parley.ts";
export { isStoreWorker } from "./engine/store_name.ts";

/**
 * Opens a file, or makes it.
 *
 * @throws {Error} if the file cannot be used, or another process uses it
 */
export function durableEngine(
  file: string,
  { limits = {}, log = silentLog }: { limits?: Partial<Limits>; log?: Log } = {},
): Promise<Engine> {
  return createDurableEngine(file, { ...DEFAULT_LIMITS, ...limits }, systemClock, log);
}
