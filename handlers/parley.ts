/**
 * One server in this thread: engine, registry and router behind `Deno.serve`.
 *
 * @module
 */
import { denoUpgrade } from "./access/handshake.ts";
import { guardMemory } from "./access/memory_guard.ts";
import { createTokenCheck } from "./access/token.ts";
import type { App } from "./app.ts";
import type { Engine } from "./engine/engine.ts";
import { createMemoryEngine, type HistoryLimits } from "./engine/memory.ts";
import type { WorkersEngine } from "./engine/workers.ts";
import { readFigures } from "./http/metrics.ts";
import { publishStats } from "./http/stats.ts";
import { Registry } from "./registry/registry.ts";
import { createRouter } from "./router.ts";
import type { Cluster } from "./start/cluster.ts";
import { describeAddress, listen, reasonOf, removeStaleSocket } from "./start/listen.ts";
import { limitsOf, type Settings } from "./start/settings.ts";
import { type Clock, systemClock } from "./util/clock.ts";
import type { Log } from "./util/log.ts";
import { SettingError } from "./util/setting_error.ts";

/** A running server. */
export interface Running {
  /** Where it listens: `http://127.0.0.1:8000`, or the path of its socket. */
  readonly address: string;
  readonly registry: Registry;
  /** Sends all clients away and takes no request any more. */
  drain(): Promise<void>;
  /** Drains, then ends all. */
  stop(): Promise<void>;
}

/** What a server may be given besides its settings. */
export interface ServerOptions {
  /** The workers of which this thread is one. */
  cluster?: Cluster;
  /** Requests are traced with their query. */
  isTraced?: boolean;
}

/** How long the last frames and requests get after the drain. */
const GRACE_MS = 500;
/** How long an engine gets to say goodbye. */
const CLOSE_MS = 300;
/** Five minutes of the server's own figures. */
const STATS_HISTORY = 300;

/**
 * Starts a server in this thread.
 *
 * @throws {SettingError} if it cannot listen, or read its keys, with these settings
 */
export async function start(
  settings: Settings,
  log: Log,
  { cluster, isTraced = false }: ServerOptions = {},
): Promise<Running> {
  const clock = systemClock;
  const tokens = await createTokenCheck(settings, clock);
  const limits = limitsOf(settings);
  const engine = await createEngine(settings, limits, clock, log, cluster);
  const localEngine = createMemoryEngine({ ...limits, historySize: STATS_HISTORY }, clock);
  const share = cluster ? cluster.ports.length : 1;
  const shared = {
    ...limits,
    maxConnections: Math.ceil(limits.maxConnections / share),
    maxConnectionsPerIp: Math.ceil(limits.maxConnectionsPerIp / share),
    postRate: Math.ceil(limits.postRate / share),
  };
  const registry = new Registry({
    engine,
    localEngine,
    log,
    clock,
    logsMessages: settings.LOG_LEVEL === "debug",
    limits: shared,
  });
  const app: App = {
    registry,
    log,
    clock,
    limits: shared,
    allowedOrigins: settings.ALLOWED_ORIGINS,
    trustedProxies: settings.TRUST_PROXY,
    tokens,
    cluster,
    isTraced,
    upgrade: denoUpgrade,
  };
  if (settings.SOCKET_PATH) await removeStaleSocket(settings.SOCKET_PATH);
  // With reusePort, a port that another process has would be shared in silence.
  if (cluster?.index === 0) await listen(settings, log, createRouter(app)).shutdown();
  const server = listen(settings, log, createRouter(app), share > 1);
  const stopGuard = guardMemory({ registry, maxMb: settings.MAX_RSS_MB, clock, log });
  const stopStats = publishStats(app, () => Deno.memoryUsage().rss);
  const drainOnce = async () => {
    await registry.drain();
    const end = clock.now() + GRACE_MS;
    await allGone(registry, end);
    await within(Math.max(1, end - clock.now()), server.shutdown());
  };
  // Of several workers each is drained, then stopped: the grace counts once.
  let drained: Promise<void> | undefined;
  const drain = () => drained ??= drainOnce();
  cluster?.serve({
    figures: () => readFigures(registry),
    drain,
    replacePeer: (engine as Partial<WorkersEngine>).replacePeer?.bind(engine),
  });
  return {
    address: describeAddress(server.addr, settings),
    registry,
    drain,
    async stop() {
      await drain();
      stopGuard();
      stopStats();
      await within(CLOSE_MS, Promise.all([engine.close(), localEngine.close()]));
    },
  };
}

/** The engine that the settings ask for; what it needs is loaded only then. */
async function createEngine(
  { REDIS_URL }: Settings,
  limits: HistoryLimits,
  clock: Clock,
  log: Log,
  cluster?: Cluster,
): Promise<Engine> {
  if (REDIS_URL) {
    const { createRedisEngine } = await import("./engine/redis/engine.ts");
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
  const { createWorkersEngine } = await import("./engine/workers.ts");
  return createWorkersEngine({ ports: cluster.ports, limits, clock, log });
}

/** Waits for the peers' last word: `server.shutdown` would overtake our Close frames with its own. */
async function allGone(registry: Registry, end: number): Promise<void> {
  while (registry.heldCount > 0 && systemClock.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function within(ms: number, task: Promise<unknown>): Promise<unknown> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise((resolve) => timer = setTimeout(resolve, ms));
  return Promise.race([task, limit]).finally(() => clearTimeout(timer));
}
