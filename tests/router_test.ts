import {
  assert,
  assertEquals,
  assertMatch,
  assertNotMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import type { Authorize } from "../handlers/access/grants.ts";
import { denoUpgrade } from "../handlers/access/handshake.ts";
import { createRouter } from "../handlers/router.ts";
import { RawClient } from "./support/clients.ts";
import { createTestApp, handshakeHeaders, infoOf } from "./support/fakes.ts";

/** Status and JSON of an answer. */
async function answerOf(response: Response): Promise<[number, Record<string, unknown>]> {
  return [response.status, await response.json()];
}

/** Status and `code` of a refusal. */
async function refusalOf(response: Response): Promise<string> {
  const { type, code, message, ...more } = await response.json();
  assertEquals(response.headers.get("content-type"), "application/json");
  assertEquals([type, typeof message, more], ["error", "string", {}]);
  return `${response.status} ${code}`;
}

const SOCKETS = ["/", "/echo", "/chat", "/chat/ops"];

Deno.test("the router answers a handshake at each socket's path", async () => {
  for (const path of SOCKETS) {
    for (const dialect of ["plain", "v1"] as const) {
      const { ask } = createTestApp();
      const response = await ask(path, { headers: handshakeHeaders(dialect) });
      assertEquals(response.status, 101, path);
    }
  }
});

Deno.test("the router answers 404 with a text where nothing is", async () => {
  const { ask } = createTestApp();
  const paths = ["/x", "/Chat", "/chat/ops/more", "/chat/ops/", "//chat", "/echo/"];
  paths.push("/rooms/ops/", "/rooms/ops/other", "/healthz/", "/favicon.ico", "/chat%2Fops", "/%");
  paths.push("/__proto__", "/constructor", "/chat/{room}/x", "/main.ts");
  for (const path of paths) {
    for (const method of ["GET", "POST", "DELETE"]) {
      const response = await ask(`http://parley.test${path}`, { method });
      assertEquals([response.status, await response.text()], [404, "Not Found"], path);
    }
  }
});

Deno.test("the router answers 405 and tells what it takes", async () => {
  const { ask } = createTestApp();
  const odd = ["PUT", "DELETE", "PATCH", "PROPFIND", "get", "constructor", "toString", "__proto__"];
  for (const path of [...SOCKETS, "/rooms", "/rooms/ops/events", "/healthz", "/readyz"]) {
    for (const method of [...odd, "POST"]) {
      const response = await ask(path, { method: method });
      // The platform itself makes `get` GET.
      if (new Request("http://x", { method }).method === "GET") {
        await response.body?.cancel();
        continue;
      }
      assertEquals(response.headers.get("allow"), "GET, HEAD", `${method} ${path}`);
      assertEquals(await refusalOf(response), "405 method_not_allowed", `${method} ${path}`);
    }
  }
  for (const method of odd.filter((method) => method !== "get")) {
    const response = await ask("/rooms/ops/messages", { method });
    assertEquals(response.headers.get("allow"), "GET, HEAD, POST");
    assertEquals(await refusalOf(response), "405 method_not_allowed");
  }
});

Deno.test("the router answers HEAD as GET; the runtime leaves the body out", async () => {
  const { ask, registry } = createTestApp();
  for (const path of ["/", "/client.js", "/healthz", "/readyz", "/rooms", "/rooms/ops/messages"]) {
    const get = await ask(path);
    await get.body?.cancel();
    const head = await ask(path, { method: "HEAD" });
    await head.body?.cancel();
    assertEquals(head.status, 200, path);
    assertEquals([...head.headers], [...get.headers], path);
  }
  const events = await ask("/rooms/ops/events", { method: "HEAD" });
  assertEquals([events.status, events.body], [200, null]);
  // The stream that was opened for it hears of its end some microtasks later.
  for (let turns = 0; turns < 100 && registry.heldCount > 0; turns++) await Promise.resolve();
  assertEquals([registry.heldCount, registry.clients.size, registry.rooms.size], [0, 0, 0]);
});

Deno.test("the router answers a HEAD handshake with 426, not with a socket", async () => {
  const { ask, registry } = createTestApp();
  for (const path of SOCKETS) {
    const response = await ask(path, { method: "HEAD", headers: handshakeHeaders() });
    assertEquals(response.status, 426, path);
    await response.body?.cancel();
  }
  assertEquals(registry.heldCount, 0);
});

Deno.test("the router answers OPTIONS with what a path takes", async () => {
  const { ask } = createTestApp();
  const response = await ask("/rooms/ops/messages", {
    method: "OPTIONS",
    headers: { origin: "https://a.example", "access-control-request-method": "POST" },
  });
  assertEquals([response.status, response.body], [204, null]);
  assertEquals(response.headers.get("access-control-allow-methods"), "GET, HEAD, POST");
  assertEquals(response.headers.get("access-control-allow-origin"), "https://a.example");
});

Deno.test("a browser that failed to open a socket learns from a GET why", async () => {
  const test = createTestApp({
    settings: { ALLOWED_ORIGINS: ["https://a.example"], MAX_CONNECTIONS: 1 },
  });
  const ask = (path: string, origin = "https://a.example") =>
    test.ask(path, { headers: { origin } });
  const plain = await ask("/chat/ops");
  assertEquals(plain.headers.get("upgrade"), "websocket");
  assertEquals(await refusalOf(plain), "426 upgrade_required");
  assertEquals(await refusalOf(await ask("/echo")), "426 upgrade_required");
  assertEquals(await refusalOf(await ask("/chat/a%20b")), "400 bad_room");
  assertEquals(await refusalOf(await ask("/chat/ops", "https://b.example")), "403 forbidden");
  const socket = await test.connect("/echo");
  const full = await ask("/chat/ops");
  assertEquals(full.headers.get("retry-after"), "5");
  assertEquals(await refusalOf(full), "503 full");
  socket.end();
  await test.registry.drain();
  const draining = await ask("/chat/ops");
  assertEquals(draining.headers.get("retry-after"), "4");
  assertEquals(await refusalOf(draining), "503 draining");
});

Deno.test("the router refuses a handshake for the same reasons, and holds no socket for it", async () => {
  const test = createTestApp({ settings: { ALLOWED_ORIGINS: ["https://a.example"] } });
  const good = handshakeHeaders();
  const cases: [string, Record<string, string>, string][] = [
    ["/chat/a%2Fb", {}, "400 bad_room"],
    ["/chat", { origin: "https://b.example" }, "403 forbidden"],
    ["/", { origin: "null" }, "403 forbidden"],
    ["/chat", { "sec-websocket-version": "8" }, "426 bad_version"],
    ["/echo", { "sec-websocket-key": "short" }, "400 bad_key"],
    ["/", { "sec-websocket-key": "short" }, "400 bad_key"],
  ];
  for (const [path, headers, refusal] of cases) {
    const response = await test.ask(path, { headers: { ...good, ...headers } });
    assertEquals(await refusalOf(response), refusal);
  }
  assertEquals(test.registry.heldCount, 0);
  test.registry.isDraining = true;
  for (const path of SOCKETS) {
    assertEquals(await refusalOf(await test.ask(path, { headers: good })), "503 draining");
  }
});

Deno.test("a room's name in the path is decoded once and checked", async () => {
  const { connect, registry } = createTestApp();
  const names = {
    "/chat/a.b_c:d-9": "a.b_c:d-9",
    "/chat/%6F%70s": "ops",
    "/chat/a%3Ab": "a:b",
    "/chat/...": "...",
    "/chat/_stats": "_stats",
    [`/chat/${"r".repeat(64)}`]: "r".repeat(64),
    "/chat/ops?room=x#hr": "ops",
  };
  for (const [path, name] of Object.entries(names)) {
    const socket = await connect(path);
    assertEquals([...registry.rooms.keys()], [name], path);
    socket.end();
  }
});

Deno.test("/healthz and /readyz answer in text", async () => {
  const { ask } = createTestApp();
  assertEquals(await (await ask("/healthz")).text(), "ok\n");
  assertEquals(await (await ask("/readyz")).text(), "ready\n");
});

Deno.test("/rooms lists the rooms with listeners, by name", async () => {
  const { ask, connect } = createTestApp();
  const rooms = async () => await answerOf(await ask("/rooms"));
  assertEquals(await rooms(), [200, { rooms: [] }]);
  const ann = await connect("/chat/ops");
  const bo = await connect("/chat/hr", { dialect: "v1" });
  await connect("/chat/hr");
  await connect("/echo");
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "chat", message: 1 });
  ann.say({ type: "chat", message: 2 });
  assertEquals(await rooms(), [200, {
    rooms: [
      { room: "hr", members: 0, listeners: 2, seq: 0 },
      { room: "ops", members: 1, listeners: 1, seq: 2 },
    ],
  }]);
  ann.drop();
  bo.end();
  assertEquals(await rooms(), [200, {
    rooms: [{ room: "hr", members: 0, listeners: 1, seq: 0 }],
  }]);
});

Deno.test("/rooms shows no room of the server's own", async () => {
  const { ask, connect } = createTestApp();
  await connect("/chat/_stats");
  assertEquals(await answerOf(await ask("/rooms")), [200, { rooms: [] }]);
});

Deno.test("every answer but a socket's carries the safety headers", async () => {
  const { ask } = createTestApp();
  for (const path of ["/", "/healthz", "/nowhere", "/chat", "/chat/a%20b"]) {
    const response = await ask(path);
    await response.body?.cancel();
    assertEquals(response.headers.get("x-content-type-options"), "nosniff", path);
    assertEquals(response.headers.get("referrer-policy"), "no-referrer", path);
  }
});

Deno.test("the router answers 400 to a URL that is none, 414 to one that is too long", async () => {
  const { router, ask, log } = createTestApp();
  const broken = new Request("http://parley.test/");
  Object.defineProperty(broken, "url", { value: "http://a b[/healthz" });
  assertEquals(await refusalOf(await router(broken)), "400 bad_url");
  assertEquals(await refusalOf(await ask(`/echo?${"x".repeat(9_000)}`)), "414 uri_too_long");
  assertEquals(log.lines, []);
});

Deno.test("a defect is one error in the log, and no word of it to the client", async () => {
  const { ask, log } = createTestApp({
    upgrade() {
      throw new TypeError("secret cause");
    },
  });
  const response = await ask("/chat", { headers: handshakeHeaders() });
  const text = await response.text();
  assertEquals([response.status, JSON.parse(text)], [500, {
    type: "error",
    code: "internal",
    message: "Server error.",
  }]);
  assertNotMatch(text, /secret|TypeError|\.ts/);
  assertEquals(log.lines.map(({ level }) => level), ["error"]);
  assertMatch(log.lines[0].text, /^Cannot answer GET of .*: TypeError: secret cause/);
});

Deno.test("a client that goes away in the middle of its body is no error in the log", async () => {
  const { ask, log } = createTestApp();
  const body = new ReadableStream({
    pull(controller) {
      controller.error(new Deno.errors.BadResource("Cannot read request body"));
    },
  });
  const headers = { "content-type": "application/json" };
  const response = await ask("/rooms/ops/messages", { method: "POST", headers, body });
  assertEquals(await refusalOf(response), "400 bad_body");
  assertEquals(log.lines, []);
});

Deno.test("a failed upgrade leaves nothing counted", async () => {
  const { connect, registry } = createTestApp({
    upgrade() {
      throw new TypeError("no");
    },
  });
  await assertRejects(() => connect("/chat"));
  await assertRejects(() => connect("/echo"));
  assertEquals([registry.heldCount, registry.clients.size, registry.rooms.size], [0, 0, 0]);
});

Deno.test("the router needs no word about the peer, and tells it apart where there is one", async () => {
  const { router, ask, connect, log } = createTestApp();
  const request = new Request("http://parley.test/healthz");
  assertEquals((await router(request)).status, 200);
  await connect("/echo");
  await connect("/echo", { info: infoOf("192.0.2.1", 5) });
  await connect("/echo", { info: { remoteAddr: { transport: "unix", path: "/run/parley" } } });
  assertEquals(log.of("connected").map(({ fields }) => fields.remote), [
    "unknown:0",
    "192.0.2.1:5",
    "unix",
  ]);
  assert((await ask("/healthz")).ok);
});

Deno.test("without a peer's address no limit counts by one, also where a framework gives an empty object", async () => {
  const { router, connect } = createTestApp({
    settings: { POST_RATE: 1, MAX_CONNECTIONS_PER_IP: 1 },
  });
  const post = (info?: never) =>
    router(
      new Request("http://parley.test/rooms/ops/messages", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"message":1}',
      }),
      info,
    );
  for (let i = 0; i < 10; i++) assertEquals((await post()).status, 202);
  assertEquals((await post({} as never)).status, 202);
  await connect("/echo");
  await connect("/echo");
});

Deno.test("below a prefix everything is as without one, and nothing is beside it", async () => {
  const { ask, connect } = createTestApp({ prefix: "/a/rt" });
  const status = async (path: string, method = "GET") => {
    const response = await ask(path, { method, redirect: "manual" });
    await response.body?.cancel();
    return response.status;
  };
  for (
    const path of ["/", "/client.js", "/dashboard", "/healthz", "/rooms", "/rooms/ops/messages"]
  ) {
    assertEquals(await status(`/a/rt${path}`), 200, path);
    assertEquals(await status(path), 404, path);
    assertEquals(await status(`/a/rtx${path}`), 404, path);
  }
  for (const path of SOCKETS) await connect(`/a/rt${path}`);
  for (const method of ["GET", "HEAD", "POST"]) assertEquals(await status("/a/rt", method), 308);
  const moved = await ask("/a/rt?room=x");
  assertEquals(moved.headers.get("location"), "/a/rt/?room=x");
});

Deno.test("a path without the prefix is told where Parley is, and the log how to mount it, once", async () => {
  const { ask, log } = createTestApp({ prefix: "/rt" });
  for (const path of ["/chat/ops", "/rooms", "/wp-login.php"]) {
    const response = await ask(path);
    const isRoute = path !== "/wp-login.php";
    const text = isRoute ? "Not Found: Parley is below /rt/" : "Not Found";
    assertEquals([response.status, await response.text()], [404, text]);
  }
  assertEquals(log.of("outside").map(({ level }) => level), ["warn"]);
  assertMatch(log.of("outside")[0].text, /^Cannot find \/chat\/ops: .* replaceRequest: false/);
});

Deno.test("a prefix that is no path stops the start", () => {
  for (const prefix of ["rt", "/", "/rt/", "//x", "/a b", "/a?b"]) {
    const { message } = assertThrows(() => createTestApp({ prefix }), TypeError);
    assertEquals(
      message,
      `Cannot use prefix: must be a path like /rt, is ${JSON.stringify(prefix)}`,
    );
  }
});

Deno.test("without pages there are only sockets, the API and the client", async () => {
  const { app } = createTestApp();
  const router = createRouter({ ...app, pages: false });
  const status = async (path: string) => {
    const response = await router(new Request(`http://parley.test${path}`));
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await Promise.all(["/", "/dashboard", "/chat.js"].map(status)), [426, 404, 404]);
  assertEquals(await Promise.all(["/client.js", "/rooms", "/healthz"].map(status)), [
    200,
    200,
    200,
  ]);
});

Deno.test("a copy of a request gets a clear 500, and the log says what to do", async () => {
  const { app, log, registry } = createTestApp();
  const router = createRouter({ ...app, upgrade: denoUpgrade });
  const copies: ((request: Request) => Request)[] = [
    (request) => new Request(request),
    (request) => request.clone(),
    (request) => new Request(new URL("/chat", request.url), request),
  ];
  let copy = copies[0];
  const serving = { port: 0, hostname: "127.0.0.1", onListen() {} };
  await using server = Deno.serve(serving, (request, info) => router(copy(request), info));
  for (copy of copies) {
    using client = await RawClient.open(`ws://127.0.0.1:${server.addr.port}/chat`);
    assertEquals(client.status, 500);
    assertMatch(client.head, /copied_request|content-type: application\/json/i);
  }
  assertEquals(log.lines.map(({ level }) => level), ["error", "error", "error"]);
  assertMatch(
    log.lines[0].text,
    /^Cannot answer GET of 127\.0\.0\.1: Cannot upgrade a copy .*in Hono c\.req\.raw.*option prefix\.$/,
  );
  assertEquals([registry.heldCount, registry.clients.size], [0, 0]);
});

Deno.test("a Response of `authorize` is the answer, whatever its headers allow", async () => {
  const { ask, registry } = createTestApp({
    authorize: (_, room) =>
      room === "ops" ? Response.redirect("https://id.example/") : { user: "ann" },
  });
  const refused = await ask("/chat/ops", { headers: handshakeHeaders() });
  assertEquals([refused.status, refused.headers.get("location")], [302, "https://id.example/"]);
  assertEquals(refused.headers.get("x-content-type-options"), "nosniff");
  assertEquals((await ask("/rooms/hr/messages")).status, 200);
  assertEquals(registry.heldCount, 0);
});

Deno.test("an `authorize` that throws, rejects or answers nonsense is 500, and one error in the log", async () => {
  const faults: Authorize[] = [
    () => {
      throw new Error("secret cause");
    },
    () => Promise.reject(new Error("secret cause")),
    () => ({ name: "secret\ncause" }),
    ...[undefined, null, true, 7, "ops", ["ops"], new Set(["ops"]), new Error("secret cause")].map(
      (answer) => () => answer as unknown as Response,
    ),
  ];
  for (const authorize of faults) {
    const { ask, log } = createTestApp({ authorize });
    const response = await ask("/chat/ops", { headers: handshakeHeaders() });
    assertEquals(await refusalOf(response), "500 internal");
    assertEquals(log.lines.map(({ level }) => level), ["error"]);
  }
});
