/**
 * All of Parley as one function, for a program that listens itself.
 *
 * @module
 */
import { systemClock } from "../../handlers/clock.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import type { Log } from "../../handlers/log.ts";
import { denoUpgrade } from "../../handlers/registry/connection.ts";
import { Registry } from "../../handlers/registry/registry.ts";
import { createRouter, type Fetch } from "../../handlers/router.ts";
import { defaultSettings } from "../../handlers/settings.ts";

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
