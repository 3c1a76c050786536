import { assert, assertEquals, assertGreaterOrEqual, assertLessOrEqual } from "@std/assert";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { drain } from "../../handlers/registry/drain.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { subscribe } from "../../handlers/registry/membership.ts";
import {
  createTestApp,
  FakeClock,
  type FakeSocket,
  handshakeHeaders,
  RecordingLog,
  type TestApp,
} from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";
import { TestSubscriber } from "../support/subscriber.ts";

const GOING_AWAY = { code: 1001, reason: "going away" };
const TOO_SLOW = { code: 1013, reason: "too slow" };

/** Opens so many sockets at a path. */
async function open({ connect }: TestApp, path: string, count: number): Promise<FakeSocket[]> {
  const sockets: FakeSocket[] = [];
  while (sockets.length < count) sockets.push(await connect(path));
  return sockets;
}

function closedCount(sockets: FakeSocket[]): number {
  return sockets.filter(({ closes }) => closes.length > 0).length;
}

/** All that the server counts, and what `/rooms` shows. */
async function totals({ registry, ask }: TestApp): Promise<Record<string, unknown>> {
  const { rooms } = await (await ask("/rooms")).json();
  const { clients, heldCount, counters } = registry;
  return { rooms, clients: clients.size, heldCount, ...counters.connections };
}

const NOTHING = { rooms: [], clients: 0, heldCount: 0, plain: 0, v1: 0, echo: 0, events: 0 };

Deno.test("Registry counts each kind of client while it lives", async () => {
  const test = createTestApp();
  const echo = await test.connect("/echo");
  const plain = await test.connect("/chat");
  const v1 = await test.connect("/chat", { dialect: "v1" });
  const { plain: plains, v1: v1s, echo: echos, clients, heldCount } = await totals(test);
  assertEquals([plains, v1s, echos, clients, heldCount], [1, 1, 1, 3, 3]);
  for (const socket of [echo, plain, v1]) socket.end();
  assertEquals(await totals(test), NOTHING);
});

Deno.test("Registry holds a place for a socket that is still opening, and counts no client yet", async () => {
  const test = createTestApp({ settings: { MAX_CONNECTIONS: 1 } });
  const socket = await test.handshake("/chat");
  assertEquals([test.registry.heldCount, test.registry.clients.size], [1, 0]);
  assertEquals((await test.ask("/chat", { headers: handshakeHeaders() })).status, 503);
  assertEquals(test.registry.rooms.size, 0);
  socket.fail("the peer went away");
  assertEquals(await totals(test), NOTHING);
  assertEquals(test.log.lines, []);
});

Deno.test("Registry totals return to zero, however sockets end and whatever they did before", async () => {
  const test = createTestApp({
    settings: { MAX_QUEUE_BYTES: 2_000, MAX_MESSAGE_BYTES: 500, MESSAGE_RATE: 0 },
  });
  const ends: ((socket: FakeSocket) => void)[] = [
    (socket) => socket.end(1000, "bye"),
    (socket) => socket.end(1005),
    (socket) => socket.drop(),
    (socket) => socket.fail("broken pipe"),
    (socket) => socket.say("x".repeat(501)),
    (socket) => socket.sendError = new Error("not open"),
    (socket) => socket.isStuck = true,
  ];
  const sockets: FakeSocket[] = [];
  for (let n = 0; n < 210; n++) {
    const path = n % 10 === 0 ? "/echo" : `/chat/r${n % 4}`;
    const socket = await test.connect(path, { dialect: n % 3 === 0 ? "v1" : "plain" });
    sockets.push(socket);
    if (n % 5 > 0) socket.say({ type: "join", name: `P${n}` });
    socket.say({ type: "chat", message: "x".repeat(100) });
    if (n > 30) ends[n % ends.length](sockets[n - 30]);
    await Promise.resolve();
  }
  for (const socket of sockets) {
    // What the runtime tells of each in the end; for most of them again.
    socket.drop();
  }
  await Promise.resolve();
  assertEquals(await totals(test), NOTHING);
  const ended = test.log.lines.filter(({ fields }) =>
    fields.event === "disconnected" || fields.event === "evicted"
  );
  assertEquals(ended.length, 210);
  assertEquals(test.log.of("joined").length, test.log.of("left").length);
  assertEquals(ended.at(-1)!.fields.clients, 0);
});

Deno.test("Registry forgets an evicted socket at once, but counts it for MAX_CONNECTIONS until the runtime ends it", async () => {
  const test = createTestApp({ settings: { MAX_CONNECTIONS: 2, MAX_QUEUE_BYTES: 1_000 } });
  const { registry, ask, connect } = test;
  const [ann, stuck] = await open(test, "/chat/ops", 2);
  ann.say({ type: "join", name: "Ann" });
  stuck.isStuck = true;
  for (let said = 0; said < 2; said++) ann.say({ type: "chat", message: "x".repeat(900) });
  assertEquals(stuck.closes, [TOO_SLOW]);
  assertEquals((await totals(test)).rooms, [{ room: "ops", members: 1, listeners: 1, seq: 2 }]);
  assertEquals([registry.clients.size, registry.heldCount, registry.isFull], [1, 2, true]);
  assertEquals((await ask("/chat", { headers: handshakeHeaders() })).status, 503);
  stuck.fail("Unexpected EOF");
  assertEquals(registry.isFull, true);
  stuck.end(0, "", false);
  assertEquals([registry.heldCount, registry.isFull], [1, false]);
  await connect("/chat");
});

Deno.test("Registry tells an eviction from a peer that closes with the same code", async () => {
  const test = createTestApp({ settings: { MAX_QUEUE_BYTES: 20 } });
  const [evicted, leaving] = await open(test, "/echo", 2);
  evicted.isStuck = true;
  for (let said = 0; said < 2; said++) evicted.say("much too");
  leaving.end(1013, "too slow");
  assertEquals(test.log.lines.slice(2).map(({ text }) => text), [
    "Client evicted: unknown:0: too slow (1013). Total clients: 1",
    "Connection closed with error: unknown:0: too slow (1013). Total clients: 0",
  ]);
});

Deno.test("Registry calls an end clean with 1000, 1001 and no code, and an error with any other", async () => {
  const test = createTestApp();
  const codes = [1000, 1001, 1005, 1002, 1011, 4001];
  const sockets = await open(test, "/echo", codes.length);
  codes.forEach((code, index) => sockets[index].end(code));
  const ends = test.log.lines.slice(codes.length).map(({ text }) => /^[\w ]+/.exec(text)?.[0]);
  const [clean, failed] = ["Client disconnected cleanly", "Connection closed with error"];
  assertEquals(ends, [clean, clean, clean, failed, failed, failed]);
});

Deno.test("Registry logs each message that comes in at debug, without its text", async () => {
  const test = createTestApp({ settings: { LOG_LEVEL: "debug" } });
  const [echo] = await open(test, "/echo", 1);
  const [chat] = await open(test, "/chat/ops", 1);
  echo.say("안녕");
  echo.sayBytes(1, 2);
  chat.say("no JSON");
  const lines = test.log.lines.filter(({ level }) => level === "debug");
  assertEquals(lines.map(({ text }) => text), [
    "Client sent: unknown:0: text of 6 bytes",
    "Client sent: unknown:0: binary of 2 bytes",
    "Client sent: unknown:0: text of 7 bytes",
  ]);
});

Deno.test("Registry.drain() gives all what was due before they go", async () => {
  const ends: (() => void)[] = [];
  const schedule = (end: () => void) => ends.push(end);
  const turn = new Turn(schedule, schedule);
  const { connect, registry } = createTestApp({ turn, settings: { DRAIN_SECONDS: 0 } });
  const ann = await connect("/chat/ops");
  const merging: FakeSocket[] = [];
  while (merging.length < 60) merging.push(await connect("/chat/ops", { dialect: "v1" }));
  ann.say({ type: "join", name: "Ann" });
  turn.flush();
  ann.say({ type: "chat", message: "last" });
  await registry.drain();
  for (const { objects } of merging) {
    assertEquals(objects.map((object) => (object as { type: string }).type).includes("chat"), true);
  }
});

Deno.test("Registry.acquire() counts a client in until its release, which counts once", async () => {
  const { registry } = createTestApp({ settings: { MAX_CONNECTIONS: 2 } });
  const slots = await Promise.all(["a", "a"].map((address) => registry.acquire(address)));
  assertEquals([registry.heldCount, registry.isFull], [2, true]);
  assertEquals(await registry.acquire("b"), "full");
  for (const slot of [slots[0], slots[0]]) typeof slot === "object" && slot.release();
  assertEquals([registry.heldCount, registry.isFull], [1, false]);
});

Deno.test("Registry.room() is one room a name, and goes with its last listener", async () => {
  const { registry, connect, engine } = createTestApp();
  const first = await connect("/chat/ops");
  const room = registry.room("ops");
  const second = await connect("/chat/ops");
  assert(registry.room("ops") === room);
  first.end();
  assert(registry.rooms.get("ops")?.room === room);
  second.drop();
  assertEquals([registry.rooms.size, await engine.rooms("", 10)], [0, []]);
});

Deno.test("Registry.engineOf() orders the server's own rooms apart", () => {
  const { registry, engine } = createTestApp();
  assert(registry.engineOf("ops") === engine);
  assert(registry.engineOf("_stats") !== engine);
});

Deno.test("Registry.drain() sends everybody away with 1001, evenly over DRAIN_SECONDS", async () => {
  const test = createTestApp({ settings: { DRAIN_SECONDS: 4 } });
  const sockets = [...await open(test, "/chat/ops", 30), ...await open(test, "/echo", 10)];
  let isDone = false;
  const drained = test.registry.drain().then(() => isDone = true);
  assertEquals(closedCount(sockets), 0);
  for (let second = 1; second < 4; second++) {
    test.clock.tick(1_000);
    assertGreaterOrEqual(closedCount(sockets), 10 * second - 1);
    assertLessOrEqual(closedCount(sockets), 10 * second + 1);
    await Promise.resolve();
    assert(!isDone);
  }
  test.clock.tick(1_000);
  await drained;
  assertEquals(sockets.map(({ closes }) => closes), sockets.map(() => [GOING_AWAY]));
  assertEquals((await totals(test)).clients, 0);
  for (const socket of sockets) socket.end(1001);
  assertEquals(await totals(test), NOTHING);
});

Deno.test("Registry.drain() spreads a handful of sockets too", async () => {
  const test = createTestApp({ settings: { DRAIN_SECONDS: 2 } });
  const sockets = await open(test, "/chat", 4);
  const drained = test.registry.drain();
  const seen: number[] = [];
  for (let quarter = 0; quarter < 4; quarter++) {
    test.clock.tick(500);
    seen.push(closedCount(sockets));
  }
  await drained;
  assertEquals(seen.at(-1), 4);
  assert(new Set(seen).size >= 3, `closed at ${seen}`);
});

Deno.test("Registry.drain() waits for nobody who is stuck", async () => {
  const test = createTestApp({ settings: { DRAIN_SECONDS: 1 } });
  const sockets = await open(test, "/chat/ops", 5);
  for (const socket of sockets) socket.isStuck = true;
  const drained = test.registry.drain();
  test.clock.tick(1_000);
  await drained;
  assertEquals(closedCount(sockets), 5);
  assertEquals([test.registry.clients.size, test.registry.heldCount], [0, 5]);
});

Deno.test("Registry.drain() is done as soon as all have left by themselves", async () => {
  const test = createTestApp();
  const [socket] = await open(test, "/chat", 1);
  const drained = test.registry.drain();
  socket.end();
  test.clock.tick(100);
  await drained;
  assertEquals(socket.closes, []);
});

Deno.test("Registry.drain() is done at once where nobody is, and with DRAIN_SECONDS 0", async () => {
  await createTestApp().registry.drain();
  const test = createTestApp({ settings: { DRAIN_SECONDS: 0 } });
  const sockets = await open(test, "/chat", 20);
  await test.registry.drain();
  assertEquals(closedCount(sockets), 20);
});

Deno.test("Registry.drain() leaves no timer behind", async () => {
  const test = createTestApp();
  const before = test.clock.timerCount;
  const sockets = await open(test, "/chat", 3);
  const drained = test.registry.drain();
  test.clock.tick(4_000);
  await drained;
  for (const socket of sockets) socket.end(1001);
  assertEquals(test.clock.timerCount, before);
});

Deno.test("Registry.drain() says bye at once in parley.v1, spread behind the drain, and nothing in plain", async () => {
  const turn = new Turn(() => {});
  const test = createTestApp({ settings: { DRAIN_SECONDS: 4 }, turn });
  const plain = await test.connect("/chat");
  const v1s: FakeSocket[] = [];
  for (let n = 0; n < 50; n++) v1s.push(await test.connect("/chat", { dialect: "v1" }));
  turn.flush();
  for (const socket of v1s) socket.take();
  const drained = test.registry.drain();
  turn.flush();
  const retries = v1s.map(({ objects }) => {
    const [{ type, retry, ...more }] = objects as Record<string, unknown>[];
    assertEquals([type, more], ["bye", {}]);
    return retry as number;
  });
  assertEquals([plain.frames, closedCount(v1s)], [[], 0]);
  assertGreaterOrEqual(Math.min(...retries), 4_000);
  assertLessOrEqual(Math.max(...retries), 8_000);
  assertGreaterOrEqual(Math.max(...retries) - Math.min(...retries), 1_000);
  test.clock.tick(4_000);
  await drained;
  assertEquals(closedCount(v1s), 50);
});

Deno.test("Registry lets nobody in while it drains, not even who was opening", async () => {
  const test = createTestApp();
  const opening = await test.handshake("/chat/ops");
  await open(test, "/chat", 1);
  const drained = test.registry.drain();
  assertEquals((await test.ask("/chat", { headers: handshakeHeaders() })).status, 503);
  assertEquals((await test.ask("/echo", { headers: handshakeHeaders() })).status, 503);
  opening.open();
  assertEquals([opening.closes, opening.frames], [[GOING_AWAY], []]);
  assert(!test.registry.rooms.has("ops"));
  test.clock.tick(4_000);
  await drained;
  assertEquals(test.registry.clients.size, 0);
});

Deno.test("Registry.drain() lets those who stay chat on until it is their turn", async () => {
  const test = createTestApp();
  const [ann, bo] = await open(test, "/chat/ops", 2);
  bo.say({ type: "join", name: "Bo" });
  const drained = test.registry.drain();
  test.clock.tick(2_000);
  assertEquals([ann.closes.length, bo.closes.length], [1, 0]);
  bo.take();
  bo.say({ type: "chat", message: "still here" });
  assertEquals(bo.take(), ['{"type":"chat","sender":"Bo","message":"still here"}']);
  test.clock.tick(2_000);
  await drained;
  assertEquals(bo.closes, [GOING_AWAY]);
});

Deno.test("members are counted out again, whoever leaves, renames or vanishes", async () => {
  const { connect, registry: { counters } } = createTestApp();
  const sockets = await Promise.all(["a", "b", "c"].map(() => connect("/chat", { dialect: "v1" })));
  for (const socket of sockets) socket.say({ type: "join", name: "Ann" });
  sockets[0].say({ type: "join", name: "Anna" });
  sockets[0].say({ type: "join", name: "Ann", room: "ops" });
  assertEquals(counters.members, 4);
  sockets[0].say({ type: "leave", room: "ops" });
  assertEquals(counters.members, 3);
  sockets[0].say({ type: "leave" });
  sockets[1].drop();
  sockets[2].end();
  assertEquals(counters.members, 0);
});

Deno.test("a post counts as a message with its bytes, refused or not", async () => {
  const { ask, registry: { counters } } = createTestApp({ settings: { POST_RATE: 1 } });
  const body = JSON.stringify({ message: "12345", sender: "Ann" });
  const headers = { "content-type": "application/json" };
  const post = async () => {
    const answer = await ask("/rooms/ops/messages", { method: "POST", headers, body }, {
      remoteAddr: { transport: "tcp", hostname: "192.0.2.1", port: 1 },
    });
    return answer.status;
  };
  assertEquals([await post(), await post()], [202, 429]);
  assertEquals([counters.messagesIn, counters.bytesIn], [2, 2 * body.length]);
});

Deno.test("a batch of posts counts its bytes once, and each of its messages", async () => {
  const { ask, registry: { counters } } = createTestApp();
  const messages = ["a", "b"].map((room) => ({ room, message: "12345", sender: "Ann" }));
  const body = JSON.stringify({ messages });
  const headers = { "content-type": "application/json" };
  const answer = await ask("/rooms/messages", { method: "POST", headers, body });
  await answer.body?.cancel();
  assertEquals(answer.status, 200);
  assertEquals([counters.messagesIn, counters.bytesIn], [2, body.length]);
});

Deno.test("a message that came while a replay was awaited is a delivery, like those before", async () => {
  const engine = createMemoryEngine(
    { historySize: 10, historySeconds: 60, historyMb: 1, maxRooms: 10 },
    new FakeClock(),
  );
  const { connect, registry: { counters } } = createTestApp({ engine });
  const say = (message: string) => engine.publish("ops", { sender: "Ann", message });
  say("1");
  const read = engine.read.bind(engine);
  const late = Promise.withResolvers<void>();
  engine.read = async (...args) => {
    const span = await read(...args);
    await late.promise;
    return span;
  };
  const socket = await connect("/chat/ops?history=1", { dialect: "v1" });
  say("2");
  assertEquals(counters.deliveries, 0);
  late.resolve();
  await nextTurn();
  assertEquals(socket.objects.length, 3);
  assertEquals(counters.deliveries, 2);
});

for (const setByMs of [3_600_000, -3_600_000]) {
  Deno.test(`a clock that is set by ${setByMs} ms makes no duration longer or shorter`, async () => {
    const settings = { DRAIN_SECONDS: 1, MESSAGE_RATE: 1 };
    const { connect, clock, registry } = createTestApp({ settings });
    const [chatty, echo] = [await connect("/chat"), await connect("/echo")];
    chatty.say({ type: "join", name: "Ann" });
    const refused = () => {
      chatty.take();
      chatty.say({ type: "chat", message: "too many" });
      return chatty.take().length;
    };
    refused();
    clock.setByMs = setByMs;
    // Ten seconds of refusals would end it.
    assertEquals([refused(), chatty.closes], [1, []]);
    clock.setByMs = 0;
    drain(registry, registry.limits.drainSeconds);
    clock.setByMs = setByMs;
    clock.tick(400);
    assertEquals(chatty.closes.length + echo.closes.length, 1);
    clock.tick(700);
    assertEquals([chatty, echo].map(({ closes }) => closes.length), [1, 1]);
  });
}

// Nothing that one subscriber, a log or a room does costs another its message.

const NO_RATES = { MESSAGE_RATE: 0, BYTE_RATE: 0, JOIN_RATE: 0, POST_RATE: 0 };

/** A log that throws at each line of an event. */
function createBrokenLog(event: string) {
  const log = new RecordingLog();
  const { info } = log;
  return Object.assign(log, {
    info(text: string, fields: Record<string, unknown> = {}) {
      if (fields.event === event) throw new Error("disk full");
      info(text, fields);
    },
  });
}

Deno.test("a log that throws mutes no room, whatever it is told of", async () => {
  for (const event of ["evicted", "left", "joined", "connected", "disconnected"]) {
    const settings = { ...NO_RATES, MAX_QUEUE_BYTES: 1_000 };
    const { connect, ask } = createTestApp({ log: createBrokenLog(event), settings });
    const [slow, bob] = [await connect("/chat/ops"), await connect("/chat/ops")];
    slow.say({ type: "join", name: "Slow" });
    bob.take();
    slow.isStuck = true;
    const statuses = [];
    for (const message of ["x".repeat(900), "x".repeat(900), "three"]) {
      const init = {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ message }),
      };
      statuses.push((await ask("/rooms/ops/messages", init)).status);
    }
    assertEquals(statuses, [202, 202, 202], event);
    const types = bob.objects.map((object) => (object as { type: string }).type);
    assertEquals(types, ["chat", "chat", "status", "chat"], event);
  }
});

Deno.test("a subscriber that throws is ended, and the others hear all", async () => {
  const { registry, engine, log } = createTestApp();
  const [broken, good] = [new TestSubscriber(registry), new TestSubscriber(registry)];
  for (const one of [broken, good]) subscribe(registry.room("ops"), one, {});
  broken.send = () => {
    throw new Error("broken");
  };
  for (const message of ["1", "2"]) await engine.publish("ops", { sender: "Ann", message });
  assertEquals(good.events.slice(1).map(([{ message }]) => message), [1, 2]);
  assertEquals([broken.hasEnded, registry.rooms.get("ops")?.subscriberCount], [true, 1]);
  assertEquals(log.of("error").length, 1);
});

Deno.test("a binary frame flushes its own room alone", async () => {
  const turn = new Turn(() => {});
  const { connect } = createTestApp({ turn, settings: NO_RATES });
  const gamer = await connect("/chat/game");
  gamer.say({ type: "join", name: "Gamer" });
  const talker = await connect("/chat/talk", { dialect: "v1" });
  const reader = await connect("/chat/talk", { dialect: "v1" });
  talker.say({ type: "join", name: "Talker" });
  turn.flush();
  reader.take();
  for (let n = 0; n < 10; n++) {
    talker.say({ type: "chat", message: n });
    gamer.sayBytes(n);
  }
  turn.flush();
  assertEquals([reader.frames.length, reader.objects.length], [1, 10]);
});

Deno.test("an eviction drops what was pending: nothing more is sent to a peer that is full", async () => {
  const turn = new Turn(() => {});
  const { connect } = createTestApp({ turn, settings: { ...NO_RATES, MAX_QUEUE_BYTES: 1_000 } });
  const slow = await connect("/chat/ops", { dialect: "v1" });
  turn.flush();
  slow.take();
  slow.say({ type: "ping" });
  slow.isStuck = true;
  slow.bufferedAmount = 1_001;
  const ann = await connect("/chat/ops");
  ann.say({ type: "join", name: "Ann" });
  ann.sayBytes(1);
  assertEquals(slow.closes, [{ code: 1013, reason: "too slow" }]);
  const sent = slow.frames.length;
  turn.flush();
  assertEquals(slow.frames.length, sent);
});
