/**
 * All of Parley as one function, for a program that listens itself.
 *
 * @module
 */
import { denoUpgrade } from "../../handlers/access/handshake.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { Registry } from "../../handlers/registry/registry.ts";
import { createRouter, type Fetch } from "../../handlers/router.ts";
import { defaultSettings } from "../../handlers/start/settings.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import type { Log } from "../../handlers/util/log.ts";

/** Parley without a port. */
export interface Parley {
  /** Answers a request, a handshake too. */
  fetch: Fetch;
  /** Sends all sockets away, over DRAIN_SECONDS at most. */
  stop(): Promise<void>;
}

/** Makes a Parley of default settings with `log`; `console` is one. */
export function createParley(log: Log): Parley {
  const settings = defaultSettings();
  const clock = systemClock;
  const keeps = {
    historySize: settings.HISTORY_SIZE,
    historySeconds: settings.HISTORY_SECONDS,
    historyMb: settings.HISTORY_MB,
    maxRooms: settings.MAX_ROOMS,
  };
  const engine = createMemoryEngine(keeps, clock);
  const localEngine = createMemoryEngine(keeps, clock);
  const registry = new Registry({
    engine,
    localEngine,
    log,
    clock,
    limits: {
      maxConnections: settings.MAX_CONNECTIONS,
      maxQueueBytes: settings.MAX_QUEUE_BYTES,
      maxMessageBytes: settings.MAX_MESSAGE_BYTES,
      drainSeconds: settings.DRAIN_SECONDS,
    },
  });
  return {
    fetch: createRouter({ registry, log, clock, settings, upgrade: denoUpgrade }),
    async stop() {
      await registry.drain();
      await Promise.all([engine.close(), localEngine.close()]);
    },
  };
}
