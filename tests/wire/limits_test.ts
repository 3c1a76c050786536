/** Each limit, on as shipped: a test sets only what would take it too long to fill. */
import type { LimitTable } from "../../handlers/access/shared_limits.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createTestApp, type FakeSocket, infoOf, type TestApp } from "../support/fakes.ts";
import type { Settings } from "../../handlers/start/settings.ts";
import { nextTurn } from "../support/inbox.ts";
import { startServer } from "../support/servers.ts";
import { sayAll } from "../support/v1.ts";

type Fields = Record<string, unknown>;

/** The objects that came since the last look; `parley.v1` merges, so the turn is ended first. */
async function take(socket: FakeSocket): Promise<Fields[]> {
  await Promise.resolve();
  const objects = socket.objects as Fields[];
  socket.take();
  return objects;
}

/** A `parley.v1` socket that has joined the lobby. */
async function joinLobby(server: TestApp): Promise<FakeSocket> {
  const socket = await server.connect("/chat", { dialect: "v1" });
  socket.say({ type: "join", name: "Ann" });
  await take(socket);
  return socket;
}

async function post(server: TestApp, body: unknown, room = "lobby", address = "10.0.0.1") {
  const init = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  return await server.ask(`/rooms/${room}/messages`, init, infoOf(address));
}

Deno.test("MESSAGE_RATE: the 101st message of a second is refused, and told when to come back", async () => {
  const server = createTestApp();
  const socket = await joinLobby(server);
  server.clock.tick(1_000);
  for (let id = 1; id <= 101; id++) socket.say({ type: "chat", message: id, id: `${id}` });
  const objects = await take(socket);
  assertEquals(objects.filter(({ type }) => type === "ack").length, 100);
  assertEquals(objects.filter(({ type }) => type === "error"), [{
    type: "error",
    code: "rate_limited",
    message: "Too many messages.",
    id: "101",
    retry: 10,
  }]);
  server.clock.tick(10);
  socket.say({ type: "chat", message: 101, id: "101" });
  assertEquals((await take(socket)).some(({ type, id }) => type === "ack" && id === "101"), true);
});

Deno.test("MESSAGE_RATE counts objects, not frames, and binary frames too", async () => {
  const server = createTestApp();
  const socket = await joinLobby(server);
  server.clock.tick(1_000);
  socket.say(Array.from({ length: 99 }, () => '{"type":"ping"}').join("\n"));
  socket.sayBytes(1);
  socket.sayBytes(2);
  const objects = await take(socket);
  assertEquals(objects.filter(({ type }) => type === "pong").length, 99);
  assertEquals(objects.filter(({ code }) => code === "rate_limited").length, 1);
});

Deno.test("a frame of more than 1,000 refused objects ends the socket", async () => {
  const server = createTestApp();
  const socket = await joinLobby(server);
  socket.say(Array.from({ length: 5_000 }, () => "{}").join("\n"));
  assertEquals(socket.closes, [{ code: 1008, reason: "rate limited" }]);
  assert((await take(socket)).length <= 1_200);
});

Deno.test("BYTE_RATE: more than a MiB in a second is refused, and told when to come back", async () => {
  const server = createTestApp();
  const socket = await joinLobby(server);
  server.clock.tick(1_000);
  const message = "x".repeat(60_000);
  for (let count = 1; count <= 18; count++) socket.say({ type: "chat", message });
  const [refusal, ...others] = (await take(socket)).filter(({ type }) => type === "error");
  assertEquals(refusal.code, "rate_limited");
  assertEquals(others, []);
  const retry = refusal.retry as number;
  assert(retry > 0 && retry < 100, `${retry} ms`);
  server.clock.tick(retry);
  socket.say({ type: "chat", message });
  assertEquals((await take(socket)).filter(({ type }) => type === "error"), []);
});

Deno.test("BYTE_RATE counts bytes, not characters", async () => {
  const server = createTestApp({ settings: { BYTE_RATE: 10_000, MESSAGE_RATE: 0 } });
  const socket = await joinLobby(server);
  server.clock.tick(1_000);
  for (let count = 1; count <= 4; count++) {
    socket.say({ type: "chat", message: "\u3042".repeat(1_000) });
  }
  const objects = await take(socket);
  assertEquals(objects.filter(({ type }) => type === "chat").length, 3);
});

Deno.test("an echo socket over its rate is closed at once", async () => {
  const server = createTestApp();
  const byCount = await server.connect("/echo");
  for (let count = 1; count <= 101; count++) byCount.say("x");
  assertEquals(byCount.frames.length, 100);
  const byBytes = await server.connect("/echo");
  for (let count = 1; count <= 18; count++) byBytes.say("x".repeat(60_000));
  assertEquals(byBytes.frames.length, 17);
  const limited = [{ code: 1008, reason: "rate limited" }];
  assertEquals([byCount.closes, byBytes.closes], [limited, limited]);
});

Deno.test("JOIN_RATE: 100 rooms at once, then 10 a second; joins, listens and leaves count", async () => {
  const server = createTestApp({ settings: { MAX_ROOMS_PER_CONNECTION: 20 } });
  const socket = await server.connect("/chat", { dialect: "v1" });
  await take(socket);
  for (let round = 0; round < 10; round++) {
    socket.say({ type: "listen", room: "a" });
    socket.say({ type: "leave", room: "a" });
  }
  assertEquals((await take(socket)).filter(({ type }) => type === "error"), []);
  socket.say({ type: "join", name: "Ann", room: "b" });
  assertEquals((await take(socket)).map(({ code, retry }) => [code, retry]), [[
    "rate_limited",
    100,
  ]]);
  server.clock.tick(100);
  socket.say({ type: "join", name: "Ann", room: "b" });
  socket.say({ type: "listen", room: "c" });
  const objects = await take(socket);
  assertEquals(objects.map(({ type }) => type).sort(), ["error", "status", "welcome"]);
  assertEquals(createTestApp().settings.MAX_ROOMS_PER_CONNECTION, 100);
});

Deno.test("POST_RATE: the 101st post of a second from one address is 429 with Retry-After", async () => {
  const server = createTestApp();
  for (let count = 1; count <= 100; count++) {
    assertEquals((await post(server, { message: count })).status, 202);
  }
  const refused = await post(server, { message: 101 });
  assertEquals([refused.status, refused.headers.get("retry-after")], [429, "1"]);
  assertEquals((await refused.json()).code, "rate_limited");
  assertEquals((await post(server, { message: 1 }, "lobby", "10.0.0.2")).status, 202);
  server.clock.tick(10);
  assertEquals((await post(server, { message: 101 })).status, 202);
});

Deno.test("POST_RATE counts an IPv6 /64 as one address", async () => {
  const server = createTestApp({ settings: { POST_RATE: 1 } });
  assertEquals((await post(server, {}, "lobby", "2001:db8::1")).status, 202);
  assertEquals((await post(server, {}, "lobby", "2001:db8::ffff")).status, 429);
  assertEquals((await post(server, {}, "lobby", "2001:db8:0:1::1")).status, 202);
});

Deno.test("MAX_ROOMS: no room more while all are heard; the longest-empty goes first", async () => {
  const server = createTestApp({ settings: { MAX_ROOMS: 2 } });
  const first = await server.connect("/chat/a");
  const second = await server.connect("/chat/b", { info: infoOf("192.0.2.2") });
  const third = await server.connect("/chat/c", { dialect: "v1", info: infoOf("192.0.2.3") });
  assertEquals((await take(third)).map(({ type, code }) => [type, code]), [[
    "error",
    "too_many_rooms",
  ]]);
  const posted = await post(server, {}, "d");
  assertEquals([posted.status, (await posted.json()).code], [503, "too_many_rooms"]);
  assertEquals((await server.ask("/rooms/e/events")).status, 503);
  first.end();
  second.end();
  for (const [i, room] of ["d", "e", "f"].entries()) {
    assertEquals((await post(server, {}, room, `10.0.0.${i}`)).status, 202);
  }
  assertEquals(server.engine.stats().rooms, 2);
});

Deno.test("MAX_CONNECTIONS: one more gets 503 with Retry-After, until the runtime let one go", async () => {
  const server = createTestApp({ settings: { MAX_CONNECTIONS: 2 } });
  const [first] = [await server.connect("/chat"), await server.connect("/echo")];
  const refused = await server.ask("/chat");
  assertEquals([refused.status, refused.headers.get("retry-after")], [503, "5"]);
  assertEquals((await refused.json()).code, "full");
  assertEquals((await server.ask("/readyz")).status, 503);
  assertEquals((await server.ask("/healthz")).status, 200);
  await assertRejects(() => server.connect("/echo"), Error, "503");

  first.isStuck = true;
  first.bufferedAmount = 2 ** 21;
  await post(server, { message: "one too many for it" });
  assertEquals(first.closes[0].code, 1013);
  assertEquals((await server.ask("/chat")).status, 503, "evicted, but the runtime holds it");
  first.end(1006, "", false);
  assertEquals((await server.ask("/chat")).status, 426);
});

Deno.test("MAX_CONNECTIONS counts readers of events", async () => {
  const server = createTestApp({ settings: { MAX_CONNECTIONS: 1 } });
  const reader = await server.ask("/rooms/lobby/events");
  assertEquals(reader.status, 200);
  assertEquals((await server.ask("/rooms/lobby/events")).status, 503);
  await assertRejects(() => server.connect("/echo"), Error, "503");
  await reader.body!.cancel();
  await server.connect("/echo");
});

Deno.test("MAX_CONNECTIONS counts a socket whose handshake is not done", async () => {
  const server = createTestApp({ settings: { MAX_CONNECTIONS: 1 } });
  const socket = await server.handshake("/chat");
  assertEquals((await server.ask("/chat")).status, 503);
  socket.fail("the peer went before the answer");
  await server.connect("/chat");
});

Deno.test("MAX_CONNECTIONS_PER_IP: one address cannot take the places of others", async () => {
  const server = createTestApp({ settings: { MAX_CONNECTIONS_PER_IP: 2 } });
  const info = infoOf("10.0.0.1");
  const socket = await server.connect("/chat", { info });
  const reader = await server.ask("/rooms/lobby/events", {}, info);
  const refused = await server.ask("/chat", {}, info);
  assertEquals([refused.status, refused.headers.get("retry-after")], [429, "5"]);
  assertEquals((await refused.json()).code, "too_many_connections");
  await server.connect("/chat", { info: infoOf("10.0.0.2") });
  socket.end();
  await reader.body!.cancel();
  await server.connect("/chat", { info });
  assertEquals((server.app.sharedLimits as LimitTable).countOf("10.0.0.1"), 1);
});

Deno.test("MAX_CONNECTIONS_PER_IP behind a proxy counts by what TRUST_PROXY names", async () => {
  const server = createTestApp({ settings: { MAX_CONNECTIONS_PER_IP: 1, TRUST_PROXY: 1 } });
  const info = infoOf("127.0.0.1");
  const from = (hops: string) => ({ headers: { "x-forwarded-for": hops }, info });
  await server.connect("/chat", from("203.0.113.1"));
  await server.connect("/chat", from("203.0.113.2"));
  await assertRejects(() => server.connect("/chat", from("203.0.113.2")), Error, "429");
  await assertRejects(() => server.connect("/chat", from("6.6.6.6, 203.0.113.2")), Error, "429");
  await server.connect("/chat", from("2001:db8::1"));
  await assertRejects(() => server.connect("/chat", from("2001:db8::2")), Error, "429");
});

/** Who comes is who the header says; there is an answer to each charge at once, or later as from another thread. */
function withUsers(settings: Partial<Settings>, isLate = false): TestApp {
  const authorize = ({ headers }: Request) => ({ user: headers.get("authorization") ?? undefined });
  const server = createTestApp({ authorize, settings });
  const limits = server.app.sharedLimits as LimitTable;
  const trySend = limits.trySend.bind(limits);
  if (isLate) Object.assign(limits, { trySend: async (user: string) => await trySend(user) });
  return server;
}

Deno.test("MAX_CONNECTIONS_PER_USER: sockets and streams of one user, wherever they come from", async () => {
  const server = withUsers({ MAX_CONNECTIONS_PER_USER: 2 });
  const [ann, bo] = ["Ann", "Bo"].map((authorization) => ({ headers: { authorization } }));
  const socket = await server.connect("/chat", { ...ann, info: infoOf("10.0.0.1") });
  const reader = await server.ask("/rooms/lobby/events", ann, infoOf("10.0.0.2"));
  const refused = await server.ask("/chat", ann, infoOf("10.0.0.3"));
  assertEquals([refused.status, refused.headers.get("retry-after")], [429, "5"]);
  assertEquals(await refused.json(), {
    type: "error",
    code: "too_many_connections",
    message: "Too many connections of this user.",
  });
  for (const one of [bo, {}, {}, {}]) await server.connect("/chat", one);
  socket.end();
  await reader.body!.cancel();
  await server.connect("/chat", ann);
  await server.connect("/chat", ann);
  await assertRejects(() => server.connect("/chat", ann), Error, "429");
});

for (const isLate of [false, true]) {
  const how = isLate ? ", counted in another thread" : "";
  Deno.test(`MESSAGE_RATE_PER_USER: the messages of a user's sockets together${how}`, async () => {
    const server = withUsers({ MESSAGE_RATE_PER_USER: 5, MESSAGE_RATE: 10_000 }, isLate);
    const connect = (user: string, room = "ops") =>
      server.connect(`/chat/${room}`, { dialect: "v1", headers: { authorization: user } });
    const [one, two, other] = [await connect("Ann"), await connect("Ann"), await connect("Bo")];
    for (const socket of [one, two, other]) socket.say({ type: "join" });
    for (const id of ["1", "2"]) one.say({ type: "chat", message: id, id });
    // What is sent at once takes effect in its order, though it waits for its charge.
    one.say({ type: "leave" });
    for (const socket of [one, two, other]) socket.say({ type: "chat", message: "late", id: "3" });
    await nextTurn();
    const answers = async (socket: FakeSocket) =>
      (await take(socket)).filter(({ type }) => type === "ack" || type === "error")
        .map(({ id, code }) => `${id} ${code ?? "ack"}`);
    assertEquals(await answers(one), ["1 ack", "2 ack", "3 rate_limited"]);
    assertEquals([await answers(two), await answers(other)], [["3 rate_limited"], ["3 ack"]]);
    server.clock.tick(200);
    two.say({ type: "chat", message: "again", id: "3" });
    await nextTurn();
    assertEquals(await answers(two), ["3 ack"]);
    assertEquals([two.closes, server.registry.rooms.get("ops")?.subscriberCount], [[], 2]);
    // Others of its user may have used up the rate: only a flood ends a socket.
    for (let i = 0; i < 20; i++) {
      server.clock.tick(1_000);
      sayAll(two, Array(6).fill({ type: "ping" }));
    }
    await nextTurn();
    assertEquals(two.closes, []);
    sayAll(two, Array(1_006).fill({ type: "ping" }));
    await nextTurn();
    assertEquals(two.closes, [{ code: 1008, reason: "rate limited" }]);
  });
}

Deno.test("counts by address leave nothing behind", async () => {
  const server = createTestApp();
  const address = (index: number) => `10.${index >> 8}.${index & 255}.1`;
  for (let index = 0; index < 2_000; index++) {
    const socket = await server.connect("/echo", { info: infoOf(address(index)) });
    socket.drop();
  }
  const limits = server.app.sharedLimits as LimitTable;
  const left = Array.from({ length: 2_000 }, (_, index) => limits.countOf(address(index)));
  assertEquals(left.every((count) => count === 0), true);
  assertEquals([server.registry.heldCount, server.registry.clients.size], [0, 0]);
});

Deno.test("MAX_MESSAGE_BYTES: a longer message closes with 1009, a longer body is 413", async () => {
  const server = createTestApp();
  const fits = await server.connect("/echo");
  fits.say("x".repeat(65_536));
  assertEquals(fits.frames.length, 1);
  const [text, wide, binary] = [
    await server.connect("/echo"),
    await server.connect("/chat"),
    await server.connect("/chat", { dialect: "v1" }),
  ];
  text.say("x".repeat(65_537));
  wide.say("\u3042".repeat(21_846));
  binary.sayBytes(...new Uint8Array(65_537));
  for (const socket of [text, wide, binary]) {
    assertEquals(socket.closes, [{ code: 1009, reason: "message too big" }]);
  }
  const refused = await post(server, { message: "x".repeat(65_536) });
  assertEquals([refused.status, (await refused.json()).code], [413, "too_big"]);
});

/** JSON text that nests so deep. */
function nested(depth: number): string {
  return "[".repeat(depth) + "]".repeat(depth);
}

Deno.test("JSON nests at most 100 deep in a body", async () => {
  const server = createTestApp();
  const status = async (depth: number) => {
    const body = `{"message":${nested(depth)}}`;
    const headers = { "content-type": "application/json" };
    const response = await server.ask("/rooms/a/messages", { method: "POST", headers, body });
    return response.status;
  };
  assertEquals([await status(99), await status(101), await status(30_000)], [202, 400, 400]);
});

Deno.test("MAX_RSS_MB is held against this process's memory from the start", async () => {
  await using small = await startServer({ MAX_RSS_MB: 1 });
  assertEquals(await fetch(`${small.url}/readyz`).then((answer) => answer.text()), "overloaded\n");
  await using large = await startServer({ MAX_RSS_MB: 100_000 });
  assertEquals(await fetch(`${large.url}/readyz`).then((answer) => answer.text()), "ready\n");
});

Deno.test("a page of history takes at most half of MAX_QUEUE_BYTES, and one message more than none", async () => {
  const server = createTestApp({ settings: { MAX_QUEUE_BYTES: 100_000 } });
  for (let number = 1; number <= 5; number++) {
    await post(server, { message: `${number}`.repeat(20_000) });
  }
  await post(server, { message: "6".repeat(60_000) });
  const read = async (query: string) => {
    const answer = await server.ask(`/rooms/lobby/messages${query}`);
    const { messages, seq, epoch } = await answer.json();
    return { seqs: messages.map((chat: { seq: number }) => chat.seq), seq, epoch };
  };
  const newest = await read("");
  assertEquals([newest.seqs, newest.seq], [[6], 6]);
  const pages = [];
  for (let seq = 0; seq < 6;) {
    const page = await read(`?after=${newest.epoch}:${seq}`);
    pages.push(page.seqs);
    seq = page.seq;
  }
  assertEquals(pages, [[1, 2], [3, 4], [5], [6]]);
});

Deno.test("a body that does not come within 30 s is 408", async () => {
  const server = createTestApp();
  let isCancelled = false;
  const body = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode('{"message":')),
    cancel: () => void (isCancelled = true),
  });
  const headers = { "content-type": "application/json" };
  const answer = server.ask("/rooms/lobby/messages", { method: "POST", headers, body });
  await nextTurn();
  server.clock.tick(30_000);
  const { status } = await answer;
  assertEquals([status, isCancelled, server.engine.stats().rooms], [408, true, 0]);
});
