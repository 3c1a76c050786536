// The plain dialect: each line of its table in the protocol, with exact texts and nothing more.
import { assert, assertEquals, assertLess } from "@std/assert";
import { createMemoryEngine } from "../handlers/engine/memory.ts";
import {
  createTestApp,
  FakeClock,
  type FakeSocket,
  infoOf,
  type TestApp,
} from "./support/fakes.ts";
import { eventually } from "./support/inbox.ts";

const NOT_JOINED = '{"type":"error","message":"Invalid message format or not joined."}';
const NOT_JSON = '{"type":"error","message":"Invalid JSON format."}';
const BAD_NAME = '{"type":"error","message":"Invalid name."}';
const TOO_MANY = '{"type":"error","message":"Too many messages."}';
const NOT_ALLOWED = '{"type":"error","message":"Not allowed."}';
const SERVER_ERROR =
  '{"type":"error","message":"Server error: the message may not have been delivered."}';

const joined = (name: string) => `{"type":"status","message":"${name} joined the chat."}`;
const left = (name: string) => `{"type":"status","message":"${name} left the chat."}`;
const said = (sender: string, message: unknown) =>
  `{"type":"chat","sender":"${sender}","message":${JSON.stringify(message)}}`;

/** Ann and Bo, who have joined, and a listener who has not. */
async function createRoom(test: TestApp = createTestApp(), path = "/chat/ops") {
  const ann = await test.connect(path);
  const bo = await test.connect(path);
  const listener = await test.connect(path);
  ann.say({ type: "join", name: "Ann" });
  bo.say({ type: "join", name: "Bo" });
  for (const socket of [ann, bo, listener]) socket.take();
  return { ...test, ann, bo, listener, all: [ann, bo, listener] };
}

/** What each socket got since the last time. */
function heard(sockets: FakeSocket[]): unknown[] {
  return sockets.map((socket) => socket.take());
}

Deno.test("a socket that opens hears its room at once, and is told nothing", async () => {
  const { connect } = createTestApp();
  const listener = await connect("/chat/ops");
  assertEquals(listener.take(), []);
  const ann = await connect("/chat/ops");
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "chat", message: "hi" });
  assertEquals(heard([listener, ann]), Array(2).fill([joined("Ann"), said("Ann", "hi")]));
});

Deno.test("all in the room hear who joins, the one who joins too", async () => {
  const { connect, all } = await createRoom();
  const cho = await connect("/chat/ops");
  cho.say({ type: "join", name: "초" });
  assertEquals(heard([...all, cho]), Array(4).fill([joined("초")]));
});

Deno.test("who joins without a name is Anonymous", async () => {
  const { listener, all } = await createRoom();
  listener.say({ type: "join" });
  listener.say({ type: "chat", message: 1 });
  assertEquals(heard(all), Array(3).fill([joined("Anonymous"), said("Anonymous", 1)]));
});

Deno.test("who joins again bears the new name from then on", async () => {
  const { ann, all } = await createRoom();
  ann.say({ type: "join", name: "Anna" });
  ann.say({ type: "join", name: "Anna" });
  ann.say({ type: "chat", message: "hi" });
  assertEquals(heard(all), Array(3).fill([joined("Anna"), joined("Anna"), said("Anna", "hi")]));
  ann.end();
  assertEquals(heard(all), [[], [left("Anna")], [left("Anna")]]);
});

Deno.test("two sockets may bear one name", async () => {
  const { listener, ann, bo } = await createRoom();
  listener.say({ type: "join", name: "Ann" });
  heard([listener, ann, bo]);
  ann.end();
  listener.say({ type: "chat", message: "still here" });
  assertEquals(bo.take(), [left("Ann"), said("Ann", "still here")]);
});

Deno.test("all in the room get a message, the sender too, whatever JSON it is", async () => {
  const { ann, all } = await createRoom();
  const messages = ["hi", "", 0, -1.5, true, null, [], {}, { a: [{ "안녕": "👋" }] }, 'q"\\\n'];
  for (const message of messages) ann.say({ type: "chat", message });
  assertEquals(heard(all), Array(3).fill(messages.map((message) => said("Ann", message))));
});

Deno.test("a chat without a message is an empty text", async () => {
  const { ann, all } = await createRoom();
  ann.say({ type: "chat" });
  assertEquals(heard(all), Array(3).fill([said("Ann", "")]));
});

Deno.test("a message carries no key of its sender's but the message", async () => {
  const { ann, all } = await createRoom();
  ann.say({ type: "chat", message: "hi", sender: "Bo", room: "other", id: "1", seq: 9 });
  assertEquals(heard(all), Array(3).fill([said("Ann", "hi")]));
});

Deno.test("the others hear once that a socket left, however it ended", async () => {
  const ends: Record<string, (socket: FakeSocket) => void> = {
    "a close": (socket) => socket.end(1000),
    "a close without a code": (socket) => socket.end(1005),
    "a broken connection": (socket) => socket.drop(),
    "our own close": (socket) => socket.say("x".repeat(65_537)),
  };
  for (const [how, end] of Object.entries(ends)) {
    const { ann, all, registry } = await createRoom();
    end(ann);
    assertEquals(heard(all), [[], [left("Ann")], [left("Ann")]], how);
    ann.end(1006, "", false);
    ann.say({ type: "chat", message: "ghost" });
    assertEquals(heard(all), [[], [], []], how);
    assertEquals(registry.clients.size, 2, how);
  }
});

Deno.test("a socket that never joined leaves without a word", async () => {
  const { listener, all } = await createRoom();
  listener.end();
  assertEquals(heard(all), [[], [], []]);
});

Deno.test("whoever has not joined cannot chat, and only it is told", async () => {
  const { listener, all } = await createRoom();
  listener.say({ type: "chat", message: "hi" });
  listener.sayBytes(1, 2);
  assertEquals(heard(all), [[], [], [NOT_JOINED, NOT_JOINED]]);
});

Deno.test("JSON of another shape is an error for its sender alone", async () => {
  const { ann, all } = await createRoom();
  const shapes = ["null", "1", '"join"', "[]", "{}", '{"type":"shout"}', '[{"type":"join"}]'];
  // What only `parley.v1` knows is another shape here.
  for (const type of ["listen", "leave", "members", "ping", "token"]) {
    shapes.push(JSON.stringify({ type, room: "ops", token: "t" }));
  }
  for (const text of shapes) ann.say(text);
  assertEquals(heard(all), [shapes.map(() => NOT_JOINED), [], []]);
});

Deno.test("text that is no JSON is an error for its sender alone, joined or not", async () => {
  const { ann, listener, all } = await createRoom();
  for (const socket of [ann, listener]) {
    socket.say("hi");
    socket.say("");
    socket.say('{"type":"chat"}\n{"type":"chat"}');
  }
  const errors = [NOT_JSON, NOT_JSON, NOT_JSON];
  assertEquals(heard(all), [errors, [], errors]);
});

Deno.test("a name outside the grammar is an error, and the old name stays", async () => {
  const { ann, listener, all } = await createRoom();
  const names = ["", "n".repeat(65), "a\nb", "a\u202eb", null, 7, {}];
  for (const name of names) ann.say({ type: "join", name });
  listener.say({ type: "join", name: "" });
  listener.say({ type: "chat", message: "hi" });
  assertEquals(heard(all), [names.map(() => BAD_NAME), [], [BAD_NAME, NOT_JOINED]]);
  ann.say({ type: "chat", message: "hi" });
  assertEquals(heard(all), Array(3).fill([said("Ann", "hi")]));
});

Deno.test("whoever is over its rate is told so, and the others hear nothing of it", async () => {
  const test = createTestApp({ settings: { MESSAGE_RATE: 3 } });
  const { ann, bo, all, clock } = await createRoom(test);
  for (const message of [1, 2, 3, 4]) ann.say({ type: "chat", message });
  assertEquals(heard(all), [
    [said("Ann", 1), said("Ann", 2), TOO_MANY, TOO_MANY],
    [said("Ann", 1), said("Ann", 2)],
    [said("Ann", 1), said("Ann", 2)],
  ]);
  bo.say({ type: "chat", message: "me" });
  clock.tick(1_000);
  ann.say({ type: "chat", message: 5 });
  assertEquals(ann.take(), [said("Bo", "me"), said("Ann", 5)]);
});

Deno.test("a rate refuses binary, text that is no JSON and joins too", async () => {
  const { ann } = await createRoom(createTestApp({ settings: { MESSAGE_RATE: 1 } }));
  ann.sayBytes(1);
  ann.say("hi");
  ann.say({ type: "join", name: "Anna" });
  assertEquals(ann.take(), [TOO_MANY, TOO_MANY, TOO_MANY]);
});

Deno.test("10 s of unbroken refusals end a socket with 1008", async () => {
  const { ann, bo, clock } = await createRoom(createTestApp({ settings: { BYTE_RATE: 100 } }));
  clock.tick(1_000);
  ann.say({ type: "chat", message: "x".repeat(5_000) });
  ann.say({ type: "chat", message: "y" });
  clock.tick(9_999);
  ann.say({ type: "chat", message: "y" });
  assertEquals(ann.closes, []);
  clock.tick(1);
  ann.say({ type: "chat", message: "y" });
  ann.say({ type: "chat", message: "y" });
  assertEquals(ann.closes, [{ code: 1008, reason: "rate limited" }]);
  assertEquals(ann.take().slice(1), [TOO_MANY, TOO_MANY]);
  assertEquals(bo.take().slice(1), [left("Ann")]);
});

Deno.test("refusals that a message interrupts end no socket", async () => {
  const { ann, clock } = await createRoom(createTestApp({ settings: { MESSAGE_RATE: 1 } }));
  let refused = 0;
  for (let ms = 0; ms < 60_000; ms += 100) {
    clock.tick(100);
    ann.say({ type: "chat", message: "x" });
    refused += ann.take().filter((frame) => frame === TOO_MANY).length;
  }
  assertEquals([refused, ann.closes], [540, []]);
});

Deno.test("nobody joins a room of the server's own, but may hear it", async () => {
  const { connect, registry } = createTestApp();
  const socket = await connect("/chat/_stats");
  socket.say({ type: "join", name: "Ann" });
  socket.say({ type: "chat", message: "hi" });
  assertEquals(socket.take(), [NOT_ALLOWED, NOT_ALLOWED]);
  const stats = registry.engineOf("_stats");
  await stats.publish("_stats", { sender: "server", message: '{"a":1}' });
  assertEquals(socket.take(), [said("server", { a: 1 })]);
});

Deno.test("an engine that fails is told as a server error, never as what went wrong", async () => {
  const engine = createMemoryEngine(
    { historySize: 9, historySeconds: 9, historyMb: 9, maxRooms: 9 },
    new FakeClock(),
  );
  const { ann, bo, listener, all } = await createRoom(createTestApp({ engine }));
  engine.publish = () => ({ refused: "unavailable" });
  ann.say({ type: "chat", message: "hi" });
  engine.publish = () => Promise.resolve({ refused: "unavailable" });
  bo.say({ type: "chat", message: "hi" });
  engine.join = () => ({ refused: "unavailable" });
  listener.say({ type: "join", name: "Cho" });
  await Promise.resolve();
  assertEquals(heard(all), [[SERVER_ERROR], [SERVER_ERROR], [SERVER_ERROR]]);
});

Deno.test("an engine of a program's own that rejects is a server error, and a line in the log", async () => {
  const engine = createMemoryEngine(
    { historySize: 9, historySeconds: 9, historyMb: 9, maxRooms: 9 },
    new FakeClock(),
  );
  const { ann, bo, connect, log } = await createRoom(createTestApp({ engine }));
  engine.publish = () => Promise.reject(new Error("the secret table is gone"));
  // Of some messages the time is taken, of others not.
  for (const socket of [ann, bo]) socket.say({ type: "chat", message: "hi" });
  await log.when("error");
  await Promise.resolve();
  assertEquals(heard([ann, bo]), [[SERVER_ERROR], [SERVER_ERROR]]);
  engine.host = () => Promise.reject(new Error("the secret table is gone"));
  const cho = await connect("/chat/other");
  assertEquals(await eventually(() => cho.take(), ({ length }) => length > 0), [SERVER_ERROR]);
});

Deno.test("a room that cannot be opened is a server error, and the socket stays", async () => {
  const { connect } = createTestApp({ settings: { MAX_ROOMS: 1 } });
  const ann = await connect("/chat/a");
  const bo = await connect("/chat/b");
  assertEquals([ann.take(), bo.take(), bo.closes], [[], [SERVER_ERROR], []]);
  ann.end();
  bo.say({ type: "join", name: "Bo" });
  assertEquals(bo.take(), [joined("Bo")]);
});

Deno.test("binary goes to every other socket of the URL's room, behind the text due before", async () => {
  const { ann, bo, listener, connect } = await createRoom();
  const v1 = await connect("/chat/ops", { dialect: "v1" });
  const elsewhere = await connect("/chat/hr");
  v1.take();
  ann.say({ type: "chat", message: 1 });
  ann.sayBytes(0, 255, 7);
  ann.say({ type: "chat", message: 2 });
  const bytes = new Uint8Array([0, 255, 7]);
  assertEquals(ann.take(), [said("Ann", 1), said("Ann", 2)]);
  const plain = [said("Ann", 1), bytes, said("Ann", 2)];
  assertEquals(heard([bo, listener, elsewhere]), [plain, plain, []]);
  await Promise.resolve();
  const [first, second, third] = v1.take();
  assertEquals([JSON.parse(first as string).message, second], [1, bytes]);
  assertEquals(JSON.parse(third as string).message, 2);
});

Deno.test("binary is neither numbered nor kept", async () => {
  const { ann, ask } = await createRoom();
  ann.say({ type: "chat", message: 1 });
  ann.sayBytes(1);
  ann.say({ type: "chat", message: 2 });
  const { seq, messages } = await (await ask("/rooms/ops/messages")).json();
  assertEquals(seq, 2);
  assertEquals(messages.map(({ message }: { message: number }) => message), [1, 2]);
});

Deno.test("after and history mean nothing to the plain dialect", async () => {
  const { ann, connect } = await createRoom();
  ann.say({ type: "chat", message: 1 });
  const late = await connect("/chat/ops?history=5&after=x:0");
  assertEquals(late.take(), []);
  ann.say({ type: "chat", message: 2 });
  assertEquals(late.take(), [said("Ann", 2)]);
});

Deno.test("rooms do not hear each other; /chat is the lobby", async () => {
  const { connect } = createTestApp();
  const sockets = [];
  for (const path of ["/chat", "/chat/lobby", "/chat/%6Cobby", "/chat/Lobby", "/chat/ops"]) {
    sockets.push(await connect(path));
  }
  sockets[0].say({ type: "join", name: "Ann" });
  assertEquals(heard(sockets), [[joined("Ann")], [joined("Ann")], [joined("Ann")], [], []]);
});

Deno.test("a socket stays open after every error", async () => {
  const { ann } = await createRoom();
  for (const text of ["hi", "[]", '{"type":"join","name":""}', "\0"]) ann.say(text);
  assertEquals(ann.closes, []);
  ann.take();
  ann.say({ type: "chat", message: "still here" });
  assertEquals(ann.take(), [said("Ann", "still here")]);
});

Deno.test("the log has one line for each event, with address and clients, and none a message", async () => {
  const { connect, log } = createTestApp();
  const ann = await connect("/chat/ops", { info: infoOf("192.0.2.1", 5) });
  const bo = await connect("/chat/ops", { info: infoOf("2001:db8::1", 6) });
  ann.say({ type: "join", name: 'A"n' });
  ann.say({ type: "chat", message: "hi" });
  ann.sayBytes(1);
  ann.say("no JSON");
  ann.end(1000, "bye");
  bo.drop();
  const lines = log.lines.filter(({ level }) => level !== "debug");
  assertEquals(lines.map(({ text }) => text), [
    "Client connected: 192.0.2.1:5. Total clients: 1",
    "Client connected: [2001:db8::1]:6. Total clients: 2",
    'Client joined: 192.0.2.1:5 is "A\\"n" in ops. Total clients: 2',
    'Client left: 192.0.2.1:5 was "A\\"n" in ops. Total clients: 2',
    "Client disconnected cleanly: 192.0.2.1:5: bye (1000). Total clients: 1",
    "Connection closed with error: [2001:db8::1]:6: Unexpected EOF (1006). Total clients: 0",
  ]);
  assertEquals(new Set(lines.map(({ level }) => level)), new Set(["info"]));
});

Deno.test("a socket has at most 1,000 messages that wait for the engine; one more is refused", async () => {
  const engine = createMemoryEngine(
    { historySize: 10, historySeconds: 60, historyMb: 1, maxRooms: 10 },
    new FakeClock(),
  );
  const test = createTestApp({ engine, settings: { MESSAGE_RATE: 0 } });
  const { ann } = await createRoom(test);
  const publish = engine.publish.bind(engine);
  const back = Promise.withResolvers<void>();
  let waiting = 0;
  engine.publish = async (...args) => {
    waiting++;
    await back.promise;
    return publish(...args);
  };
  for (let count = 0; count < 1_000; count++) ann.say({ type: "chat", message: count });
  assertEquals(ann.take(), []);
  ann.say({ type: "chat", message: "one more" });
  assertEquals([ann.take(), waiting], [[SERVER_ERROR], 1_000]);
  back.resolve();
  await eventually(() => ann.frames.length, (count) => count === 1_000);
  assertEquals(ann.take().at(-1), said("Ann", 999));
  ann.say({ type: "chat", message: "again" });
  await eventually(() => ann.frames.length, (count) => count === 1);
  assertEquals(ann.take(), [said("Ann", "again")]);
});

Deno.test("a flood of refusals ends its sender, though some of it is taken", async () => {
  const { ann, clock } = await createRoom(createTestApp({ settings: { MESSAGE_RATE: 100 } }));
  let refused = 0;
  while (ann.closes.length === 0) {
    clock.tick(1);
    for (let n = 0; n < 10; n++) ann.say({ type: "chat", message: n });
    refused += ann.take().filter((frame) => frame === TOO_MANY).length;
  }
  assertEquals(ann.closes, [{ code: 1008, reason: "rate limited" }]);
  assert(refused >= 1_000 && refused < 1_300, `${refused} refusals`);
});

Deno.test("nothing more is read of a frame whose lines ended its sender", async () => {
  const { connect, registry } = createTestApp();
  const ann = await connect("/chat/ops", { dialect: "v1" });
  ann.say(Array(4_000).fill('{"type":"ping"}').join("\n"));
  assertEquals(ann.closes, [{ code: 1008, reason: "rate limited" }]);
  assertLess(registry.counters.messagesIn, 1_200);
});

Deno.test("a message is charged by what it grows to: numbers expand on their way out", async () => {
  const test = createTestApp({ settings: { BYTE_RATE: 10_000 } });
  const { ann, bo } = await createRoom(test);
  test.clock.tick(1_000);
  const text = `{"type":"chat","message":[${Array(450).fill("1e20").join()}]}`;
  for (let n = 0; n < 4; n++) ann.say(text);
  assertEquals([text.length < 2_300, bo.take().length], [true, 1]);
  assertEquals(ann.take().slice(1), [TOO_MANY, TOO_MANY, TOO_MANY]);
});

Deno.test("the log cuts the reason of a close at 123 bytes, whatever a peer sends", async () => {
  const { ann, bo, log } = await createRoom();
  ann.end(1000, "가".repeat(1_000_000));
  bo.drop("x".repeat(1_000_000));
  for (const { text, fields } of log.of("disconnected")) {
    assert(text.length < 250 && new TextEncoder().encode(String(fields.reason)).length <= 123);
  }
});

Deno.test("a POST while the server drains is 503, and publishes nothing", async () => {
  const { ask, registry, clock } = createTestApp({ settings: { DRAIN_SECONDS: 4 } });
  const drained = registry.drain();
  const answer = await ask("/rooms/ops/messages", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  const { code } = await answer.json();
  assertEquals([answer.status, code, answer.headers.get("retry-after")], [503, "draining", "4"]);
  assertEquals((await (await ask("/rooms/ops/messages")).json()).seq, 0);
  clock.tick(4_000);
  await drained;
});
