/**
 * The module of the workers in `killed_worker_test.ts`: each serves a Parley on a port of its own, and
 * dies of what is published in the room `kill`.
 *
 * @module
 */
import { createApp } from "../../handlers/app.ts";
import { runApp } from "../../handlers/run_app.ts";
import { isWorker, joinThreads } from "../../handlers/start/threads.ts";
import { systemClock } from "../../handlers/util/clock.ts";

/** What a worker of the test runs with. */
export interface ServingSettings {
  port: number;
}

/** Nobody is slowed down, and whoever comes back gets all that it missed. */
export const UNLIMITED = { messageRate: 0, byteRate: 0, joinRate: 0, maxQueueBytes: 100_000_000 };

if (isWorker()) {
  const { threads, settings: { port }, ready } = await joinThreads<ServingSettings>(systemClock);
  const parley = runApp(createApp({ engine: threads.engine, threads, limits: UNLIMITED }));
  const at = { port, hostname: "127.0.0.1", reusePort: true, onListen() {} };
  const server = Deno.serve(at, parley.fetch);
  await threads.engine.host("kill", {
    listenerCount: 1,
    deliver() {
      throw new Error("killed");
    },
  });
  ready({
    async stop() {
      await parley[Symbol.asyncDispose]();
      await server.shutdown();
    },
  });
}
