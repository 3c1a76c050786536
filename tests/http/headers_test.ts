import { assert, assertEquals } from "@std/assert";
import { preflight, setSecurityHeaders } from "../../handlers/http/headers.ts";

/** The headers of an answer that this page may read. */
function headersFor(reader: string | undefined, before = {}): Headers {
  const headers = new Headers(before);
  setSecurityHeaders(headers, reader);
  return headers;
}

Deno.test("setSecurityHeaders() names the one page that may read an answer, or all", () => {
  const one = headersFor("https://a.example");
  assertEquals(one.get("access-control-allow-origin"), "https://a.example");
  assertEquals(one.get("access-control-expose-headers"), "retry-after");
  assertEquals(one.get("vary"), "origin");
  const all = headersFor("*");
  assertEquals([all.get("access-control-allow-origin"), all.get("vary")], ["*", null]);
  const none = headersFor(undefined);
  assertEquals([none.get("access-control-allow-origin"), none.get("vary")], [null, "origin"]);
});

Deno.test("setSecurityHeaders() keeps a file's own cache-control, and forbids any other cache", () => {
  const cached = (before: Record<string, string>) => headersFor("*", before).get("cache-control");
  assertEquals(cached({ "cache-control": "no-cache" }), "no-cache");
  assertEquals(cached({}), "no-store");
});

/** The headers that a preflight allows. */
function allowedBy(asked?: string): string[] {
  const headers = new Headers();
  if (asked !== undefined) headers.set("access-control-request-headers", asked);
  const answer = preflight(new Request("http://parley.test/", { headers }), ["GET", "HEAD"]);
  assertEquals([answer.status, answer.body], [204, null]);
  assertEquals(answer.headers.get("allow"), "GET, HEAD");
  assertEquals(answer.headers.get("access-control-allow-methods"), "GET, HEAD");
  return answer.headers.get("access-control-allow-headers")!.split(", ");
}

Deno.test("preflight() allows Parley's headers and those that tracing or a library adds", () => {
  const own = ["authorization", "content-type", "idempotency-key", "if-match", "last-event-id"];
  assertEquals(allowedBy(), own);
  assertEquals(allowedBy("traceparent,baggage, X-Requested-With,content-type"), [
    ...own,
    "traceparent",
    "baggage",
    "x-requested-with",
  ]);
});

Deno.test("preflight() repeats no header that is none, nor a long list", () => {
  for (const asked of ["a<b>", "a\tb", "é", "x,".repeat(2_000)]) {
    assert(allowedBy(asked).length === 5, asked.slice(0, 20));
  }
});
