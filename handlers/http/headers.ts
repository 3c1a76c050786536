/**
 * Headers that every answer bears, and the answer to a preflight.
 *
 * @module
 */
import { isAllowedOrigin } from "../access/access.ts";
import type { App } from "../app.ts";

/** Says which pages may read an answer, that nobody may keep it, and that its type is no guess. */
export function setSecurityHeaders(
  headers: Headers,
  request: Request,
  { allowedOrigins }: Pick<App, "allowedOrigins">,
): void {
  headers.set("x-content-type-options", "nosniff");
  headers.set("referrer-policy", "no-referrer");
  // Everything but a page's files is live.
  if (!headers.has("cache-control")) headers.set("cache-control", "no-store");
  const origin = request.headers.get("origin");
  if (allowedOrigins.length > 0) headers.append("vary", "origin");
  if (origin === null || !isAllowedOrigin(origin, allowedOrigins)) return;
  headers.set("access-control-allow-origin", allowedOrigins.length === 0 ? "*" : origin);
  headers.set("access-control-expose-headers", "retry-after");
}

/** Answers what a browser asks before it sends a request of another origin's page. Fetch standard, CORS protocol. */
export function preflight(methods: string[]): Response {
  return new Response(null, {
    status: 204,
    headers: {
      allow: methods.join(", "),
      "access-control-allow-methods": methods.join(", "),
      "access-control-allow-headers": "authorization, content-type, idempotency-key, last-event-id",
      "access-control-max-age": "600",
    },
  });
}
