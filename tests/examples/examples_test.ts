// The whole server is one function of a request: the examples put a program beside and around it.
import { assertEquals, assertMatch } from "@std/assert";
import { Client } from "../support/clients.ts";
import { runBot } from "./bot.ts";
import { createApp } from "./hono_prefix.ts";
import { createDatabase, createMembersOnly } from "./members_only.ts";
import { withTiming } from "./middleware.ts";
import { createPoliteParley } from "./profanity_filter.ts";
import { createParley, type Parley } from "../../handlers/parley.ts";
import { ordersBeside } from "./rest_beside.ts";
import { RecordingLog } from "../support/fakes.ts";

type Serve = (request: Request, info: Deno.ServeHandlerInfo) => Response | Promise<Response>;

/** Serves what `wrap` makes of a Parley, on a free port. */
function serve(wrap: (parley: Parley) => Serve, parley?: Parley) {
  const log = new RecordingLog();
  const made = parley ?? createParley({ log });
  const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
  const server = Deno.serve(options, wrap(made));
  return {
    log,
    parley: made,
    origin: `127.0.0.1:${server.addr.port}`,
    async [Symbol.asyncDispose]() {
      await made.drain({ seconds: 0 });
      await made[Symbol.asyncDispose]();
      await server.shutdown();
    },
  };
}

Deno.test("a REST app stands beside the sockets on one port, and talks to their rooms", async () => {
  await using server = serve(ordersBeside);
  const url = `http://${server.origin}`;
  await using client = await Client.open(`ws://${server.origin}/chat/orders`);
  const created = await fetch(`${url}/orders`, { method: "POST", body: '{"item":"tea"}' });
  const order = { id: 1, item: "tea" };
  assertEquals([created.status, await created.json()], [201, order]);
  assertEquals(await client.nextObject(), { type: "chat", sender: "shop", message: order });
  assertEquals(await (await fetch(`${url}/orders`)).json(), [order]);
  for (const body of ["x", "null", "[]", "{}", '{"item":1}']) {
    const refused = await fetch(`${url}/orders`, { method: "POST", body });
    assertEquals([refused.status, (await refused.json()).message], [
      400,
      'An order is {"item":"…"}.',
    ]);
  }
  const rooms = await (await fetch(`${url}/rooms`)).json();
  assertEquals(rooms, { rooms: [{ room: "orders", members: 0, listeners: 1, seq: 1 }] });
  assertEquals(await (await fetch(`${url}/healthz`)).text(), "ok\n");
  const nowhere = await fetch(`${url}/nowhere`);
  assertEquals([nowhere.status, await nowhere.text()], [404, "Not Found"]);
});

Deno.test("a middleware wraps every answer, and sockets open through it", async () => {
  await using server = serve(({ fetch }) => withTiming(fetch));
  for (const path of ["/healthz", "/nowhere", "/chat"]) {
    const response = await fetch(`http://${server.origin}${path}`);
    await response.body?.cancel();
    assertMatch(response.headers.get("server-timing") ?? "", /^parley;dur=\d+\.\d$/);
  }
  await using echo = await Client.open(`ws://${server.origin}/echo`);
  echo.send("hello");
  assertEquals(await echo.next(), "Echo: hello");
  await using ann = await Client.open(`ws://${server.origin}/chat/ops`, "parley.v1");
  assertEquals(ann.socket.protocol, "parley.v1");
  assertEquals((await ann.nextObject()).type, "welcome");
  assertMatch(String(server.log.of("connected")[0].fields.remote), /^127\.0\.0\.1:\d+$/);
});

Deno.test("a profanity filter refuses, cuts and lets be, notes too", async () => {
  await using server = serve(({ fetch }) => fetch, createPoliteParley());
  const url = `ws://${server.origin}/chat/ops`;
  await using ann = await Client.open(url, "parley.v1");
  ann.send({ type: "join", name: "Ann" });
  const seen: [type: unknown, shown: unknown][] = [];
  for (const type of ["chat", "note"]) {
    for (const message of ["hi", "Damn!", "x".repeat(300)]) ann.send({ type, message });
  }
  ann.send({ type: "note", message: { typing: true } });
  ann.send({ type: "chat", message: 7 });
  while (seen.length < 8) {
    const { type, message } = await ann.nextObject();
    const shown = typeof message === "string" ? message.slice(-3) : message;
    if (["chat", "note", "error"].includes(String(type))) seen.push([type, shown]);
  }
  // An error may overtake what the turn of the event loop still merges.
  const ofType = (wanted: string) =>
    seen.filter(([type]) => type === wanted).map(([, shown]) => shown);
  assertEquals(ofType("error"), ["nd.", "nd.", "xt."]);
  assertEquals(ofType("chat"), ["hi", "xx…"]);
  assertEquals(ofType("note"), ["hi", "xx…", { typing: true }]);
});

Deno.test("only members of the database may join their room", async () => {
  using database = createDatabase([["board", "Ann"]]);
  await using server = serve(({ fetch }) => fetch, createMembersOnly(database));
  await using ann = await Client.open(`ws://${server.origin}/chat/board`);
  ann.send({ type: "join", name: "Bo" });
  assertEquals(await ann.nextObject(), { type: "error", message: "Not a member of board." });
  ann.send({ type: "join", name: "Ann" });
  assertEquals(await ann.nextObject(), { type: "status", message: "Ann joined the chat." });
});

Deno.test("a bot hears a room and answers in it, until its signal", async () => {
  await using server = serve(({ fetch }) => fetch);
  const stop = new AbortController();
  const bot = runBot(server.parley, "ops", stop.signal);
  await using ann = await Client.join(`ws://${server.origin}/chat/ops`, "Ann");
  ann.send({ type: "chat", message: "!time" });
  assertEquals((await ann.nextObject()).message, "!time");
  const { sender, message } = await ann.nextObject();
  assertEquals(sender, "clock");
  assertMatch(String(message), /^\d{4}-\d\d-\d\dT/);
  stop.abort();
  await bot;
});

Deno.test("Hono serves Parley below a prefix: sockets, pages, client", async () => {
  const parley = createParley({ prefix: "/rt" });
  await using server = serve((parley) => {
    const app = createApp(parley);
    return (request, info) => app.fetch(request, info);
  }, parley);
  const url = `http://${server.origin}`;
  assertEquals(await (await fetch(url)).text(), "Hello from Hono");
  assertEquals(await (await fetch(`${url}/rt/healthz`)).text(), "ok\n");
  assertMatch(await (await fetch(`${url}/rt/`)).text(), /<title>/);
  assertMatch(await (await fetch(`${url}/rt/client.js`)).text(), /export/);
  await using ann = await Client.join(`ws://${server.origin}/rt/chat/ops`, "Ann");
  ann.send({ type: "chat", message: "through Hono" });
  assertEquals((await ann.nextObject()).message, "through Hono");
});
