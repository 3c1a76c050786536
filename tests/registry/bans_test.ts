import { assertEquals, assertRejects } from "@std/assert";
import { Access, type Visitor } from "../../handlers/access/access.ts";
import { DEFAULT_LIMITS } from "../../handlers/access/limits.ts";
import { createApp } from "../../handlers/app.ts";
import type { Engine, Host } from "../../handlers/engine/engine.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { createParley } from "../../handlers/parley.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import type { StateSpan } from "../../handlers/protocol/room_event.ts";
import { BANS_ROOM } from "../../handlers/protocol/parse.ts";
import { runApp } from "../../handlers/run_app.ts";
import { FakeClock, handshakeHeaders, infoOf, RecordingLog } from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";

const authorize = (request: Request) => ({
  user: request.headers.get("authorization") ?? "nobody",
  admin: request.headers.get("authorization") === "admin",
});

function start(engine?: (clock: FakeClock) => Engine) {
  const clock = new FakeClock();
  const log = new RecordingLog();
  const app = createApp({ authorize, clock, log, engine: engine?.(clock) });
  const parley = runApp(app);
  const ask = (user: string, path: string, method = "GET") =>
    parley.fetch(
      new Request(`http://parley.test${path}`, { method, headers: { authorization: user } }),
      infoOf("127.0.0.1"),
    );
  return { clock, log, app, parley, ask };
}

async function statusOf(answer: Promise<Response>): Promise<number> {
  const { status, body } = await answer;
  await body?.cancel();
  return status;
}

Deno.test("DELETE /users/{user} ends the user's streams and refuses the user for so long", async () => {
  const { parley, ask, clock } = start();
  const stream = await ask("ann", "/rooms/ops/events");
  const other = await ask("bob", "/rooms/ops/events");
  assertEquals(await statusOf(ask("bob", "/users/ann?seconds=60", "DELETE")), 403);
  assertEquals(parley.clientCount, 2);
  assertEquals(await statusOf(ask("admin", "/users/ann?seconds=60", "DELETE")), 202);
  // It ends: the reader gets what was sent before, and the end.
  await stream.text();
  assertEquals(parley.clientCount, 1);
  assertEquals((await (await ask("ann", "/rooms/ops/messages")).json()).code, "forbidden");
  // A second host of the room here would take its events from the bans.
  assertEquals(await statusOf(ask("admin", "/rooms/_bans/events")), 403);
  // Ending what is open does not end the ban.
  assertEquals(await statusOf(ask("admin", "/users/ann", "DELETE")), 202);
  assertEquals(await statusOf(ask("ann", "/rooms")), 403);
  assertEquals(await statusOf(ask("bob", "/rooms")), 200);
  clock.tick(60_001);
  assertEquals(await statusOf(ask("ann", "/rooms")), 200);
  await parley.disconnect("bob");
  await other.text();
  await parley[Symbol.asyncDispose]();
});

Deno.test("DELETE /users/{user} without seconds lets the user come back", async () => {
  const { parley, ask } = start();
  const stream = await ask("a/b c", "/rooms/ops/events");
  assertEquals(await statusOf(ask("admin", "/users/a%2Fb%20c", "DELETE")), 202);
  await stream.text();
  assertEquals(await statusOf(ask("a/b c", "/rooms")), 200);
  await parley[Symbol.asyncDispose]();
});

Deno.test("DELETE /users/{user} ends who was let in before it, and is not there yet", async () => {
  const { app, parley, ask } = start();
  const { acquire } = app.sharedLimits;
  const waiting = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  app.sharedLimits.acquire = async (...client) => {
    waiting.resolve();
    await gate.promise;
    return acquire.apply(app.sharedLimits, client);
  };
  const [stream, other] = [ask("ann", "/rooms/ops/events"), ask("bob", "/rooms/ops/events")];
  await waiting.promise;
  assertEquals(await statusOf(ask("admin", "/users/ann", "DELETE")), 202);
  gate.resolve();
  await (await stream).text();
  const streams = [await other, await ask("ann", "/rooms/ops/events")];
  assertEquals(parley.clientCount, 2);
  for (const { body } of streams) await body?.cancel();
  await nextTurn();
  await parley[Symbol.asyncDispose]();
});

Deno.test("DELETE /users/{user} refuses what are no whole seconds", async () => {
  const { parley, ask } = start();
  for (const seconds of ["-1", "1.5", "x", "1e99"]) {
    assertEquals(await statusOf(ask("admin", `/users/ann?seconds=${seconds}`, "DELETE")), 400);
  }
  assertEquals(await statusOf(ask("admin", "/users/", "DELETE")), 400);
  await assertRejects(() => parley.disconnect("ann", { seconds: 0.5 }), TypeError);
  await parley[Symbol.asyncDispose]();
});

Deno.test("disconnect() closes a socket with 1008 not allowed; its user cannot open another", async () => {
  const parley = createParley({
    authorize: (request) => ({ user: new URL(request.url).searchParams.get("user") ?? "" }),
  });
  await using server = Deno.serve({ port: 0, onListen() {} }, parley.fetch);
  const socket = new WebSocket(`ws://127.0.0.1:${server.addr.port}/chat?user=ann`);
  await new Promise((resolve) => socket.onopen = resolve);
  const closed = new Promise<CloseEvent>((resolve) => socket.onclose = resolve);
  await parley.disconnect("ann", { seconds: 60 });
  const { code, reason } = await closed;
  assertEquals([code, reason], [1008, "not allowed"]);
  const answer = fetch(`http://127.0.0.1:${server.addr.port}/rooms?user=ann`);
  assertEquals(await statusOf(answer), 403);
  await parley[Symbol.asyncDispose]();
});

Deno.test("Access refuses to renew the token of a user who was sent away", async () => {
  let isBanned = false;
  const rules = { allowedOrigins: [], trustedProxies: 0, authorize, log: new RecordingLog() };
  const access = new Access(rules, { has: () => isBanned, count: 0 });
  const request = new Request("http://parley.test/chat", { headers: handshakeHeaders() });
  const visitor = await access.authorize({ request, info: infoOf("127.0.0.1"), need: "grants" });
  const { renew } = visitor as Visitor;
  assertEquals((await renew!("fresh")).user, "Bearer fresh");
  isBanned = true;
  const { status, code } = await assertRejects(() => renew!("fresh"), HttpError);
  assertEquals([status, code], [403, "forbidden"]);
});

Deno.test("Bans hold in a process that hears of them later, and retry until the engine is there", async () => {
  let isThere = false;
  let before!: Engine;
  const { parley, ask, clock, log } = start((clock) => {
    const engine = before = createMemoryEngine(DEFAULT_LIMITS, clock);
    return new Proxy(engine, {
      get(target, name) {
        if (name === "host" && !isThere) {
          return (room: string, host: Host) =>
            room === BANS_ROOM ? { refused: "unavailable" } : target.host(room, host);
        }
        const value = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  });
  const first = createParley({ engine: before });
  await first.disconnect("ann", { seconds: 60 });
  const stream = await ask("bob", "/rooms/ops/events");
  await first.disconnect("bob");
  assertEquals(await statusOf(ask("ann", "/rooms")), 200);
  clock.tick(1_000);
  await nextTurn();
  isThere = true;
  clock.tick(1_000);
  await nextTurn();
  assertEquals(await statusOf(ask("ann", "/rooms")), 403);
  // Who was only sent away meanwhile has to go, and may come back.
  await stream.text();
  assertEquals(await statusOf(ask("bob", "/rooms")), 200);
  assertEquals(log.lines.filter(({ text }) => text.startsWith("Cannot read bans")).length, 1);
  await parley[Symbol.asyncDispose]();
  await first[Symbol.asyncDispose]();
});

Deno.test("Bans that are read again look at each client once, however many they are", async () => {
  const { app: { registry }, parley, ask } = start();
  for (let i = 0; i < 20; i++) await parley.disconnect(`user ${i}`, { seconds: 60 });
  const stream = await ask("ann", "/rooms/ops/events");
  const [client] = registry.holders;
  const { rights } = client;
  let looks = 0;
  Object.defineProperty(client, "rights", { get: () => (looks++, rights) });
  registry.bans.deliver({ type: "reset", epoch: "other", seq: 0, rev: 0, members: 0 });
  await nextTurn();
  assertEquals([looks, registry.bans.has("user 19"), registry.bans.has("ann")], [1, true, false]);
  await parley.disconnect("ann");
  await stream.text();
  await parley[Symbol.asyncDispose]();
});

Deno.test("Bans that are read again are those of now, though an older one is heard meanwhile", async () => {
  const { app: { registry }, parley, clock } = start();
  const { bans } = registry;
  await parley.disconnect("ann", { seconds: 1 });
  const { entries: [older] } = await registry.engineOf("_bans").state("_bans") as StateSpan;
  await parley.disconnect("ann", { seconds: 60 });
  bans.deliver({ type: "reset", epoch: "other", seq: 0, rev: 0, members: 0 });
  bans.deliver({ type: "set", entry: older });
  await nextTurn();
  clock.tick(2_000);
  assertEquals(bans.has("ann"), true);
  await parley[Symbol.asyncDispose]();
});
