/**
 * A middleware around Parley: it times every answer, and stays out of the sockets' way.
 *
 *     deno run -A tests/examples/middleware.ts
 *     curl -i http://localhost:8000/healthz
 *
 * @module
 */
import type { Fetch } from "../../handlers/router.ts";
import { createParley } from "../../handlers/parley.ts";

/** Wraps `next`: its answers tell in `Server-Timing` how long they took. */
export function withTiming(next: Fetch): Fetch {
  return async (request, info) => {
    const start = performance.now();
    const response = await next(request, info);
    // The runtime closes the server if anything but the very answer that opens a socket comes back.
    if (response.status === 101) return response;
    const ms = performance.now() - start;
    response.headers.set("server-timing", `parley;dur=${ms.toFixed(1)}`);
    return response;
  };
}

if (import.meta.main) Deno.serve(withTiming(createParley({ log: console }).fetch));
