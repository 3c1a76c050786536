import {
  assert,
  assertEquals,
  assertLess,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { OPEN_RIGHTS } from "../../handlers/access/grants.ts";
import type { Call } from "../../handlers/app.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { preflight, setSecurityHeaders } from "../../handlers/http/headers.ts";
import { file } from "../../handlers/http/pages.ts";
import { createTestApp, FakeClock, type TestApp } from "../support/fakes.ts";
import { startServer } from "../support/servers.ts";

/** Asks a handler with these headers. */
async function get(handler: ReturnType<typeof file>, headers: HeadersInit = {}): Promise<Response> {
  const request = new Request("http://parley.test/", { headers });
  const visitor = { remote: "", address: "", rights: OPEN_RIGHTS };
  const call: Call = { request, url: new URL(request.url), visitor, room: "" };
  return await handler(call, createTestApp().app);
}

Deno.test("file() gives the text, its type and its tag", async () => {
  const response = await get(file(() => "let x;", "text/javascript"));
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("content-type"), "text/javascript; charset=utf-8");
  assertEquals(response.headers.get("cache-control"), "no-cache");
  assert(response.headers.get("etag"));
  assertEquals(await response.text(), "let x;");
});

Deno.test("file() answers 304 to a browser that has this very file", async () => {
  const handler = file(() => "a", "text/css");
  const etag = (await get(handler)).headers.get("etag")!;
  const known = await get(handler, { "if-none-match": `"old", ${etag}` });
  assertEquals([known.status, await known.text()], [304, ""]);
  assertEquals(known.headers.get("etag"), etag);
  const old = await get(handler, { "if-none-match": '"old"' });
  assertEquals([old.status, await old.text()], [200, "a"]);
  const other = await get(file(() => "b", "text/css"));
  assertNotEquals(other.headers.get("etag"), etag);
  await other.body?.cancel();
});

Deno.test("file() lets a page run no script but the server's own", async () => {
  const policy = (response: Response) => response.headers.get("content-security-policy");
  const page = await get(file(() => "<p>", "text/html"));
  assertStringIncludes(policy(page)!, "default-src 'none'; script-src 'self'");
  await page.body?.cancel();
  const script = await get(file(() => "let x;", "text/javascript"));
  assertEquals(policy(script), null);
  await script.body?.cancel();
});

Deno.test("each page keeps its own policy and loads what is there, below a prefix too", async () => {
  for (const prefix of ["", "/a/rt"]) {
    const { ask } = createTestApp({ prefix });
    for (const page of [`${prefix}/`, `${prefix}/dashboard`]) {
      const response = await ask(page);
      assertEquals(response.status, 200);
      assertEquals(response.headers.get("content-type"), "text/html; charset=utf-8");
      const html = await response.text();
      assertEquals(html.match(/<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=/g), null);
      const links = [...html.matchAll(/\s(?:src|href)="((?!data:)[^"]*)"/g)].map(([, path]) =>
        path
      );
      assert(links.length > 0);
      for (const link of links) {
        const { pathname } = new URL(link, `http://parley.test${page}`);
        const part = await ask(pathname);
        assertEquals(part.status, 200, pathname);
        await part.body?.cancel();
      }
    }
  }
});

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

// Answers are compressed by the runtime, as `handlers/start/listen.ts` asks it to.

/** Asks as a browser does, and leaves the answer compressed. */
async function ask(url: string): Promise<{ encoding: string; bytes: ReadableStreamDefaultReader }> {
  const { hostname, port, pathname } = new URL(url);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  const lines = [`GET ${pathname} HTTP/1.1`, `Host: ${hostname}:${port}`, "Accept-Encoding: gzip"];
  await connection.write(new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`));
  const bytes = connection.readable.getReader();
  const { value } = await bytes.read();
  const head = new TextDecoder("latin1").decode(value);
  return { encoding: /content-encoding: (\w+)/i.exec(head)?.[1] ?? "", bytes };
}

Deno.test("client.js goes out compressed, to a third at most", async () => {
  await using server = await startServer();
  const { encoding, bytes } = await ask(`${server.url}/client.js`);
  await bytes.cancel();
  assertEquals(encoding, "gzip");
  const response = await fetch(`${server.url}/client.js`);
  const text = await response.text();
  const packed = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  const size = (await new Response(packed).bytes()).length;
  assertLess(size * 2.5, text.length);
});

Deno.test("an event stream goes out as it comes, not compressed", async () => {
  await using server = await startServer();
  const { encoding, bytes } = await ask(`${server.url}/rooms/ops/events`);
  assertEquals(encoding, "");
  const response = await fetch(`${server.url}/rooms/ops/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: '{"message":"now"}',
  });
  assertEquals(response.status, 202);
  await response.body?.cancel();
  let seen = "";
  while (!seen.includes('"message":"now"')) {
    const { value, done } = await bytes.read();
    assert(!done);
    seen += new TextDecoder().decode(value);
  }
  await bytes.cancel();
});

// A request's way to its handler, as strangers may write it; `tests/router_test.ts` has the routes.

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

async function ready({ ask }: TestApp): Promise<string> {
  const response = await ask("/readyz");
  assertEquals(response.headers.get("cache-control"), "no-store");
  return `${response.status} ${await response.text()}`;
}

Deno.test("/healthz is 200 while the process lives, whatever else is", async () => {
  const test = createTestApp({ settings: { MAX_CONNECTIONS: 0 } });
  test.registry.isDraining = true;
  test.registry.isOverMemory = true;
  const response = await test.ask("/healthz");
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("content-type"), "text/plain; charset=utf-8");
  assertEquals(await response.text(), "ok\n");
});

Deno.test("/readyz is 200 on an idle server", async () => {
  assertEquals(await ready(createTestApp()), "200 ready\n");
});

Deno.test("/readyz is 503 from the first moment of the drain", async () => {
  const test = createTestApp();
  await test.connect("/chat");
  const drained = test.registry.drain();
  assertEquals(await ready(test), "503 draining\n");
  test.clock.tick(4_000);
  await drained;
  assertEquals(await ready(test), "503 draining\n");
});

Deno.test("/readyz is 503 while MAX_CONNECTIONS are in, evicted ones included", async () => {
  const test = createTestApp({ settings: { MAX_CONNECTIONS: 1, MAX_QUEUE_BYTES: 30 } });
  const socket = await test.connect("/echo");
  assertEquals(await ready(test), "503 full\n");
  socket.isStuck = true;
  for (const half of ["too much", "for it"]) socket.say(half.padEnd(15));
  assertEquals(test.registry.clients.size, 0);
  assertEquals(await ready(test), "503 full\n");
  socket.end(1013, "too slow");
  assertEquals(await ready(test), "200 ready\n");
});

Deno.test("/readyz is 503 while the process uses too much memory", async () => {
  const test = createTestApp();
  test.registry.isOverMemory = true;
  assertEquals(await ready(test), "503 overloaded\n");
});

Deno.test("/readyz is 503 while MAX_ROOMS are in use", async () => {
  const test = createTestApp({ settings: { MAX_ROOMS: 1 } });
  assertEquals(await ready(test), "200 ready\n");
  const socket = await test.connect("/chat/one");
  assertEquals(await ready(test), "503 rooms full\n");
  socket.end();
  assertEquals(await ready(test), "200 ready\n");
});

Deno.test("/readyz is 503 while the engine is unreachable", async () => {
  const keeps = { historySize: 1, historySeconds: 1, historyMb: 1, maxRooms: 1 };
  const engine = createMemoryEngine(keeps, new FakeClock());
  let isReady = false;
  engine.isReady = () => isReady;
  const test = createTestApp({ engine });
  assertEquals(await ready(test), "503 engine unreachable\n");
  isReady = true;
  assertEquals(await ready(test), "200 ready\n");
});
