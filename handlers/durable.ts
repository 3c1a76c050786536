/**
 * Rooms that survive a restart, in one file: give the engine to `createParley`.
 *
 * @module
 */
import { fullLimits, type Limits } from "./access/limits.ts";
import { createDurableEngine } from "./engine/durable.ts";
import type { Engine } from "./engine/engine.ts";
import { systemClock } from "./util/clock.ts";
import { type Log, silentLog } from "./util/log.ts";

export type * from "./parley.ts";
export { OptionError } from "./util/option_error.ts";

/**
 * Opens a file, or makes it.
 *
 * @throws {OptionError} if the file cannot be used, or another process uses it
 */
export function durableEngine(
  file: string,
  { limits = {}, log = silentLog }: { limits?: Partial<Limits>; log?: Log } = {},
): Promise<Engine> {
  return createDurableEngine(file, fullLimits(limits), systemClock, log);
}
