/**
 * A server in this process, for tests.
 *
 * @module
 */
import { createApp } from "../../handlers/app.ts";
import { runApp } from "../../handlers/run_app.ts";
import type { Registry } from "../../handlers/registry/registry.ts";
import { listen } from "../../handlers/start/listen.ts";
import { parleyOptions } from "../../handlers/start/options.ts";
import { defaultSettings, type Settings } from "../../handlers/start/settings.ts";
import { RecordingLog } from "./fakes.ts";

/** A server in this process. */
export interface TestServer extends AsyncDisposable {
  /** `http://127.0.0.1:port`, without a slash at the end. */
  readonly url: string;
  /** `ws://127.0.0.1:port` */
  readonly ws: string;
  readonly registry: Registry;
  readonly log: RecordingLog;
}

/** Starts a server in this process on a free port. Whoever is still connected at its end is closed. */
export async function startServer(settings: Partial<Settings> = {}): Promise<TestServer> {
  const log = new RecordingLog(settings.LOG_LEVEL === "debug");
  const all = { ...defaultSettings(), HOST: "127.0.0.1", PORT: 0, DRAIN_SECONDS: 0, ...settings };
  const app = createApp(await parleyOptions(all, log));
  const parley = runApp(app);
  const server = await listen({ settings: all, handler: parley.fetch, log, health: app.health });
  const url = server.address;
  return {
    url,
    ws: url.replace("http", "ws"),
    registry: app.registry,
    log,
    async [Symbol.asyncDispose]() {
      await parley[Symbol.asyncDispose]();
      await server.shutdown();
    },
  };
}

/** Posts to a path of a server, and gives the status and what it answered. */
export async function post(
  { url }: { url: string },
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<{ status: number; answer: Record<string, unknown> }> {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  return { status: response.status, answer: await response.json() };
}
