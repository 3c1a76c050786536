/** A request's way to its handler, as strangers may write it; `tests/router_test.ts` has the routes. */
import { assertEquals } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { createTestApp } from "../support/fakes.ts";

/** A request as the runtime hands it out: its URL is Host and target, put together unread. */
function rawRequest(host: string, target: string): Request {
  const request = new Request("http://parley.test/", { headers: { host } });
  Object.defineProperty(request, "url", { value: `http://${host}${target}` });
  return request;
}

const HOST_PARTS = [
  "x",
  "a.example",
  ":80",
  ":",
  "/",
  "/metrics",
  "?",
  "#",
  "@",
  "\\",
  "[::1]",
  "%2f",
  ".",
];
const PATH_PARTS = [
  "/",
  "metrics",
  "healthz",
  "..",
  ".",
  "%2e",
  "%2E",
  "\\",
  "?",
  "#",
  ";",
  "//",
  "@",
  "%2f",
  "x",
];

Deno.test("only the target of the request line says what is answered, whatever Host and dots say", async () => {
  const { router } = createTestApp();
  const text = (parts: string[], max: number) =>
    fc.array(fc.constantFrom(...parts), { minLength: 1, maxLength: max }).map((all) =>
      all.join("")
    );
  await fc.assert(
    fc.asyncProperty(text(HOST_PARTS, 4), text(PATH_PARTS, 6), async (host, rest) => {
      const target = `/${rest}`;
      const answer = await router(rawRequest(host, target));
      const isMetrics = (await answer.text()).includes("parley_connections");
      const [path] = target.split(/[?#]/);
      if (isMetrics) assertEquals(path, "/metrics");
      if (answer.status === 200 && path !== "/") {
        assertEquals(["/metrics", "/healthz"].includes(path), true);
      }
    }),
    { numRuns: 3_000 },
  );
});

Deno.test("each room's path has its own answer, the server's paths too", async () => {
  const { router } = createTestApp();
  const answer = async (path: string) => {
    const { status, body } = await router(rawRequest("x", path));
    await body?.cancel();
    return status;
  };
  assertEquals(await answer("/metrics"), 200);
  assertEquals(await answer("/rooms/a/messages?x=/../y#/z"), 200);
  assertEquals(await answer("/rooms/.../messages"), 200);
  assertEquals(await answer("/rooms/../messages"), 404);
});
