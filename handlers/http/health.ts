/** Whether the server is well: `/healthz` and `/readyz`. */
import { unavailableReason } from "../access/access.ts";
import type { Handler } from "../app.ts";

const HEADERS = { "cache-control": "no-store", "content-type": "text/plain; charset=utf-8" };

/** Answers `/healthz`: 200 while the process lives. */
export const health: Handler = () => new Response("ok\n", { headers: HEADERS });

/** Answers `/readyz`: 503, with the reason, when no new client should come here. */
export const readiness: Handler = (_call, { registry, health }) => {
  const engine = registry.engineOf("");
  const reason = unavailableReason(registry) ?? health.problem ??
    (!engine.isReady() ? "engine unreachable" : engine.stats().isFull ? "rooms full" : undefined);
  return new Response(`${reason ?? "ready"}\n`, { status: reason ? 503 : 200, headers: HEADERS });
};
