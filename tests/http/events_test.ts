/**
 * A room as Server-Sent Events. `handlers/README.md`, HTTP.
 */
import { assert, assertEquals, assertLess, assertRejects } from "@std/assert";
import { Client } from "../support/clients.ts";
import { EventReader } from "../support/event_source.ts";
import { createTestApp, type TestAppOptions } from "../support/fakes.ts";
import { eventually, soon } from "../support/inbox.ts";
import { startServer, type TestServer } from "../support/servers.ts";
import { joinAs, range, settled, timeless } from "../support/v1.ts";

const EVENTS = "/rooms/ops/events";

/** A server of fakes, and what one does with a room. */
function quietServer(settings: TestAppOptions["settings"] = {}) {
  const made = createTestApp({ settings: { POST_RATE: 0, ...settings } });
  const post = async (...messages: unknown[]): Promise<string> => {
    let epoch = "";
    for (const message of messages) {
      const response = await made.ask("/rooms/ops/messages", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ message }),
      });
      ({ epoch } = await response.json());
    }
    return epoch;
  };
  const open = async (query = "", lastEventId?: string) => {
    const headers = lastEventId === undefined ? undefined : { "last-event-id": lastEventId };
    return new EventReader(await made.ask(EVENTS + query, { headers }));
  };
  return { ...made, post, open };
}

async function post(server: TestServer, ...messages: unknown[]): Promise<void> {
  for (const message of messages) {
    const response = await fetch(`${server.url}/rooms/ops/messages`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ message, sender: "cron" }),
    });
    await response.body?.cancel();
  }
}

Deno.test("a stream begins with welcome, then come unnamed v1 chats with their ids", async () => {
  await using server = await startServer();
  await using reader = new EventReader(await fetch(server.url + EVENTS));
  const first = await reader.next();
  const welcome = JSON.parse(first.data!);
  const { epoch } = welcome;
  assertEquals(welcome, { type: "welcome", room: "ops", epoch, seq: 0, members: 0 });
  assertEquals(first, { event: "welcome", data: first.data, id: `${epoch}:0` });
  await using ann = await joinAs("Ann", `${server.ws}/chat/ops`);
  await using bob = await Client.join(`${server.ws}/chat/ops`, "Bob");
  ann.send({ type: "chat", message: "line\nbreak\r é" });
  ann.send(new Uint8Array([1]));
  bob.send({ type: "chat", message: { plain: true } });
  const chats = [await reader.next(), await reader.next()];
  assertEquals(chats.map(({ event, id }) => [event, id]), [
    [undefined, `${epoch}:1`],
    [undefined, `${epoch}:2`],
  ]);
  const told = chats.map(({ data }) => JSON.parse(data!));
  const heard = (await settled(ann)).filter(({ type }) => type === "chat");
  assertEquals(told.map(timeless).toSorted((a, b) => Number(a.seq) - Number(b.seq)), [
    { type: "chat", room: "ops", seq: 1, sender: "Ann", message: "line\nbreak\r é" },
    { type: "chat", room: "ops", seq: 2, sender: "Bob", message: { plain: true } },
  ]);
  assertEquals(heard.length > 0 && heard.map(timeless)[0].seq, 1);
});

Deno.test("a stream is not cached, and no proxy holds it back", async () => {
  const { ask } = quietServer();
  await using reader = new EventReader(await ask(EVENTS));
  const { headers } = reader.response;
  assertEquals([headers.get("cache-control"), headers.get("x-accel-buffering")], [
    "no-store, no-transform",
    "no",
  ]);
});

Deno.test("Last-Event-ID resumes: what was missed comes once, in order", async () => {
  await using server = await startServer();
  const reader = new EventReader(await fetch(server.url + EVENTS));
  await reader.next();
  await post(server, 1, 2);
  await reader.next();
  const { id = "" } = await reader.next();
  await reader[Symbol.asyncDispose]();
  await server.log.when("disconnected");
  await post(server, 3, 4);
  await using back = new EventReader(
    await fetch(server.url + EVENTS, { headers: { "last-event-id": id } }),
  );
  await post(server, 5);
  const { epoch, seq, recovered } = await back.nextData();
  assertEquals([id, seq, recovered], [`${epoch}:2`, 2, true]);
  for (const message of [3, 4, 5]) {
    const chat = await back.nextData();
    assertEquals([chat.message, chat.id], [message, `${epoch}:${message}`]);
  }
});

Deno.test("a stream that cannot be resumed says so in its welcome, and begins with the newest", async () => {
  const { post, open } = quietServer({ HISTORY_SIZE: 2 });
  const epoch = await post(..."abc");
  const cases = { "too old": `${epoch}:0`, "of another epoch": "0:3", "no cursor": "nonsense" };
  for (const [what, id] of Object.entries(cases)) {
    await using reader = await open("", id);
    const { type, seq, recovered } = await reader.nextData();
    assertEquals([type, seq, recovered], ["welcome", 1, false], what);
    assertEquals([(await reader.nextData()).message, (await reader.nextData()).seq], ["b", 3]);
  }
});

Deno.test("?after and ?history work as for a socket; Last-Event-ID says more", async () => {
  const { post, open } = quietServer();
  const epoch = await post(..."abcd");
  const cases: [string, string | undefined, number, boolean?][] = [
    ["", undefined, 4],
    ["?history=2", undefined, 2],
    [`?after=${epoch}:1`, undefined, 1, true],
    [`?after=${epoch}:1`, `${epoch}:3`, 3, true],
    // Polyfills that cannot set a header put it into the query, beside the first `after`.
    [`?after=${epoch}:1&lastEventId=${epoch}:2`, undefined, 2, true],
    [`?after=${epoch}:1&lastEventId=${epoch}%3A2`, undefined, 2, true],
    [`?last-event-id=${epoch}:2`, undefined, 2, true],
    [`?evs_last_event_id=${epoch}:2`, undefined, 2, true],
    [`?lastEventId=${epoch}:2`, `${epoch}:3`, 3, true],
    ["?lastEventId=nonsense", undefined, 0, false],
    ["?lastEventId=", "", 4],
    [`?after=${epoch}:1`, "", 1, true],
  ];
  for (const [query, lastEventId, ...expected] of cases) {
    await using reader = await open(query, lastEventId);
    const { seq, recovered } = await reader.nextData();
    assertEquals([seq, recovered], [expected[0], expected[1]], query);
    for (const next of range(seq + 1, 4)) assertEquals((await reader.nextData()).seq, next);
  }
});

Deno.test("a gap on an open stream is another welcome", async () => {
  const { post, open, registry } = quietServer();
  await post("a");
  await using reader = await open();
  await reader.next();
  registry.rooms.get("ops")!.deliver({
    type: "reset",
    epoch: "other",
    seq: 40,
    rev: 0,
    members: 3,
  });
  const { event, id, data } = await reader.next();
  assertEquals([event, id], ["welcome", "other:40"]);
  const welcome = { type: "welcome", room: "ops", epoch: "other", seq: 40, members: 3 };
  assertEquals(JSON.parse(data!), { ...welcome, recovered: false });
});

Deno.test("a comment comes every 15 seconds, and ends with the stream", async () => {
  const { open, clock, app } = quietServer();
  const timers = clock.timerCount;
  const reader = await open();
  await reader.next();
  clock.tick(14_999);
  await app.registry.engineOf("ops").publish("ops", { sender: "Ann", message: "1" });
  assertEquals((await reader.nextData()).seq, 1);
  clock.tick(1);
  assertEquals(await reader.next(), { comment: "" });
  clock.tick(30_000);
  assertEquals([await reader.next(), await reader.next()], [{ comment: "" }, { comment: "" }]);
  await reader[Symbol.asyncDispose]();
  assertEquals(clock.timerCount, timers);
});

Deno.test("a reader that goes is counted out, and its room is left", async () => {
  await using server = await startServer();
  const { registry, log } = server;
  const reader = new EventReader(await fetch(server.url + EVENTS));
  await reader.next();
  assertEquals([registry.clients.size, registry.counters.connections.events], [1, 1]);
  assertEquals((await (await fetch(`${server.url}/rooms`)).json()).rooms[0].listeners, 1);
  await reader[Symbol.asyncDispose]();
  await log.when("disconnected");
  assertEquals([registry.clients.size, registry.heldCount, registry.rooms.size], [0, 0, 0]);
  const head = await fetch(server.url + EVENTS, { method: "HEAD" });
  assertEquals([head.status, await head.text(), registry.heldCount], [200, "", 0]);
});

Deno.test("on drain a stream gets a time to come back, and ends cleanly", async () => {
  const server = await startServer({ DRAIN_SECONDS: 1 });
  await using reader = new EventReader(await fetch(server.url + EVENTS));
  await reader.next();
  const stopped = server[Symbol.asyncDispose]();
  const { retry, ...rest } = await reader.next();
  assertEquals(rest, {});
  assert(Number(retry) >= 1_000 && Number(retry) <= 2_000, `retry is ${retry}`);
  await assertRejects(() => reader.next(), Error, "the stream has ended");
  await stopped;
});

Deno.test("a server that drains opens no stream", async () => {
  const { ask, registry, clock, open } = quietServer({ DRAIN_SECONDS: 4 });
  await using reader = await open();
  await reader.next();
  const drained = registry.drain();
  const refused = await ask(EVENTS);
  assertEquals([refused.status, refused.headers.get("retry-after")], [503, "4"]);
  assertEquals((await refused.json()).code, "draining");
  clock.tick(4_000);
  await drained;
  assertEquals(registry.clients.size, 0);
});

Deno.test("a stream takes a place under MAX_CONNECTIONS", async () => {
  const { open, ask, connect } = quietServer({ MAX_CONNECTIONS: 1 });
  const reader = await open();
  const refused = await ask(EVENTS);
  assertEquals([refused.status, (await refused.json()).code], [503, "full"]);
  await assertRejects(() => connect("/chat/ops"), Error, "503");
  await reader[Symbol.asyncDispose]();
  assertEquals((await connect("/chat/ops")).closes, []);
});

Deno.test("a stream opens where nothing is joined: the server's own rooms, no bad name", async () => {
  const { ask } = quietServer({ MAX_ROOMS: 1 });
  await using reader = new EventReader(await ask("/rooms/_stats/events"));
  assertEquals((await reader.nextData()).room, "_stats");
  const bad = await ask("/rooms/a%20b/events");
  assertEquals([bad.status, (await bad.json()).code], [400, "bad_room"]);
  await using _first = new EventReader(await ask("/rooms/a/events"));
  const full = await ask("/rooms/b/events");
  assertEquals([full.status, (await full.json()).code], [503, "too_many_rooms"]);
});

Deno.test("a reader that does not read is bounded like a socket", async () => {
  await using server = await startServer({ MAX_QUEUE_BYTES: 1_000_000 });
  const { registry, log } = server;
  const { hostname, port } = new URL(server.url);
  using slow = await Deno.connect({ hostname, port: Number(port) });
  const request = `GET ${EVENTS} HTTP/1.1\r\nhost: x\r\n\r\n`;
  await slow.write(new TextEncoder().encode(request));
  await log.when("connected");
  await using brisk = new EventReader(await fetch(server.url + EVENTS));
  await brisk.next();
  const message = JSON.stringify("x".repeat(50_000));
  let sent = 0;
  while (registry.clients.size === 2) {
    assertLess(sent++, 1_000, "50 MB wait for a reader that does not read");
    await registry.engineOf("ops").publish("ops", { sender: "Ann", message });
    assertEquals((await brisk.nextData()).seq, sent);
  }
  const { fields } = await log.when("evicted");
  assertEquals([fields.code, fields.reason], [1013, "too slow"]);
  assertEquals(registry.counters.closes.tooSlow, 1);
  const readToEnd = async () => {
    const chunk = new Uint8Array(1_000_000);
    for (let read = 0;;) {
      const count = await slow.read(chunk).catch(() => null);
      if (count === null) return read;
      read += count;
    }
  };
  const read = await soon(readToEnd(), "the end of an evicted stream");
  assertLess(read, sent * 50_000, "what was queued is dropped, not kept for it");
});

Deno.test("a replay that is too large is cut, so that a stream never ends by its own past", async () => {
  const { post, open } = quietServer({ MAX_QUEUE_BYTES: 100_000 });
  const epoch = await post(...range(1, 30).map((n) => n + "x".repeat(9_000)));
  await using reader = await open("", `${epoch}:0`);
  const { seq, recovered } = await reader.nextData();
  assertEquals([seq, recovered], [25, false]);
  for (const expected of range(26, 30)) assertEquals((await reader.nextData()).seq, expected);
  await post("next");
  assertEquals((await reader.nextData()).message, "next");
});

Deno.test("a stream that is refused gives its slot back", async () => {
  const { ask, registry } = createTestApp({ settings: { MAX_ROOMS: 1 } });
  await using reader = new EventReader(await ask("/rooms/first/events"));
  assertEquals((await reader.next()).event, "welcome");
  const refused = await ask(EVENTS);
  assertEquals([refused.status, (await refused.json()).code], [503, "too_many_rooms"]);
  assertEquals([registry.heldCount, registry.rooms.size], [1, 1]);
});

Deno.test("whoever gives up while the room is opened leaves nothing behind", async () => {
  const { ask, clock, engine, registry } = createTestApp();
  const opened = Promise.withResolvers<{ refused: "unavailable" }>();
  engine.host = () => opened.promise;
  const controller = new AbortController();
  const answer = ask(EVENTS, { signal: controller.signal });
  await eventually(() => registry.rooms.size, (count) => count === 1);
  assertEquals(registry.heldCount, 1);
  controller.abort();
  clock.tick(1_000);
  assertEquals([registry.heldCount, registry.rooms.size], [0, 0]);
  opened.resolve({ refused: "unavailable" });
  assertEquals((await answer).status, 503);
});

Deno.test("a stream is answered before its room opens, and begins when it does, or ends", async () => {
  const { ask, clock, engine, registry } = createTestApp();
  const host = engine.host.bind(engine);
  for (const isRefused of [false, true]) {
    const away = Promise.withResolvers<void>();
    engine.host = async (...args) => {
      await away.promise;
      return isRefused ? { refused: "unavailable" } : host(...args);
    };
    const answer = ask(`/rooms/${isRefused}/events`);
    await eventually(() => registry.rooms.size, (count) => count === 1);
    clock.tick(1_000);
    await using reader = new EventReader(await answer);
    assertEquals(reader.response.status, 200);
    away.resolve();
    if (isRefused) await assertRejects(() => reader.next(), Error, "the stream has ended");
    else assertEquals((await reader.nextData()).seq, 0);
    await reader[Symbol.asyncDispose]();
    assertEquals([registry.heldCount, registry.rooms.size], [0, 0]);
  }
});

Deno.test("an engine that rejects costs its stream a 503 and one line of the log", async () => {
  const { ask, engine, log, registry } = createTestApp();
  engine.host = () => Promise.reject(new Error("broken"));
  assertEquals((await ask(EVENTS)).status, 503);
  assertEquals(log.lines.filter(({ text }) => text.includes("broken")).length, 1);
  assertEquals([registry.heldCount, registry.rooms.size], [0, 0]);
});

Deno.test("a stream whose request is aborted ends, though nobody reads or cancels it", async () => {
  const { ask, registry } = createTestApp();
  const controller = new AbortController();
  const { status } = await ask(EVENTS, { signal: controller.signal });
  assertEquals([status, registry.heldCount, registry.rooms.size], [200, 1, 1]);
  controller.abort();
  assertEquals([registry.heldCount, registry.clients.size, registry.rooms.size], [0, 0, 0]);
});
