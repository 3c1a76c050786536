/** What HTTP owes to browsers, caches and proxies, asked over real sockets. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Client, RawClient } from "../support/clients.ts";
import { createTestApp } from "../support/fakes.ts";
import { soon } from "../support/inbox.ts";
import { startServer, type TestServer } from "../support/servers.ts";

const PAGES = ["/", "/dashboard"];
const FILES = ["/client.js", "/chat.js", "/chat.css", "/dashboard.js", "/dashboard.css"];
const LIVE = ["/rooms", "/rooms/lobby/messages", "/healthz", "/readyz", "/metrics"];

/** Writes bytes to the server's port, and reads what it answers until it ends the connection. */
async function exchange({ url }: TestServer, request: string): Promise<string> {
  const { hostname, port } = new URL(url);
  using connection = await Deno.connect({ hostname, port: Number(port) });
  const bytes = Uint8Array.from(request, (character) => character.charCodeAt(0));
  let answer = "";
  const reading = async () => {
    for await (const chunk of connection.readable) answer += new TextDecoder().decode(chunk);
  };
  // The server may answer and end before it has read all; a reset is an end, too.
  const writing = new Blob([bytes]).stream().pipeTo(connection.writable, { preventClose: true })
    .catch(() => {});
  await soon(reading().catch(() => {}), () => `an end of ${request.slice(0, 200)}: ${answer}`);
  await writing;
  return answer;
}

/** The status lines of all answers in a text. */
function statusesOf(answer: string): number[] {
  return [...answer.matchAll(/HTTP\/1\.[01] (\d{3}) /g)].map(([, status]) => Number(status));
}

/** The server still answers, nothing is held, and nothing was logged as a defect. */
async function assertWell(server: TestServer): Promise<void> {
  const { status, body } = await fetch(`${server.url}/healthz`);
  await body?.cancel();
  assertEquals(status, 200);
  await using client = await Client.open(`${server.ws}/echo`);
  client.send("x");
  assertEquals(await client.next(), "Echo: x");
  assertEquals(server.log.lines.filter(({ level }) => level === "error"), []);
  assertEquals(server.registry.heldCount, 1);
}

Deno.test("every answer forbids the browser to guess types and to tell where it was", async () => {
  const { ask } = createTestApp();
  const paths = [
    ...PAGES,
    ...FILES,
    ...LIVE,
    "/nowhere",
    "/chat",
    "/chat/a b",
    "/rooms/_x/messages",
  ];
  for (const path of paths) {
    for (const method of ["GET", "HEAD", "OPTIONS", "DELETE", "POST"]) {
      const { headers, body } = await ask(path, { method });
      await body?.cancel();
      assertEquals(headers.get("x-content-type-options"), "nosniff", `${method} ${path}`);
      assertEquals(headers.get("referrer-policy"), "no-referrer", `${method} ${path}`);
    }
  }
});

Deno.test("a page's policy allows no script or style but the server's own files", async () => {
  const { ask } = createTestApp();
  for (const path of PAGES) {
    const { headers, body } = await ask(path);
    await body?.cancel();
    const policy = new Map(
      headers.get("content-security-policy")!.split(";").map((directive) => {
        const [name, ...sources] = directive.trim().split(/ +/);
        return [name, sources.join(" ")];
      }),
    );
    assertEquals(policy.get("default-src"), "'none'", path);
    assertEquals(policy.get("script-src"), "'self'", path);
    assertEquals(policy.get("frame-ancestors"), "'none'", path);
    assertEquals(policy.get("base-uri"), "'none'", path);
    assertEquals(policy.get("form-action"), "'none'", path);
    assert(![...policy.values()].some((sources) => /unsafe|\*|https?:/.test(sources)), path);
  }
});

Deno.test("pages hold no inline script, style or handler, and load from this server alone", async () => {
  const { ask } = createTestApp();
  for (const path of PAGES) {
    const html = await (await ask(path)).text();
    for (
      const [, attributes, content] of html.matchAll(/<script\b([^>]*)>([\s\S]*?)<\/script>/gi)
    ) {
      assertMatch(attributes, / src="\w/, path);
      assertEquals(content, "", path);
    }
    assert(!/<style|\sstyle=|\son\w+=|javascript:|<base|<iframe|<object/i.test(html), path);
    for (const [, url] of html.matchAll(/\s(?:src|href)="([^"]*)"/gi)) {
      // No scheme but `data:`, no other host; as a browser finds it from the page.
      assertMatch(url, /^((?!\/\/)[^:]*$|data:)/, path);
      if (url.startsWith("data:")) continue;
      const { pathname } = new URL(url, `http://parley.test${path}`);
      const { status, body } = await ask(pathname);
      await body?.cancel();
      assertEquals(status, 200, url);
    }
  }
});

Deno.test("a page in a file or an event stream cannot be made to run: types are exact", async () => {
  const { ask } = createTestApp();
  const types: Record<string, RegExp> = {
    "/": /^text\/html; charset=utf-8$/,
    "/client.js": /^text\/javascript; charset=utf-8$/,
    "/chat.css": /^text\/css; charset=utf-8$/,
    "/rooms": /^application\/json/,
    "/rooms/lobby/messages": /^application\/json/,
    "/rooms/lobby/events": /^text\/event-stream/,
    "/chat/%3Cscript%3E": /^application\/json/,
    "/%3Cscript%3E": /^text\/plain/,
  };
  for (const [path, type] of Object.entries(types)) {
    const { headers, body } = await ask(path);
    await body?.cancel();
    assertMatch(headers.get("content-type") ?? "", type, path);
  }
});

Deno.test("live data is never cached, files are asked for anew", async () => {
  const { ask } = createTestApp();
  for (const path of [...LIVE, "/rooms/lobby/events"]) {
    const { headers, body } = await ask(path);
    await body?.cancel();
    assertMatch(headers.get("cache-control")!, /^no-store\b/, path);
  }
  const headers = { "content-type": "application/json" };
  const posted = await ask("/rooms/a/messages", { method: "POST", headers, body: "{}" });
  assertEquals(posted.headers.get("cache-control"), "no-store");
  for (const path of [...PAGES, ...FILES]) {
    const { headers, body } = await ask(path);
    await body?.cancel();
    assertEquals(headers.get("cache-control"), "no-cache", path);
  }
});

Deno.test("no refusal is cached, and what a path takes neither", async () => {
  const { ask } = createTestApp({ settings: { MAX_CONNECTIONS: 0 } });
  const asked: [string, string, number][] = [
    ["GET", "/nowhere", 404],
    ["GET", "/chat/ops", 503],
    ["GET", "/chat/a b", 400],
    ["DELETE", "/rooms", 405],
    ["POST", "/rooms/a/messages", 415],
    ["OPTIONS", "/rooms", 204],
  ];
  for (const [method, path, expected] of asked) {
    const { status, headers, body } = await ask(path, { method });
    await body?.cancel();
    assertEquals([status, headers.get("cache-control")], [expected, "no-store"], path);
  }
});

Deno.test("CORS: the API is open to pages of ALLOWED_ORIGINS; others may read only why not", async () => {
  const { ask } = createTestApp({ settings: { ALLOWED_ORIGINS: ["https://a.example"] } });
  const readerOf = ({ headers }: Response) => headers.get("access-control-allow-origin");
  for (const path of ["/rooms", "/", "/client.js", "/healthz", "/rooms/ops/events"]) {
    for (const [origin, status] of [["https://a.example", 200], ["https://b.example", 403]]) {
      const answer = await ask(path, { headers: { origin: String(origin) } });
      await answer.body?.cancel();
      assertEquals([answer.status, readerOf(answer)], [status, origin], path);
      assertEquals(answer.headers.get("vary"), "origin", "a cache must not mix them up");
      const asked = await ask(path, { method: "OPTIONS", headers: { origin: String(origin) } });
      assertEquals([asked.status, readerOf(asked)], [204, origin], path);
    }
  }
  const headers = { origin: "https://b.example", "content-type": "application/json" };
  const posted = await ask("/rooms/ops/messages", { method: "POST", headers, body: "{}" });
  assertEquals([posted.status, readerOf(posted)], [403, "https://b.example"]);
});

Deno.test("CORS: with ALLOWED_ORIGINS=* every page may read, but never with cookies", async () => {
  const { ask } = createTestApp({ settings: { ALLOWED_ORIGINS: ["*"] } });
  const { headers } = await ask("/rooms", { headers: { origin: "https://a.example" } });
  assertEquals(headers.get("access-control-allow-origin"), "*");
  assertEquals(headers.get("access-control-allow-credentials"), null);
  assertEquals((await ask("/rooms")).headers.get("access-control-allow-origin"), null);
});

Deno.test("CORS: a preflight allows what the API takes", async () => {
  const { ask } = createTestApp({ settings: { ALLOWED_ORIGINS: ["https://a.example"] } });
  const answer = await ask("/rooms/ops/messages", {
    method: "OPTIONS",
    headers: {
      "origin": "https://a.example",
      "access-control-request-method": "POST",
      "access-control-request-headers": "content-type,authorization,idempotency-key",
    },
  });
  assertEquals([answer.status, await answer.text()], [204, ""]);
  assertEquals(answer.headers.get("access-control-allow-methods"), "GET, HEAD, POST");
  const allowed = answer.headers.get("access-control-allow-headers")!.split(", ");
  for (const name of ["authorization", "content-type", "idempotency-key", "last-event-id"]) {
    assert(allowed.includes(name), name);
  }
});

Deno.test("a refusal can be read by the page that asked, Retry-After too", async () => {
  const { ask } = createTestApp({ settings: { MAX_CONNECTIONS: 0, ALLOWED_ORIGINS: ["*"] } });
  const { status, headers } = await ask("/chat", { headers: { origin: "https://a.example" } });
  assertEquals([status, headers.get("access-control-allow-origin")], [503, "*"]);
  assertEquals(headers.get("access-control-expose-headers"), "retry-after");
});

Deno.test("HEAD answers as GET, and not one byte of a body", async () => {
  await using server = await startServer();
  for (const path of [...PAGES, ...FILES, ...LIVE, "/rooms/lobby/events", "/nowhere", "/chat"]) {
    const ask = `HEAD ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`;
    const [head, body] = (await exchange(server, ask)).split("\r\n\r\n");
    const { status, headers, body: stream } = await fetch(server.url + path);
    await stream?.cancel();
    assertEquals(statusesOf(head), [status], path);
    assertEquals(body, "", path);
    const type = headers.get("content-type")!;
    assert(head.toLowerCase().includes(`content-type: ${type.toLowerCase()}`), path);
  }
  await server.log.when("disconnected");
  await assertWell(server);
});

Deno.test("an unknown method is 405 and told what is taken", async () => {
  await using server = await startServer();
  const methods = ["PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "FOO", "PRI", "M-SEARCH", "get"];
  for (const method of [...methods, "X".repeat(200)]) {
    const ask = `${method} /rooms HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`;
    const answer = await exchange(server, ask);
    assertEquals(statusesOf(answer), [405], method);
    assertMatch(answer, /allow: GET, HEAD\r\n/i, method);
  }
  for (const ask of ["CONNECT x:80", "OPTIONS *", "G\0T /", "G T / x", " GET /"]) {
    const answer = await exchange(
      server,
      `${ask} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
    );
    assertMatch(`${statusesOf(answer)}`, /^(40[045]|204)$/, ask);
  }
  await assertWell(server);
});

Deno.test("a very long URL, header or list of headers is refused", async () => {
  await using server = await startServer();
  const get = (path: string, headers = "") =>
    exchange(server, `GET ${path} HTTP/1.1\r\nhost: x\r\n${headers}connection: close\r\n\r\n`);
  assertEquals(statusesOf(await get("/healthz?" + "a".repeat(8_000))), [200]);
  const long = await get("/healthz?" + "a".repeat(8_192));
  assertEquals(statusesOf(long), [414]);
  assertMatch(long, /"code":"uri_too_long"/);
  assertEquals(statusesOf(await get("/chat/" + "%61".repeat(3_000))), [414]);
  assertMatch(`${statusesOf(await get("/" + "a".repeat(100_000)))}`, /^4\d\d$/);
  assertMatch(
    `${statusesOf(await get("/healthz", `x-a: ${"a".repeat(1_000_000)}\r\n`))}`,
    /^4\d\d$/,
  );
  const many = Array.from({ length: 1_000 }, (_, index) => `x-${index}: a\r\n`).join("");
  assertMatch(`${statusesOf(await get("/healthz", many))}`, /^4\d\d$/);
  await assertWell(server);
});

Deno.test("percent-encoding names the room that it spells, and nothing else", async () => {
  await using server = await startServer();
  const ask = async (path: string) => {
    const answer = await exchange(
      server,
      `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
    );
    return [statusesOf(answer)[0], /"code":"(\w+)"/.exec(answer)?.[1]];
  };
  for (const part of ["%6Fps", "o%70s", "ops"]) {
    const { room } = await (await fetch(`${server.url}/rooms/${part}/messages`)).json();
    assertEquals(room, "ops");
  }
  const bad = [
    "%00",
    "a%00b",
    "%",
    "%z",
    "%zz",
    "%2",
    "%C0%AF",
    "%FF",
    "%ED%A0%80",
    "%2561",
    "%2F",
    "a%2Fb",
    "..%2F..%2Fetc",
    "%5C",
    "%0D%0AX-Evil:1",
    "%E2%80%AE",
    "%F0%9F%98%80",
    "a%20b",
    "a+b",
    "a;b",
    "a".repeat(65),
    "%u0061",
  ];
  for (const room of bad) {
    for (const path of [`/chat/${room}`, `/rooms/${room}/messages`]) {
      assertEquals(await ask(path), [400, "bad_room"], path);
    }
  }
  const elsewhere = [
    "/chat/../rooms/../chat/a/b",
    "/%63hat/ops",
    "/chat%2Fops",
    "/rooms//messages/x",
  ];
  for (const path of elsewhere) assertEquals((await ask(path))[0], 404, path);
  const dots = [
    "/rooms/%2e%2e/healthz",
    "/healthz/../metrics",
    "/./metrics",
    "/healthz/.%2E/metrics",
  ];
  for (const path of [...dots, "/a\\..\\metrics", "/metrics/.", "/metrics/..?x", "\\metrics"]) {
    assertMatch(`${(await ask(path))[0]}`, /^40[04]$/, `a proxy may see another path: ${path}`);
  }
  assertEquals(server.registry.rooms.size, 0);
  await assertWell(server);
});

Deno.test("Host is a host and decides no path: anything else is 400 bad_host", async () => {
  await using server = await startServer();
  const get = (host: string, target = "/healthz") =>
    exchange(server, `GET ${target} HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`);
  const bad = [
    "x/metrics?",
    "x/metrics#",
    "x?",
    "x#",
    "u@x",
    "u:p@x",
    "x\\y",
    "x/",
    "[::1",
    "x:1:2",
  ];
  bad.push("x:99999", "x%2fmetrics", "999.1.1.1", "[::g]", "x,y", "*", "\xff", "x;y");
  for (const host of bad) {
    const answer = await get(host);
    assertEquals(
      [statusesOf(answer), /"code":"(\w+)"/.exec(answer)?.[1]],
      [[400], "bad_host"],
      host,
    );
  }
  for (const host of ["x", "x:", "X.Example:80", "a_b-c.example.", "[::1]:8000", "127.0.0.1", ""]) {
    const answer = await get(host);
    assertEquals([statusesOf(answer), answer.includes("ok\n")], [[200], true], host);
  }
  assertEquals(statusesOf(await get("x", "http://y/healthz")), [200]);
  await assertWell(server);
});

Deno.test("a Host or an absolute form that makes no URL is 400", async () => {
  await using server = await startServer();
  const hosts = ["a b", "[", "a:b:c", "%%%", "x:99999", "<script>"];
  for (const host of hosts) {
    const ask = `GET /healthz HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`;
    assertEquals(statusesOf(await exchange(server, ask)), [400], host);
  }
  for (const target of ["http://[/healthz", "http://a:b/healthz"]) {
    const ask = `GET ${target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`;
    assertEquals(statusesOf(await exchange(server, ask)), [400], target);
  }
  const evil = "GET http://evil.test/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
  assertEquals(statusesOf(await exchange(server, evil)), [200], "the host means nothing here");
  await assertWell(server);
});

/** A second request that a lenient server would find behind the first one's end. */
const HIDDEN = "POST /rooms/smuggled/messages HTTP/1.1\r\nhost: x\r\n" +
  "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/** Heads of a POST whose length two servers may read in two ways, and the body before the hidden one. */
const SMUGGLING: Record<string, [head: string, body: string]> = {
  "Content-Length and Transfer-Encoding": [
    "content-length: 5\r\ntransfer-encoding: chunked",
    "0\r\n\r\n",
  ],
  "Transfer-Encoding and Content-Length": [
    "transfer-encoding: chunked\r\ncontent-length: 5",
    "0\r\n\r\n",
  ],
  "two lengths": ["content-length: 2\r\ncontent-length: 200", "{}"],
  "a list of lengths": ["content-length: 2, 200", "{}"],
  "a length with a sign": ["content-length: +2", "{}"],
  "a negative length": ["content-length: -2", "{}"],
  "a length in hexadecimal": ["content-length: 0x2", "{}"],
  "a length with a blank inside": ["content-length: 2 2", "{}"],
  "an unknown coding": ["transfer-encoding: xchunked", "0\r\n\r\n"],
  "chunked, then another coding": ["transfer-encoding: chunked, identity", "0\r\n\r\n"],
  "a blank before the colon": ["transfer-encoding : chunked", "0\r\n\r\n"],
  "a vertical tab before the coding": ["transfer-encoding:\x0bchunked", "0\r\n\r\n"],
  "a folded line": ["transfer-encoding:\r\n chunked", "0\r\n\r\n"],
  "NUL in a name": ["content-length\0: 2", "{}"],
  "a line without a colon": ["content-length: 2\r\nsmuggle", "{}"],
  "a chunk of more than 64 bits": ["transfer-encoding: chunked", "fffffffffffffffff2\r\n{}\r\n"],
  "a negative chunk": ["transfer-encoding: chunked", "-2\r\n{}\r\n0\r\n\r\n"],
  "a chunk whose end is not there": ["transfer-encoding: chunked", "2\r\n{}{}\r\n0\r\n\r\n"],
};

Deno.test("a request whose end can be read in two ways ends the connection, nothing behind it is read", async () => {
  await using server = await startServer();
  for (const [what, [head, body]] of Object.entries(SMUGGLING)) {
    const request = "POST /rooms/ops/messages HTTP/1.1\r\nhost: x\r\n" +
      `content-type: application/json\r\n${head}\r\n\r\n${body}${HIDDEN}`;
    const answer = await exchange(server, request);
    assert(statusesOf(answer).length <= 1, `${what}: ${answer}`);
    assert(!answer.includes(" 202 "), `${what}: ${answer}`);
    const { messages } = await (await fetch(`${server.url}/rooms/smuggled/messages`)).json();
    assertEquals(messages, [], what);
  }
  await assertWell(server);
});

Deno.test("a body where none is expected is not the next request", async () => {
  await using server = await startServer();
  const head = `GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: ${HIDDEN.length}\r\n\r\n`;
  const close = "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
  assertEquals(statusesOf(await exchange(server, head + HIDDEN + close)), [200, 200]);
  const upgrade = "GET /echo HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n" +
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
    `content-length: ${HIDDEN.length}\r\n\r\n${HIDDEN}`;
  assertEquals(statusesOf(await exchange(server, upgrade)), [400]);
  const { messages } = await (await fetch(`${server.url}/rooms/smuggled/messages`)).json();
  assertEquals(messages, []);
});

Deno.test("what is no HTTP is answered 400 or not at all", async () => {
  await using server = await startServer();
  for (
    const bytes of [
      "GET /healthz\r\n\r\n",
      "GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n",
      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
      "\0\0\0\0\r\n\r\n",
      "GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
      "SSH-2.0-x\r\n\r\n",
    ]
  ) assertMatch(`${statusesOf(await exchange(server, bytes))}`, /^(400)?$/, JSON.stringify(bytes));
  await assertWell(server);
});

Deno.test("a client that goes in the middle of its body leaves nothing behind", async () => {
  await using server = await startServer();
  const { hostname, port } = new URL(server.url);
  for (let times = 0; times < 20; times++) {
    const connection = await Deno.connect({ hostname, port: Number(port) });
    await connection.write(new TextEncoder().encode(
      "POST /rooms/ops/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" +
        'content-length: 100\r\n\r\n{"message":',
    ));
    connection.close();
  }
  await assertWell(server);
});

Deno.test("a body that never ends is cut off at MAX_MESSAGE_BYTES", async () => {
  await using server = await startServer();
  const head = "POST /rooms/ops/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
  const bodies = [
    "content-length: 99999999\r\n\r\n{",
    "transfer-encoding: chunked\r\n\r\n" + `1000\r\n${" ".repeat(4_096)}\r\n`.repeat(20),
  ];
  const { hostname, port } = new URL(server.url);
  for (const body of bodies) {
    // The server goes on to wait for the rest: the client has to end this one.
    using connection = await Deno.connect({ hostname, port: Number(port) });
    const answer = new Uint8Array(12);
    const reading = soon(connection.read(answer), "an answer");
    await connection.write(new TextEncoder().encode(head + body));
    await reading;
    assertEquals(new TextDecoder().decode(answer), "HTTP/1.1 413");
  }
  await assertWell(server);
});

Deno.test("a WebSocket is opened for a GET alone, by HTTP/1.1 or 1.0 as the runtime has it", async () => {
  await using server = await startServer();
  const status = async (headers: Record<string, string>, path = "/echo") => {
    using client = await soon(RawClient.open(server.ws + path, headers), "an answer");
    return client.status;
  };
  assertEquals(await status({}), 101);
  assertEquals(await status({ "sec-websocket-version": "12" }), 426);
  assertEquals(await status({ "sec-websocket-key": "short" }), 400);
  assertEquals(await status({ upgrade: "h2c" }), 426);
  assertEquals(await status({}, "/rooms"), 200);
  const posted = await fetch(`${server.url}/echo`, { method: "POST" });
  await posted.body?.cancel();
  assertEquals(posted.status, 405);
});
