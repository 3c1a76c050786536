/** Whether the server is well: `/healthz` and `/readyz`. */
import { unavailableReason } from "../access/access.ts";
import type { App, Handler } from "../app.ts";

const HEADERS = { "cache-control": "no-store", "content-type": "text/plain; charset=utf-8" };

/** Makes the handler of `/healthz`: 200 while the process lives. */
export function health(): Handler {
  return () => new Response("ok\n", { headers: HEADERS });
}

/** Makes the handler of `/readyz`: 503, with the reason, when no new client should come here. */
export function readiness({ registry, health }: App): Handler {
  return () => {
    const engine = registry.engineOf("");
    const reason = unavailableReason(registry) ?? health.problem ??
      (!engine.isReady() ? "engine unreachable" : engine.stats().isFull ? "rooms full" : undefined);
    return new Response(`${reason ?? "ready"}\n`, {
      status: reason ? 503 : 200,
      headers: HEADERS,
    });
  };
}
