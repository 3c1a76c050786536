/**
 * The module of the workers in `workers_test.ts`. Each hosts a room of its own, `worker-{index}`, where
 * it takes orders, and has a member, `Worker {index}`, in the room `said`; or, with a port, it serves a
 * Parley there.
 *
 * @module
 */
import { createApp, type Threads } from "../../handlers/app.ts";
import { runApp } from "../../handlers/run_app.ts";
import { isWorker, joinThreads } from "../../handlers/start/threads.ts";
import { systemClock } from "../../handlers/util/clock.ts";

/** What the workers of the test run with. */
export interface ThreadSettings {
  /** This worker dies before it serves. */
  failing?: number;
  /** Where it serves. */
  port?: number;
}

/** Nobody is slowed down, and whoever comes back gets all that it missed. */
export const UNLIMITED = { messageRate: 0, byteRate: 0, joinRate: 0, maxQueueBytes: 100_000_000 };

/** What a worker can be told to do. */
export type Order =
  | "throw"
  | "reject"
  | "close"
  | "hang"
  | "report"
  | "acquire"
  | "isFull"
  | "publish";

/** How often a worker reports, in ms. */
const REPORT_MS = 5;

if (isWorker()) {
  const { threads, settings, ready } = await joinThreads<ThreadSettings>(systemClock);
  const { index, engine, limits, report } = threads;
  if (settings.failing === index) throw new Error("no port is free");
  const room = `worker-${index}`;
  const figures = { [room]: 1, all: 1, messagesIn: 5 };
  const say = (text: unknown) =>
    engine.publish("said", { sender: room, message: JSON.stringify(text) });
  const obey: Record<Order, () => unknown> = {
    throw() {
      throw new Error("thrown");
    },
    reject: () => void Promise.reject(new Error("rejected")),
    close: () => self.close(),
    hang() {
      while (true);
    },
    report: async () => say(await report(figures)),
    acquire: async () => say(await limits.acquire("a")),
    isFull: async () => {
      await report(figures);
      say(limits.isFull);
    },
    publish: async () => {
      const waits = [1, 2, 3].map(() => limits.tryPublish("a", 1));
      say(await Promise.all(waits));
    },
  };
  const server = settings.port === undefined ? undefined : serve(threads, settings.port);
  await limits.acquire("a");
  await engine.join("said", room, `Worker ${index}`);
  await engine.host(room, {
    subscriberCount: 1,
    deliver(event) {
      if (event.type === "chat") obey[JSON.parse(event.chat.message) as Order]?.();
    },
  });
  setInterval(() => report(figures), REPORT_MS);
  ready({
    async stop() {
      await say("stopped");
      await server?.[Symbol.asyncDispose]();
    },
  });
}

function serve(threads: Threads, port: number): AsyncDisposable {
  const parley = runApp(createApp({ engine: threads.engine, threads, limits: UNLIMITED }));
  const at = { port, hostname: "127.0.0.1", reusePort: true, onListen() {} };
  const server = Deno.serve(at, parley.fetch);
  return {
    async [Symbol.asyncDispose]() {
      await parley[Symbol.asyncDispose]();
      await server.shutdown();
    },
  };
}
