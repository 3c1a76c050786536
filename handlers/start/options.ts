/**
 * From settings to what `createParley` takes: keys are read and the engine is opened.
 *
 * @module
 */
import type { Authorize } from "../access/grants.ts";
import { jwtAuthorizer } from "../access/token.ts";
import type { AppOptions } from "../app.ts";
import type { Engine } from "../engine/engine.ts";
import { createMemoryEngine, type HistoryLimits } from "../engine/memory.ts";
import { systemClock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { SettingError } from "../util/setting_error.ts";
import type { Cluster } from "./cluster.ts";
import { reasonOf } from "./listen.ts";
import { limitsAndAccess, type Settings } from "./settings.ts";

/**
 * Makes the options of a server.
 *
 * @param cluster the workers of which this thread is one
 * @param isTraced requests are traced with their query, so no token may be in it
 * @throws {SettingError} if keys cannot be read or the engine cannot be opened
 */
export async function parleyOptions(
  settings: Settings,
  log: Log,
  cluster?: Cluster,
  isTraced = false,
): Promise<AppOptions> {
  const { limits, ...access } = limitsAndAccess(settings);
  const share = cluster ? cluster.ports.length : 1;
  return {
    ...access,
    limits: {
      ...limits,
      maxConnections: Math.ceil(limits.maxConnections / share),
      maxConnectionsPerIp: Math.ceil(limits.maxConnectionsPerIp / share),
      postRate: Math.ceil(limits.postRate / share),
    },
    authorize: authorizeBy(settings, log, isTraced),
    engine: await openEngine(settings, limits, log, cluster),
    log,
    cluster,
  };
}

/** The check of tokens that the settings ask for. */
function authorizeBy(settings: Settings, log: Log, isTraced: boolean): Authorize | undefined {
  const { AUTH_SECRET: secret, AUTH_JWKS: jwks } = settings;
  if (!secret && !jwks) return undefined;
  return jwtAuthorizer({
    secret: secret || undefined,
    jwks: jwks || undefined,
    issuer: settings.AUTH_ISSUER || undefined,
    audience: settings.AUTH_AUDIENCE || undefined,
    maxTokenSeconds: settings.MAX_TOKEN_SECONDS,
    isTraced,
    log,
  });
}

/** The engine that the settings ask for; what it needs is loaded only then. */
async function openEngine(
  { REDIS_URL }: Settings,
  limits: HistoryLimits,
  log: Log,
  cluster?: Cluster,
): Promise<Engine> {
  const clock = systemClock;
  if (REDIS_URL) {
    const { createRedisEngine } = await import("../engine/redis/engine.ts");
    const share = cluster ? cluster.ports.length : 1;
    const { historyMb, maxRooms } = limits;
    const own = { ...limits, historyMb: historyMb / share, maxRooms: Math.ceil(maxRooms / share) };
    try {
      return await createRedisEngine(REDIS_URL, own, clock, log);
    } catch (error) {
      throw new SettingError(reasonOf(error));
    }
  }
  if (!cluster) return createMemoryEngine(limits, clock);
  const { createWorkersEngine } = await import("../engine/workers.ts");
  return createWorkersEngine({ ports: cluster.ports, limits, clock, log });
}
