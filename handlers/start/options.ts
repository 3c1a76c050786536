/**
 * From settings to what `createParley` takes: keys are read and the engine is opened.
 *
 * @module
 */
import { createTokenCheck } from "../access/token.ts";
import type { AppOptions } from "../app.ts";
import type { Engine } from "../engine/engine.ts";
import { createMemoryEngine } from "../engine/memory.ts";
import { systemClock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { SettingError } from "../util/setting_error.ts";
import { reasonOf } from "./listen.ts";
import { limitsAndAccess, type Settings } from "./settings.ts";
import type { Threads } from "./threads.ts";

/**
 * Makes the options of a server.
 *
 * @param threads the threads of which this one is one, with their engine
 * @throws {SettingError} if keys cannot be read or the engine cannot be opened
 */
export async function parleyOptions(
  settings: Settings,
  log: Log,
  threads?: Threads,
): Promise<AppOptions> {
  const { limits, ...access } = limitsAndAccess(settings);
  return {
    ...access,
    limits,
    tokens: await createTokenCheck(settings, systemClock),
    engine: threads?.engine ?? await openEngine(settings, log),
    log,
    threads,
  };
}

/**
 * Opens the engine that the settings ask for; what it needs is loaded only then.
 *
 * @throws {SettingError} if it cannot be opened
 */
export async function openEngine(settings: Settings, log: Log): Promise<Engine> {
  const clock = systemClock;
  const { limits } = limitsAndAccess(settings);
  const { DATA_FILE, REDIS_URL } = settings;
  try {
    if (DATA_FILE) {
      const { createDurableEngine } = await import("../engine/durable.ts");
      return await createDurableEngine(DATA_FILE, limits, clock, log);
    }
    if (REDIS_URL) {
      const { createRedisEngine } = await import("../engine/redis/engine.ts");
      return await createRedisEngine(REDIS_URL, limits, clock, log);
    }
  } catch (error) {
    throw new SettingError(reasonOf(error));
  }
  return createMemoryEngine(limits, clock);
}
