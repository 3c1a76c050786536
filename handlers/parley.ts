/**
 * All of Parley as one function of a request: what a program imports.
 *
 * @module
 */
import { guardMemory } from "./access/memory_guard.ts";
import { type App, type AppOptions, createApp } from "./app.ts";
import { auditSlots } from "./registry/audit.ts";
import { guardQueues } from "./registry/queue_guard.ts";
import { publishStats, thisMachine } from "./http/stats.ts";
import { createRouter, type Fetch } from "./router.ts";
import type { Clock } from "./util/clock.ts";

/** A Parley without a port. */
export interface Parley extends AsyncDisposable {
  /** Answers a request, a handshake too: give it to `Deno.serve`. */
  readonly fetch: Fetch;
  /**
   * Sends all clients away, spread over `drainSeconds`, and answers requests for new ones with 503.
   * Done when all are gone or the time is over. A second call waits for the same drain.
   */
  drain(): Promise<void>;
  /** How many clients are connected. */
  readonly clientCount: number;
}

/** How long the clients get to answer a drain's Close frames. */
const GRACE_MS = 500;
/** How long the engine gets to end. */
const CLOSE_MS = 300;

/** Makes a Parley. Ending it (`await using`) drains it and closes its engine, also one that was given. */
export function createParley(options: AppOptions = {}): Parley {
  return runApp(createApp(options));
}

/** Starts what an app does by itself, and gives it the face that {@link createParley} promises. */
export function runApp(app: App): Parley {
  const { registry, clock, log, limits } = app;
  const stopGuard = guardMemory({ registry, maxMb: limits.maxRssMb, clock, log });
  const stopAudit = auditSlots(registry);
  const stopQueues = guardQueues(registry);
  const stopStats = publishStats(app, thisMachine);
  let drained: Promise<void> | undefined;
  const drain = () =>
    drained ??= registry.drain().then(() => within(clock, GRACE_MS, registry.allReleased()));
  return {
    fetch: createRouter(app),
    drain,
    get clientCount() {
      return registry.clients.size;
    },
    async [Symbol.asyncDispose]() {
      await drain();
      stopGuard();
      stopStats();
      stopAudit();
      stopQueues();
      await within(clock, CLOSE_MS, registry.close());
    },
  };
}

/** Waits for a task, but no longer than `ms`. */
function within(clock: Clock, ms: number, task: Promise<void>): Promise<void> {
  const limit = Promise.withResolvers<void>();
  const cancel = clock.after(ms, limit.resolve);
  return Promise.race([task, limit.promise]).finally(cancel);
}
