import { assertEquals } from "@std/assert";
import { createTestApp, handshakeHeaders } from "./support/fakes.ts";

Deno.test("echo() sends text back behind its prefix", async () => {
  const { connect } = createTestApp();
  const socket = await connect("/echo");
  for (const text of ["hello", "", "안녕 👋", '{"type":"join"}', "two\nlines"]) socket.say(text);
  assertEquals(socket.take(), [
    "Echo: hello",
    "Echo: ",
    "Echo: 안녕 👋",
    'Echo: {"type":"join"}',
    "Echo: two\nlines",
  ]);
});

Deno.test("echo() answers at / as at /echo", async () => {
  const { connect } = createTestApp();
  const socket = await connect("/");
  socket.say("hello");
  assertEquals(socket.take(), ["Echo: hello"]);
});

Deno.test("echo() takes another prefix from the URL, and none", async () => {
  const { connect } = createTestApp();
  for (
    const [path, prefix] of [
      ["/echo?prefix=", ""],
      ["/echo?prefix=p", "p"],
      ["/?prefix=%EC%95%88+", "안 "],
      ["/echo?other=1", "Echo: "],
    ]
  ) {
    const socket = await connect(path);
    socket.say("x");
    assertEquals(socket.take(), [`${prefix}x`]);
  }
});

Deno.test("echo() sends binary back unchanged, without the prefix", async () => {
  const { connect } = createTestApp();
  const socket = await connect("/echo?prefix=p");
  socket.sayBytes(0, 255, 128, 10);
  socket.sayBytes();
  assertEquals(socket.take(), [new Uint8Array([0, 255, 128, 10]), new Uint8Array()]);
});

Deno.test("echo() speaks no subprotocol and joins no room", async () => {
  const { connect, registry } = createTestApp();
  const socket = await connect("/echo", { dialect: "v1" });
  socket.say("a\nb");
  assertEquals(socket.take(), ["Echo: a\nb"]);
  assertEquals(registry.rooms.size, 0);
  assertEquals(registry.counters.connections, { plain: 0, v1: 0, echo: 1, events: 0 });
});

Deno.test("echo() closes a socket over MESSAGE_RATE with 1008 at once", async () => {
  const { connect, clock } = createTestApp({ settings: { MESSAGE_RATE: 2 } });
  const socket = await connect("/echo");
  socket.say("1");
  socket.say("2");
  clock.tick(500);
  socket.say("3");
  assertEquals(socket.closes, []);
  socket.say("4");
  socket.say("5");
  assertEquals(socket.take(), ["Echo: 1", "Echo: 2", "Echo: 3"]);
  assertEquals(socket.closes, [{ code: 1008, reason: "rate limited" }]);
});

Deno.test("echo() closes a socket over BYTE_RATE with 1008 at once", async () => {
  const { connect, registry } = createTestApp({ settings: { BYTE_RATE: 10 } });
  const socket = await connect("/echo?prefix=");
  socket.say("1é34");
  socket.sayBytes(1, 2, 3, 4, 5);
  assertEquals(socket.closes, []);
  socket.sayBytes(1);
  assertEquals(socket.take(), ["1é34", new Uint8Array([1, 2, 3, 4, 5])]);
  const { messagesIn, bytesIn, framesOut } = registry.counters;
  assertEquals([messagesIn, bytesIn, framesOut], [3, 10, 2]);
  assertEquals(socket.closes, [{ code: 1008, reason: "rate limited" }]);
});

Deno.test("echo() closes a socket that sends too much at once with 1009", async () => {
  const { connect } = createTestApp({ settings: { MAX_MESSAGE_BYTES: 6 } });
  for (const text of ["123456", "안녕"]) {
    const socket = await connect("/echo?prefix=");
    socket.say(text);
    assertEquals([socket.take(), socket.closes], [[text], []]);
    socket.say(`${text}!`);
    assertEquals([socket.take(), socket.closes], [[], [{ code: 1009, reason: "message too big" }]]);
  }
  const socket = await connect("/echo");
  socket.sayBytes(1, 2, 3, 4, 5, 6, 7);
  assertEquals(socket.closes, [{ code: 1009, reason: "message too big" }]);
});

Deno.test("echo() evicts a peer that sends and never reads", async () => {
  const { connect, registry } = createTestApp({ settings: { MAX_QUEUE_BYTES: 1_000 } });
  const socket = await connect("/echo?prefix=");
  socket.isStuck = true;
  for (let i = 0; i < 50; i++) socket.say("x".repeat(100));
  assertEquals(socket.frames.length, 11);
  assertEquals(socket.closes, [{ code: 1013, reason: "too slow" }]);
  assertEquals(registry.clients.size, 0);
});

Deno.test("echo() asks the runtime to ping after IDLE_TIMEOUT", async () => {
  const asked: number[] = [];
  const { ask } = createTestApp({
    settings: { IDLE_TIMEOUT: 7 },
    upgrade(_request, { idleTimeoutSeconds }) {
      asked.push(idleTimeoutSeconds);
      throw new Error("enough");
    },
  });
  const response = await ask("/echo", { headers: handshakeHeaders() });
  await response.body?.cancel();
  assertEquals(asked, [7]);
});
