import { assertEquals } from "@std/assert";
import { preflight, setSecurityHeaders } from "../../handlers/http/headers.ts";

/** The headers of an answer to a page of this origin. */
function headersFor(origin: string | undefined, allowedOrigins: string[], before = {}): Headers {
  const headers = new Headers(before);
  const request = new Request("http://parley.test/", { headers: origin ? { origin } : {} });
  setSecurityHeaders(headers, request, { allowedOrigins });
  return headers;
}

Deno.test("setSecurityHeaders() lets only a page of an allowed origin read an answer", () => {
  const reader = (origin: string | undefined, allowed: string[]) =>
    headersFor(origin, allowed).get("access-control-allow-origin");
  assertEquals(reader("https://a.example", ["https://a.example"]), "https://a.example");
  assertEquals(reader("https://b.example", ["https://a.example"]), null);
  assertEquals(reader(undefined, ["https://a.example"]), null);
});

Deno.test("setSecurityHeaders() keeps a file's own cache-control, and forbids any other cache", () => {
  const cached = (before: Record<string, string>) =>
    headersFor(undefined, [], before).get("cache-control");
  assertEquals(cached({ "cache-control": "no-cache" }), "no-cache");
  assertEquals(cached({}), "no-store");
});

Deno.test("preflight() names the methods, without a body", () => {
  const { status, body, headers } = preflight(["GET", "HEAD"]);
  assertEquals([status, body], [204, null]);
  assertEquals([headers.get("allow"), headers.get("access-control-allow-methods")], [
    "GET, HEAD",
    "GET, HEAD",
  ]);
});
