import { assert, assertEquals, assertMatch } from "@std/assert";
import { type JWTPayload, UnsecuredJWT } from "jose";
import type { Grants } from "../../handlers/access/grants.ts";
import { jwtAuthorizer } from "../../handlers/access/token.ts";
import type { Settings } from "../../handlers/start/settings.ts";
import { Client, RawClient } from "../support/clients.ts";
import { createTestApp, type FakeSocket, type TestApp } from "../support/fakes.ts";
import { eventually, nextTurn } from "../support/inbox.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { ServerProcess } from "../support/process.ts";
import { startServer } from "../support/servers.ts";

async function bearer(claims: JWTPayload): Promise<{ authorization: string }> {
  return { authorization: `Bearer ${await sign(claims)}` };
}

/** A server without a port that asks for tokens. */
function createGuarded(settings: Partial<Settings> = {}): TestApp {
  const server = createTestApp({ settings: { AUTH_SECRET: SECRET, ...settings } });
  server.app.authorize = jwtAuthorizer({ secret: SECRET, clock: server.clock });
  return server;
}

/** A `parley.v1` socket with a token of these claims. */
async function enter(server: TestApp, path: string, claims: JWTPayload): Promise<FakeSocket> {
  return await server.connect(path, { dialect: "v1", headers: await bearer(claims) });
}

/** The objects that came since the last look, as soon as there are some, or the socket was closed. */
async function take(socket: FakeSocket, look = () => {}) {
  await eventually(look, () => socket.frames.length + socket.closes.length > 0, "an answer");
  const objects = socket.objects as Record<string, unknown>[];
  socket.take();
  return objects;
}

const JSON_TYPE = { "content-type": "application/json" };

Deno.test("ALLOWED_ORIGINS: a page of another origin gets 403, who sends no Origin passes", async () => {
  await using server = await startServer({ ALLOWED_ORIGINS: ["https://a.example"] });
  const status = async (headers: Record<string, string>) => {
    using client = await RawClient.open(`${server.ws}/chat`, headers);
    return client.status;
  };
  assertEquals(await status({}), 101);
  assertEquals(await status({ origin: "https://a.example" }), 101);
  assertEquals(await status({ origin: "https://b.example" }), 403);
  assertEquals(await status({ origin: "null" }), 403);
  const why = await fetch(`${server.url}/chat`, { headers: { origin: "https://b.example" } });
  assertEquals(why.status, 403);
  assertEquals(await why.json(), {
    type: "error",
    code: "forbidden",
    message:
      "The origin https://b.example is not allowed: it is not among --allowed-origins (in code allowedOrigins).",
  });
});

Deno.test("a token opens the door in the header, in the query, and as a subprotocol", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const token = await sign({ sub: "Ann" });
  const protocols = ["parley.v1", `token.${token}`];
  const ways: [string, WebSocketOptions][] = [
    ["/chat", { headers: { authorization: `Bearer ${token}` } }],
    ["/chat", { headers: { authorization: `bearer  ${token}` } }],
    [`/chat?token=${token}`, {}],
    ["/chat", { protocols }],
    ["/chat", { protocols: protocols.toReversed() }],
    ["/echo", { headers: { authorization: `Bearer ${token}` } }],
    ["/", { headers: { authorization: `Bearer ${token}` } }],
  ];
  for (const [path, options] of ways) {
    await using client = await Client.open(server.ws + path, options);
    assertEquals(client.socket.protocol, options.protocols ? "parley.v1" : "");
  }
});

Deno.test("the server never answers with the subprotocol that holds the token", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const protocol = { "sec-websocket-protocol": `token.${await sign({})}` };
  using client = await RawClient.open(`${server.ws}/chat`, protocol);
  assertEquals(client.status, 101);
  assert(!/sec-websocket-protocol/i.test(client.head), client.head);
});

/** Paths that need a token where tokens are on. */
const GUARDED = ["/rooms", "/rooms/lobby/messages", "/rooms/lobby/events", "/chat", "/echo"];

Deno.test("without a token every socket and everything under /rooms is 401", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  for (const path of GUARDED) {
    const answer = await fetch(server.url + path);
    assertEquals([answer.status, (await answer.json()).code], [401, "no_token"], path);
    assertEquals(answer.headers.get("www-authenticate"), "Bearer", path);
  }
  const posted = await fetch(`${server.url}/rooms/lobby/messages`, { method: "POST", body: "{}" });
  assertEquals([posted.status, (await posted.json()).code], [401, "no_token"]);
  for (const path of ["/", "/echo", "/chat", "/chat/ops"]) {
    using client = await RawClient.open(server.ws + path);
    assertEquals(client.status, 401, path);
  }
});

Deno.test("pages and health need no token", async () => {
  const server = createGuarded();
  const paths = ["/", "/client.js", "/chat.js", "/chat.css", "/healthz", "/readyz"];
  for (const path of paths) assertEquals((await server.ask(path)).status, 200, path);
});

Deno.test("bad, expired, unsigned and foreign tokens are 401", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const codes: Record<string, string> = {
    [await sign({ sub: "Ann", exp: 1 })]: "token_expired",
    [await sign({ sub: "Ann" }, "another secret of 32 characters!")]: "bad_token",
    [new UnsecuredJWT({ sub: "Ann" }).encode()]: "bad_token",
    "nonsense": "bad_token",
  };
  await Promise.all(
    Object.entries(codes).map(async ([token, code]) => {
      const answer = await fetch(`${server.url}/rooms`, {
        headers: { authorization: `Bearer ${token}` },
      });
      const { type, message, ...rest } = await answer.json();
      assertEquals([answer.status, type, rest], [401, "error", { code }]);
      assertMatch(
        message,
        /^The token('s .+ is wrong| has expired| is malformed|'s algorithm is not allowed)\.$/,
      );
      using client = await RawClient.open(`${server.ws}/chat?token=${token}`);
      assertEquals(client.status, 401);
    }),
  );
});

Deno.test("OTEL_DENO=true makes a server refuse a token in the query", async () => {
  const env = {
    AUTH_SECRET: SECRET,
    OTEL_DENO: "true",
    OTEL_EXPORTER_OTLP_ENDPOINT: "http://[::1]:1",
  };
  await using server = await ServerProcess.start(["--host", "127.0.0.1"], { env });
  const token = await sign({ sub: "Ann" });
  const inQuery = await fetch(`${server.url}/rooms?token=${token}`);
  assertEquals([inQuery.status, (await inQuery.json()).code], [401, "bad_token"]);
  const inHeader = await fetch(`${server.url}/rooms`, {
    headers: { authorization: `Bearer ${token}` },
  });
  assertEquals([inHeader.status, await inHeader.json()], [200, { rooms: [] }]);
});

Deno.test("a token fixes the name: none and the same join as it, another is forbidden", async () => {
  const server = createGuarded();
  const socket = await enter(server, "/chat", { sub: "u1", name: "Ann" });
  await take(socket);
  socket.say({ type: "join", name: "Bob" });
  assertEquals((await take(socket)).map(({ code }) => code), ["forbidden"]);
  for (const name of [undefined, "Ann"]) {
    socket.say({ type: "join", name });
    assertEquals((await take(socket)).map(({ type, name }) => [type, name]), [["status", "Ann"]]);
  }
  const bySub = await enter(server, "/chat/other", { sub: "u2" });
  bySub.say({ type: "join" });
  assertEquals((await take(bySub)).at(-1)?.name, "u2");
});

Deno.test("a token without a name leaves the choice", async () => {
  const server = createGuarded();
  const socket = await enter(server, "/chat", {});
  await take(socket);
  socket.say({ type: "join", name: "Bob" });
  assertEquals((await take(socket)).map(({ name }) => name), ["Bob"]);
});

Deno.test("a token's `rooms` are heard, others are 403 at the door and forbidden inside", async () => {
  const server = createGuarded();
  const claims = { sub: "Ann", rooms: ["ops", "team-*"] };
  for (const path of ["/chat/lobby", "/rooms/lobby/messages", "/rooms/lobby/events"]) {
    const answer = await server.ask(path, { headers: await bearer(claims) });
    assertEquals([answer.status, (await answer.json()).code], [403, "forbidden"], path);
  }
  const socket = await enter(server, "/chat/ops", claims);
  socket.say({ type: "listen", room: "team-a" });
  socket.say({ type: "listen", room: "lobby" });
  socket.say({ type: "join", name: "Ann", room: "lobby" });
  const objects = await take(socket);
  const shown = objects.map(({ type, code, room }) => [code ?? type, room]);
  assertEquals(shown.sort(), [
    ["forbidden", "lobby"],
    ["forbidden", "lobby"],
    ["welcome", "ops"],
    ["welcome", "team-a"],
  ]);
  assert(!server.registry.rooms.has("lobby"));
});

Deno.test("a token's `speak` says where a socket may chat; without it, where it hears", async () => {
  const server = createGuarded();
  const claims = { sub: "Ann", rooms: ["ops", "news"], speak: ["ops"] };
  const socket = await enter(server, "/chat/news", claims);
  socket.say({ type: "join" });
  socket.say({ type: "join", room: "ops" });
  await take(socket);
  socket.say({ type: "chat", message: 1, id: "1" });
  socket.say({ type: "chat", message: 2, id: "2", room: "ops" });
  const objects = await take(socket);
  assertEquals(objects.filter(({ code }) => code !== undefined), [
    { type: "error", code: "forbidden", message: "Not allowed.", id: "1" },
  ]);
  assertEquals(objects.filter(({ type }) => type === "chat").map(({ room }) => room), ["ops"]);
  const plain = await server.connect("/chat/news", { headers: await bearer(claims) });
  plain.say({ type: "join" });
  plain.take();
  plain.say({ type: "chat", message: 3 });
  assertEquals(plain.objects, [{ type: "error", message: "Not allowed." }]);
});

Deno.test("binary frames need the right to speak, too", async () => {
  const server = createGuarded();
  const claims = { sub: "Ann", rooms: ["news"], speak: [] };
  const listener = await enter(server, "/chat/news", { sub: "Bob" });
  const socket = await enter(server, "/chat/news", claims);
  socket.say({ type: "join" });
  await take(socket);
  listener.take();
  socket.sayBytes(1, 2, 3);
  assertEquals((await take(socket)).map(({ code }) => code), ["forbidden"]);
  assertEquals(listener.frames, []);
});

Deno.test("a POST needs `publish`, the room, and the right to speak; its sender is the name", async () => {
  const server = createGuarded();
  const post = async (claims: JWTPayload, room = "ops") => {
    const headers = { ...JSON_TYPE, ...await bearer(claims) };
    const body = '{"message":"hi","sender":"Somebody Else"}';
    return await server.ask(`/rooms/${room}/messages`, { method: "POST", headers, body });
  };
  const may = { sub: "u1", name: "Ann", publish: true };
  for (
    const claims of [
      { ...may, publish: undefined },
      { ...may, rooms: ["news"] },
      { ...may, rooms: ["ops"], speak: [] },
    ]
  ) {
    const refused = await post(claims);
    assertEquals([refused.status, (await refused.json()).code], [403, "forbidden"]);
  }
  assertEquals((await post({ ...may, admin: true }, "_status")).status, 403);
  assertEquals((await post(may)).status, 202);
  const kept = await server.ask("/rooms/ops/messages", { headers: await bearer(may) });
  const { messages } = await kept.json();
  assertEquals(messages.map(({ sender }: { sender: string }) => sender), ["Ann"]);
});

Deno.test("an Idempotency-Key belongs to its token: another's does not answer for it", async () => {
  const server = createGuarded();
  const post = async (sub: string) => {
    const headers = {
      ...JSON_TYPE,
      "idempotency-key": "k",
      ...await bearer({ sub, publish: true }),
    };
    const init = { method: "POST", headers, body: '{"message":"hi"}' };
    return (await (await server.ask("/rooms/ops/messages", init)).json()).seq;
  };
  assertEquals([await post("Ann"), await post("Bob"), await post("Ann")], [1, 2, 1]);
});

Deno.test("GET /rooms shows only what the token may hear", async () => {
  const server = createGuarded();
  for (const room of ["ops", "news", "team-a"]) await enter(server, `/chat/${room}`, {});
  const seen = async (claims: JWTPayload) => {
    const answer = await server.ask("/rooms", { headers: await bearer(claims) });
    return (await answer.json()).rooms.map(({ room }: { room: string }) => room);
  };
  assertEquals(await seen({}), ["news", "ops", "team-a"]);
  assertEquals(await seen({ rooms: ["team-*", "ops"] }), ["ops", "team-a"]);
  assertEquals(await seen({ rooms: [] }), []);
});

Deno.test("/metrics and the dashboard's data need `admin` where tokens are on, in every way", async () => {
  const server = createGuarded();
  const admin = await bearer({ sub: "Ann", admin: true });
  const nobody = await bearer({ sub: "Bob", rooms: ["*", "_stats"] });
  for (
    const path of ["/metrics", "/rooms/_stats/state", "/rooms/_nodes/state", "/rooms/_stats/events"]
  ) {
    const answers = [
      await server.ask(path),
      await server.ask(path, { headers: nobody }),
      await server.ask(path, { headers: admin }),
    ];
    assertEquals(answers.map(({ status }) => status), [401, 403, 200], path);
    for (const { body } of answers) await body?.cancel();
  }
  const refused = await server.ask("/chat/_stats", { headers: nobody });
  assertEquals(refused.status, 403);
  const socket = await enter(server, "/chat/ops", { sub: "Bob", rooms: ["*", "_stats"] });
  await take(socket);
  socket.say({ type: "listen", room: "_stats" });
  assertEquals((await take(socket)).map(({ code }) => code), ["forbidden"]);
  const ruler = await enter(server, "/chat/_stats", { sub: "Ann", admin: true });
  assertEquals((await take(ruler)).map(({ room }) => room), ["_stats"]);
});

Deno.test("the server's own rooms are heard only, by an admin too", async () => {
  const server = createGuarded();
  const socket = await enter(server, "/chat/_stats", { sub: "Ann", admin: true, publish: true });
  await take(socket);
  socket.say({ type: "join" });
  socket.say({ type: "chat", message: "hi" });
  assertEquals((await take(socket)).map(({ code }) => code), ["forbidden", "forbidden"]);
});

Deno.test("a socket ends with 1008 when its token's time is over, a stream of events ends too", async () => {
  const server = createGuarded();
  const exp = server.clock.now() / 1_000 + 60;
  const socket = await enter(server, "/chat", { exp });
  const headers = await bearer({ exp });
  const events = await server.ask("/rooms/lobby/events", { headers });
  const ended = events.text();
  server.clock.tick(59_999);
  assertEquals([socket.closes, server.registry.clients.size], [[], 2]);
  server.clock.tick(1);
  assertEquals(socket.closes, [{ code: 1008, reason: "token expired" }]);
  assertMatch(await ended, /^event: ?welcome/);
  assertEquals(server.registry.clients.size, 0);
});

Deno.test("a token for years keeps its socket and its stream for years", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const token = await sign({ sub: "Ann", exp: Math.floor(Date.now() / 1_000) + 10 * 365 * 86_400 });
  const options = { headers: { authorization: `Bearer ${token}` }, protocols: ["parley.v1"] };
  await using client = await Client.open(`${server.ws}/chat`, options);
  assertEquals((await client.nextObject()).type, "welcome");
  const events = await fetch(`${server.url}/rooms/lobby/events?token=${token}`);
  const reader = events.body!.getReader();
  await reader.read();
  // A timer of more than 2^31 ms runs at once: what it would end is gone after a few turns.
  for (let id = 0; id < 3; id++) {
    client.send({ type: "ping", id: `${id}` });
    assertEquals(await client.nextObject(), { type: "pong", id: `${id}` });
  }
  assertEquals(server.registry.clients.size, 2);
  await reader.cancel();
});

Deno.test("a fresh token keeps the socket open beyond the old one's end", async () => {
  const server = createGuarded();
  const now = server.clock.now() / 1_000;
  const socket = await enter(server, "/chat", { sub: "Ann", exp: now + 60 });
  server.clock.tick(50_000);
  socket.say({ type: "token", token: await sign({ sub: "Ann", exp: now + 120 }) });
  const [client] = server.registry.clients;
  await eventually(() => client.rights.expiresAt, (at) => at === (now + 120) * 1_000);
  server.clock.tick(69_999);
  assertEquals(socket.closes, []);
  server.clock.tick(1);
  assertEquals(socket.closes, [{ code: 1008, reason: "token expired" }]);
});

Deno.test("a fresh token of somebody else, or a bad one, is forbidden and changes nothing", async () => {
  const server = createGuarded();
  const exp = server.clock.now() / 1_000 + 60;
  const socket = await enter(server, "/chat", { sub: "Ann", exp });
  await take(socket);
  for (
    const token of [
      await sign({ sub: "Bob" }),
      await sign({ sub: "Ann", name: "Bob" }),
      await sign({ sub: "Ann" }, "another secret of 32 characters!"),
      "nonsense",
    ]
  ) {
    socket.say({ type: "token", token });
    const answer = await take(socket, () => server.clock.tick(50));
    assertEquals(answer.map(({ code }) => code), ["forbidden"]);
  }
  server.clock.tick(60_000);
  assertEquals(socket.closes, [{ code: 1008, reason: "token expired" }]);
});

Deno.test("of two fresh tokens the one that was sent later counts, whichever is checked first", async () => {
  const server = createGuarded();
  const socket = await enter(server, "/chat", { sub: "Ann" });
  const checks: PromiseWithResolvers<Grants>[] = [];
  server.app.authorize = () => {
    const check = Promise.withResolvers<Grants>();
    checks.push(check);
    return check.promise;
  };
  for (const token of ["first", "second"]) socket.say({ type: "token", token });
  await eventually(() => checks.length, (count) => count === 2);
  const [client] = server.registry.clients;
  const expiresAt = server.clock.now() + 60_000;
  checks[1].resolve({ user: "Ann", name: "Ann", expiresAt });
  await eventually(() => client.rights.expiresAt, (at) => at === expiresAt);
  checks[0].resolve({ user: "Ann", name: "Ann", expiresAt: expiresAt + 60_000 });
  await nextTurn();
  assertEquals(client.rights.expiresAt, expiresAt);
});

Deno.test("a fresh token that grants less takes the socket out of what it lost", async () => {
  const server = createGuarded();
  const socket = await enter(server, "/chat/ops", { sub: "Ann" });
  socket.say({ type: "listen", room: "news" });
  await take(socket);
  socket.say({ type: "token", token: await sign({ sub: "Ann", rooms: ["ops"], speak: [] }) });
  const [refusal] = await take(socket);
  assertEquals([refusal.code, refusal.room], ["forbidden", "news"]);
  assert(!server.registry.rooms.has("news"));
  socket.say({ type: "join" });
  await take(socket);
  socket.say({ type: "chat", message: "hi" });
  assertEquals((await take(socket)).map(({ code }) => code), ["forbidden"]);
  socket.say({ type: "token", token: await sign({ sub: "Ann", rooms: ["news"] }) });
  await take(socket);
  assertEquals(socket.closes, [{ code: 1008, reason: "not allowed" }]);
});

Deno.test("a token never stands in the log, whatever becomes of it", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const good = await sign({ sub: "Ann" });
  const bad = await sign({ sub: "Ann" }, "another secret of 32 characters!");
  {
    await using client = await Client.open(`${server.ws}/chat?token=${good}`);
    client.send({ type: "join" });
    await client.nextObject();
    client.send({ type: "token", token: bad });
    await client.nextObject();
  }
  const protocols = ["parley.v1", `token.${good}`];
  await using v1 = await Client.open(`${server.ws}/chat`, { protocols });
  await v1.nextObject();
  v1.send({ type: "token", token: bad });
  await v1.nextObject();
  for (const path of [`/rooms?token=${bad}`, `/rooms?token=${good}`, `/no%?token=${good}`]) {
    await fetch(server.url + path).then((answer) => answer.body?.cancel());
  }
  const text = JSON.stringify(server.log.lines);
  for (const token of [good, bad]) {
    for (const part of token.split(".").slice(1)) assert(!text.includes(part), "it is in the log");
  }
  assert(server.log.lines.length > 2);
});

Deno.test("no answer shows a token, a secret or a stack", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const token = await sign({ sub: "Ann", rooms: [] }, "another secret of 32 characters!");
  for (const path of ["/rooms", "/chat/x", "/chat/%zz", "/nowhere", "/rooms/a/messages?limit=x"]) {
    const answer = await fetch(
      `${server.url}${path}${path.includes("?") ? "&" : "?"}token=${token}`,
    );
    const text = JSON.stringify([...answer.headers]) + await answer.text();
    assert(!text.includes(token) && !text.includes(SECRET) && !/at .*\.ts/.test(text), text);
  }
});

Deno.test("AUTH_ISSUER, AUTH_AUDIENCE and MAX_TOKEN_SECONDS are asked of each token", async () => {
  const auth = { AUTH_SECRET: SECRET, AUTH_ISSUER: "https://id.example", AUTH_AUDIENCE: "parley" };
  await using server = await startServer({ ...auth, MAX_TOKEN_SECONDS: 60 });
  const now = Math.floor(Date.now() / 1_000);
  const good = { iss: "https://id.example", aud: "parley", iat: now };
  const answer = async (claims: JWTPayload) => {
    const headers = await bearer({ ...good, ...claims });
    const { status, ...response } = await fetch(`${server.url}/rooms`, { headers })
      .then(async (response) => ({ status: response.status, ...await response.json() }));
    return [status, response.message];
  };
  assertEquals(await answer({}), [200, undefined]);
  const unexpected = (claim: string) =>
    `The token's ${claim} is not the one that this server expects.`;
  assertEquals(await answer({ iss: "https://evil.example" }), [401, unexpected("iss")]);
  assertEquals(await answer({ aud: "another service" }), [401, unexpected("aud")]);
  assertEquals(await answer({ iat: now - 61 }), [401, "The token has expired."]);
});

Deno.test("the start warns in the log", async () => {
  await using server = await ServerProcess.start([]);
  server.kill("SIGTERM");
  await server.status;
  assert(server.lines().some((line) => line.includes("Anybody may connect")));
});
