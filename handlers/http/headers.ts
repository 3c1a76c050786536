/** The headers of every answer, and the answer to a preflight. */

/** Says which page may read an answer (`*`, an origin, or none), and that nobody may keep it or guess its type. */
export function setSecurityHeaders(headers: Headers, reader: string | undefined): void {
  headers.set("x-content-type-options", "nosniff");
  headers.set("referrer-policy", "no-referrer");
  // Everything but a page's files is live.
  if (!headers.has("cache-control")) headers.set("cache-control", "no-store");
  if (reader !== "*") headers.append("vary", "origin");
  if (reader === undefined) return;
  headers.set("access-control-allow-origin", reader);
  headers.set("access-control-expose-headers", "retry-after");
}

/** Request headers that Parley reads. */
const REQUEST_HEADERS = "authorization content-type idempotency-key if-match last-event-id".split(
  " ",
);

/**
 * Answers a preflight (https://fetch.spec.whatwg.org/#http-cors-protocol). Any header is allowed:
 * libraries add theirs to every request, such as `traceparent` and `baggage` of tracing.
 */
export function preflight({ headers }: Request, methods: string[]): Response {
  const asked = headers.get("access-control-request-headers") ?? "";
  const names = /^[\w!#$%&'*+.^`|~, -]{1,2000}$/.test(asked)
    ? asked.toLowerCase().split(/ *, */)
    : [];
  return new Response(null, {
    status: 204,
    headers: {
      allow: methods.join(", "),
      vary: "access-control-request-headers",
      "access-control-allow-methods": methods.join(", "),
      "access-control-allow-headers": [...new Set([...REQUEST_HEADERS, ...names])].join(", "),
      "access-control-max-age": "600",
    },
  });
}
