/**
 * All of Parley as one function, for a program that listens itself.
 *
 * @module
 */
import { denoUpgrade } from "../../handlers/access/handshake.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { Registry } from "../../handlers/registry/registry.ts";
import { createRouter, type Fetch } from "../../handlers/router.ts";
import { DEFAULT_LIMITS } from "../../handlers/access/limits.ts";
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
  const limits = DEFAULT_LIMITS;
  const clock = systemClock;
  const engine = createMemoryEngine(limits, clock);
  const localEngine = createMemoryEngine(limits, clock);
  const registry = new Registry({
    engine,
    localEngine,
    log,
    clock,
    limits,
  });
  return {
    fetch: createRouter({
      registry,
      log,
      clock,
      limits,
      allowedOrigins: [],
      trustedProxies: 0,
      upgrade: denoUpgrade,
    }),
    async stop() {
      await registry.drain();
      await Promise.all([engine.close(), localEngine.close()]);
    },
  };
}
