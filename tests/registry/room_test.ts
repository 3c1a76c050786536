import { setImmediate } from "node:timers";
import { assertEquals, assertLessOrEqual } from "@std/assert";
import type { Engine } from "../../handlers/engine/engine.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import type { Cursor } from "../../handlers/protocol/position.ts";
import { BATCH_SIZE } from "../../handlers/registry/batch.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { leave, subscribe } from "../../handlers/registry/membership.ts";
import { MAX_FRAME_BYTES } from "../../handlers/registry/pending_frame.ts";
import type { Settings } from "../../handlers/start/settings.ts";
import { createTestApp, FakeClock, type FakeSocket } from "../support/fakes.ts";
import { TestSubscriber } from "../support/subscriber.ts";

const KEEPS = { historySize: 100, historySeconds: 60, historyMb: 10, maxRooms: 10 };
const NO_RATES = { MESSAGE_RATE: 0, BYTE_RATE: 0, JOIN_RATE: 0 };

interface Fields extends Record<string, unknown> {
  type: string;
}

/** A server whose turns the test ends by `turn.flush()`. */
function createServer(settings: Partial<Settings> = {}, engine?: Engine) {
  const turn = new Turn(() => {});
  return { turn, ...createTestApp({ turn, engine, settings: { ...NO_RATES, ...settings } }) };
}

const byteLength = (text: string) => new TextEncoder().encode(text).length;

/** The chats that a socket got, as their messages. */
function messagesOf(socket: FakeSocket): unknown[] {
  return (socket.objects as Fields[]).filter(({ type }) => type === "chat")
    .map(({ message }) => message);
}

Deno.test("Room merges a turn's events into one frame, the same for all who merge", async () => {
  const { connect, turn } = createServer();
  const ann = await connect("/chat/ops", { dialect: "v1" });
  const bo = await connect("/chat/ops", { dialect: "v1" });
  turn.flush();
  ann.take(), bo.take();
  ann.say({ type: "join", name: "Ann" });
  for (const message of [1, 2, 3]) ann.say({ type: "chat", message });
  assertEquals([ann.frames, bo.frames], [[], []]);
  turn.flush();
  assertEquals(bo.frames.length, 1);
  assertEquals(ann.frames, bo.frames);
  assertEquals(bo.objects.map((object) => (object as Fields).type), [
    "status",
    "chat",
    "chat",
    "chat",
  ]);
});

Deno.test("Room gives who comes in the middle of a turn neither an older message twice nor a gap", async () => {
  const { connect, turn, ask } = createServer();
  const ann = await connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "chat", message: 1 });
  turn.flush();
  const { epoch } = await (await ask("/rooms/ops/messages")).json();
  ann.say({ type: "chat", message: "둘" });
  const cases: [string, number, unknown[]][] = [
    ["", 2, [3, 4]],
    ["?history=1", 1, ["둘", 3, 4]],
    ["?history=9", 0, [1, "둘", 3, 4]],
    [`?after=${epoch}:1`, 1, ["둘", 3, 4]],
    [`?after=${epoch}:0`, 0, [1, "둘", 3, 4]],
    [`?after=${epoch}:2`, 2, [3, 4]],
    ["?after=other:1", 0, [1, "둘", 3, 4]],
  ];
  const sockets: FakeSocket[] = [];
  for (const [query] of cases) {
    sockets.push(await connect(`/chat/ops${query}`, { dialect: "v1" }));
  }
  ann.say({ type: "chat", message: 3 });
  const last = await connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "chat", message: 4 });
  turn.flush();
  cases.forEach(([query, seq, messages], index) => {
    const [welcome] = sockets[index].objects as Fields[];
    assertEquals([welcome.type, welcome.seq], ["welcome", seq], query);
    assertEquals(messagesOf(sockets[index]), messages, query);
  });
  assertEquals(messagesOf(last), [4]);
  assertEquals(messagesOf(ann), [1, "둘", 3, 4]);
});

Deno.test("Room keeps the place of who came in the middle of a turn that fills several frames", async () => {
  const { connect, turn } = createServer({ MAX_QUEUE_BYTES: 4_000_000 });
  const ann = await connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  const late: FakeSocket[] = [];
  for (let seq = 1; seq <= 100; seq++) {
    ann.say({ type: "chat", message: "가".repeat(1_000) });
    if (seq % 7 === 0) late.push(await connect("/chat/ops", { dialect: "v1" }));
  }
  turn.flush();
  late.forEach((socket, index) => {
    const [{ type, seq }, ...chats] = socket.objects as Fields[];
    assertEquals([type, seq], ["welcome", 7 * (index + 1)]);
    const seqs = Array.from({ length: 100 - Number(seq) }, (_, offset) => Number(seq) + 1 + offset);
    assertEquals(chats.map(({ seq }) => seq), seqs);
  });
});

Deno.test("Room still gives who leaves what was due before, and nothing behind it", async () => {
  const { connect, turn } = createServer();
  const ann = await connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  const bo = await connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "chat", message: 1 });
  bo.say({ type: "leave" });
  ann.say({ type: "chat", message: 2 });
  bo.say({ type: "listen", room: "ops" });
  ann.say({ type: "chat", message: 3 });
  turn.flush();
  const seen = (bo.objects as Fields[]).map(({ type, seq }) => [type, seq]);
  assertEquals(seen, [["welcome", 0], ["chat", 1], ["welcome", 2], ["chat", 3]]);
});

Deno.test("Room makes frames of at most 64 kB in UTF-8 bytes", async () => {
  const { connect, turn } = createServer({
    MAX_MESSAGE_BYTES: 200_000,
    MAX_QUEUE_BYTES: 4_000_000,
  });
  const ann = await connect("/chat/ops", { dialect: "v1" });
  const bo = await connect("/chat/ops", { dialect: "v1" });
  turn.flush();
  ann.take(), bo.take();
  ann.say({ type: "join", name: "Ann" });
  // Few UTF-16 units, three times as many bytes.
  for (let i = 0; i < 60; i++) ann.say({ type: "chat", message: "가".repeat(1_000), id: `${i}` });
  turn.flush();
  for (const { frames } of [ann, bo]) {
    for (const frame of frames) {
      assertLessOrEqual(byteLength(frame as string), MAX_FRAME_BYTES);
    }
  }
  assertEquals(messagesOf(bo).length, 60);
  assertEquals(bo.frames.length, 3);
  assertEquals(messagesOf(ann).length, 60);
  ann.take(), bo.take();
  ann.say({ type: "chat", message: 1 });
  ann.say({ type: "chat", message: "나".repeat(30_000) });
  ann.say({ type: "chat", message: 2 });
  turn.flush();
  assertEquals(bo.frames.map((frame) => byteLength(frame as string) > MAX_FRAME_BYTES), [
    false,
    true,
    false,
  ]);
  assertEquals(messagesOf(bo), [1, "나".repeat(30_000), 2]);
});

Deno.test("Room lets all hear a message before they hear who was evicted by it", async () => {
  const { connect, turn } = createServer({ MAX_QUEUE_BYTES: 1_000 });
  const sockets: FakeSocket[] = [];
  for (const name of ["Ann", "Bo", "Cho", "Dan"]) {
    const socket = await connect("/chat/ops");
    socket.say({ type: "join", name });
    sockets.push(socket);
  }
  const v1 = await connect("/chat/ops", { dialect: "v1" });
  turn.flush();
  for (const socket of [...sockets, v1]) socket.take();
  const [ann, bo, cho, dan] = sockets;
  // Bo's eviction tells Cho's status, which evicts Cho too.
  for (const socket of [bo, cho]) socket.bufferedAmount = 1_001;
  cho.bufferedAmount = 960;
  cho.isStuck = true;
  ann.say({ type: "chat", message: "!" });
  turn.flush();
  const chat = { type: "chat", sender: "Ann", message: "!" };
  const left = (name: string) => ({ type: "status", message: `${name} left the chat.` });
  assertEquals([bo.closes.length, cho.closes.length], [1, 1]);
  assertEquals(ann.objects, [chat, left("Bo"), left("Cho")]);
  assertEquals(dan.objects, [chat, left("Bo"), left("Cho")]);
  const seen = (v1.objects as Fields[]).map(({ type, seq, name, members }) => [
    type,
    seq ?? name,
    members,
  ]);
  assertEquals(seen, [["chat", 1, undefined], ["status", "Bo", 3], ["status", "Cho", 2]]);
});

Deno.test("Room relays binary behind the text due before, to the others of its URL", async () => {
  const { connect, turn } = createServer();
  const ann = await connect("/chat/ops", { dialect: "v1" });
  const bo = await connect("/chat/ops", { dialect: "v1" });
  const plain = await connect("/chat/ops");
  const visitor = await connect("/chat/hr", { dialect: "v1" });
  visitor.say({ type: "listen", room: "ops" });
  turn.flush();
  for (const socket of [ann, bo, plain, visitor]) socket.take();
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "chat", message: 1 });
  ann.sayBytes(1, 2);
  ann.say({ type: "chat", message: 2 });
  ann.sayBytes(3);
  turn.flush();
  const kinds = (socket: FakeSocket) =>
    socket.frames.map((frame) => typeof frame === "string" ? frame.split("\n").length : [...frame]);
  assertEquals(kinds(bo), [2, [1, 2], 1, [3]]);
  assertEquals(kinds(plain), [1, 1, [1, 2], 1, [3]]);
  assertEquals(kinds(ann), [2, 1]);
  assertEquals(kinds(visitor), [3], "it gets no bytes, and its text when the turn ends");
});

/** A room over a memory engine, and event streams for it. */
function createRoom(engine = createMemoryEngine(KEEPS, new FakeClock())) {
  const { registry, clock } = createServer({ MAX_QUEUE_BYTES: 10_000 }, engine);
  const createStream = () => new TestSubscriber(registry);
  return { room: registry.room("ops"), engine, clock, registry, createStream };
}

/** What a stream was told: `recovered` or the message, and the position. */
function told({ events }: TestSubscriber): unknown[] {
  return events.map(([data, id]) => [data.type === "welcome" ? data.recovered : data.message, id]);
}

Deno.test("Room tells a stream its welcome and each message with its position, and no status", async () => {
  const { room, engine, createStream } = createRoom();
  await engine.publish("ops", { sender: "Ann", message: "1" });
  const { epoch } = await engine.read("ops") as Cursor;
  const streams = [{}, { history: 5 }, { after: `${epoch}:0` }].map((wanted) => {
    const stream = createStream();
    subscribe(room, stream, wanted);
    return stream;
  });
  await engine.join("ops", "m", "Ann");
  await engine.publish("ops", { sender: "Ann", message: "2" });
  const [first, second] = [[1, `${epoch}:1`], [2, `${epoch}:2`]];
  assertEquals(streams.map(told), [
    [[undefined, `${epoch}:1`], second],
    [[undefined, `${epoch}:0`], first, second],
    [[true, `${epoch}:0`], first, second],
  ]);
});

Deno.test("Room tells a broken order to all who have positions: welcome again, recovered false", async () => {
  const { connect, registry, turn } = createServer();
  const v1 = await connect("/chat/ops", { dialect: "v1" });
  const plain = await connect("/chat/ops");
  turn.flush();
  v1.take();
  const stream = new TestSubscriber(registry);
  subscribe(registry.room("ops"), stream, {});
  const audience = registry.rooms.get("ops")!;
  audience.deliver({ type: "reset", epoch: "new", seq: 40, rev: 0, members: 3 });
  const chat = { seq: 41, time: 0, sender: "Ann", message: '"hi"' };
  audience.deliver({ type: "chat", chat });
  turn.flush();
  assertEquals(v1.objects, [
    { type: "welcome", room: "ops", epoch: "new", seq: 40, members: 3, recovered: false },
    { type: "chat", room: "ops", ...chat, message: "hi" },
  ]);
  assertEquals(plain.objects, [{ type: "chat", sender: "Ann", message: "hi" }]);
  assertEquals(told(stream).slice(1), [[false, "new:40"], ["hi", "new:41"]]);
  const late = await connect("/chat/ops", { dialect: "v1" });
  turn.flush();
  assertEquals((late.objects as Fields[])[0].seq, 41);
});

Deno.test("Room goes with its last subscriber", () => {
  const { room, registry, createStream } = createRoom();
  const [first, second] = [createStream(), createStream()];
  subscribe(room, first, {});
  subscribe(room, second, {});
  assertEquals(registry.rooms.get("ops")?.subscriberCount, 2);
  leave(room, first);
  assertEquals(registry.rooms.get("ops")?.subscriberCount, 1);
  leave(room, second);
  leave(room, second);
  assertEquals(registry.rooms.size, 0);
});

Deno.test("Room that its engine refuses takes no subscriber, and goes", () => {
  const engine = createMemoryEngine({ ...KEEPS, maxRooms: 0 }, new FakeClock());
  const { room, registry, createStream } = createRoom(engine);
  const stream = createStream();
  assertEquals(subscribe(room, stream, {}), { refused: "too_many_rooms" });
  assertEquals([registry.rooms.size, stream.rooms.size, stream.sent], [0, 0, []]);
});

Deno.test("Room waits with a replay for an engine that is away", async () => {
  const { room, engine, clock, createStream } = createRoom();
  await engine.publish("ops", { sender: "Ann", message: "1" });
  const { epoch, seq } = await engine.read("ops") as Cursor;
  const read = engine.read.bind(engine);
  engine.read = () => ({ refused: "unavailable" });
  const [stream, gone] = [createStream(), createStream()];
  for (const one of [stream, gone]) subscribe(room, one, { after: `${epoch}:0` });
  await engine.publish("ops", { sender: "Ann", message: "2" });
  clock.tick(250);
  assertEquals(stream.sent, []);
  leave(room, gone);
  engine.read = read;
  clock.tick(250);
  await engine.publish("ops", { sender: "Ann", message: "3" });
  const chats = [1, 2, 3].map((message) => [message, `${epoch}:${message}`]);
  assertEquals(told(stream), [[true, `${epoch}:${seq - 1}`], ...chats]);
  assertEquals(gone.sent, []);
});

Deno.test("Room waits until it has heard as much as its subscriber did elsewhere", async () => {
  for (const others of ["same", "new"]) {
    const { room, engine, clock, registry, createStream } = createRoom();
    await engine.publish("ops", { sender: "Ann", message: "1" });
    const epoch = others === "new" ? others : (await engine.read("ops") as Cursor).epoch;
    const chats = [2, 3].map((seq) => ({ seq, time: 0, sender: "Ann", message: `${seq}` }));
    engine.read = (_room, after) => ({ epoch, seq: 3, chats: chats.slice(after!.seq - 1) });
    const [waits, odd] = [createStream(), createStream()];
    subscribe(room, waits, { after: `${epoch}:2` });
    subscribe(room, odd, { after: `${epoch}:9` });
    const audience = registry.rooms.get("ops")!;
    if (others === "new") audience.deliver({ type: "reset", epoch, seq: 1, rev: 0, members: 0 });
    clock.tick(250);
    assertEquals(waits.sent, []);
    for (const chat of chats) audience.deliver({ type: "chat", chat });
    clock.tick(250);
    assertEquals(told(waits), [[true, `${epoch}:2`], [3, `${epoch}:3`]]);
    assertEquals(told(odd)[0], [false, `${epoch}:1`]);
  }
});

Deno.test("Room cuts a replay to what half of MAX_QUEUE_BYTES holds, and says so", async () => {
  const { connect, engine, turn } = createServer({ MAX_QUEUE_BYTES: 20_000 });
  for (let n = 1; n <= 30; n++) {
    await engine.publish("ops", { sender: "Ann", message: `"${"가".repeat(300)}"` });
  }
  const { epoch } = await engine.read("ops") as { epoch: string };
  const socket = await connect(`/chat/ops?after=${epoch}:0`, { dialect: "v1" });
  socket.isStuck = true;
  turn.flush();
  const [welcome, ...chats] = socket.objects as Fields[];
  assertEquals(welcome.recovered, false);
  assertEquals(
    chats.map(({ seq }) => seq),
    chats.map((_, index) => Number(welcome.seq) + 1 + index),
  );
  assertEquals(chats.at(-1)!.seq, 30);
  assertLessOrEqual(socket.bufferedAmount, 10_000);
  assertEquals(socket.closes, []);
});

/** A memory engine that answers `read` only when the test says so. */
function createLateEngine() {
  const engine = createMemoryEngine(KEEPS, new FakeClock());
  const read = engine.read.bind(engine);
  const gate = Promise.withResolvers<void>();
  engine.read = async (...args) => {
    await gate.promise;
    return await read(...args);
  };
  return {
    engine,
    /** Lets the answers come, and waits until they did. */
    async answer() {
      gate.resolve();
      for (let turns = 0; turns < 20; turns++) await Promise.resolve();
    },
  };
}

Deno.test("Room gives who waits for its replay what came meanwhile behind it, once", async () => {
  const { engine, answer } = createLateEngine();
  const { connect, turn } = createServer({}, engine);
  const ann = await connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  for (const message of [1, 2, 3]) ann.say({ type: "chat", message });
  const socket = await connect("/chat/ops?history=2", { dialect: "v1" });
  ann.say({ type: "chat", message: 4 });
  ann.sayBytes(7);
  ann.say({ type: "join", name: "Anna" });
  assertEquals(socket.frames, []);
  await answer();
  ann.say({ type: "chat", message: 5 });
  turn.flush();
  assertEquals(
    socket.frames.flatMap((frame) => {
      if (typeof frame !== "string") return [[...frame]];
      return frame.split("\n").map((line) => JSON.parse(line)).map(({ type, seq, message }) =>
        type === "welcome" ? `welcome ${seq}` : message
      );
    }),
    ["welcome 1", 2, 3, 4, [7], "Anna joined the chat.", 5],
  );
});

Deno.test("Room keeps no listener that its replay evicted", async () => {
  const { engine, answer } = createLateEngine();
  const { connect, registry, turn } = createServer({ MAX_QUEUE_BYTES: 100_000 }, engine);
  const ann = await connect("/chat/ops");
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "chat", message: 0 });
  const socket = await connect("/chat/ops?history=1", { dialect: "v1" });
  socket.isStuck = true;
  for (let n = 0; n < 60; n++) ann.say({ type: "chat", message: "x".repeat(4_000) });
  // The room takes them in several turns.
  while (messagesOf(ann).length < 61) await new Promise<void>((resolve) => setImmediate(resolve));
  await answer();
  turn.flush();
  assertEquals(socket.closes, [{ code: 1013, reason: "too slow" }]);
  assertEquals(registry.rooms.get("ops")?.subscriberCount, 1);
  ann.end();
  assertEquals(registry.rooms.size, 0);
});

Deno.test("Room forgets who ended while it waited for its replay", async () => {
  const { engine, answer } = createLateEngine();
  const { connect, registry, turn } = createServer({}, engine);
  const socket = await connect("/chat/ops?history=1", { dialect: "v1" });
  assertEquals(registry.rooms.get("ops")?.subscriberCount, 1);
  socket.drop();
  assertEquals(registry.rooms.size, 0);
  await answer();
  turn.flush();
  assertEquals([socket.frames, registry.rooms.size], [[], 0]);
});

Deno.test("Room writes to a group of its listeners a turn, and later groups get what came meanwhile", async () => {
  const ends: (() => void)[] = [];
  const schedule = (end: () => void) => ends.push(end);
  const turn = new Turn(schedule, schedule);
  const { connect } = createTestApp({ turn, settings: NO_RATES });
  const listeners: FakeSocket[] = [];
  while (listeners.length < BATCH_SIZE * 3) {
    listeners.push(await connect("/chat/ops", { dialect: "v1" }));
  }
  const [ann] = listeners;
  ann.say({ type: "join", name: "Ann" });
  turn.flush();
  while (ends.length > 0) ends.shift()!();
  for (const socket of listeners) socket.take();
  const heard = () => {
    const groups = [listeners[0], listeners[BATCH_SIZE], listeners[BATCH_SIZE * 2]];
    return groups.map((socket) => messagesOf(socket));
  };
  ann.say({ type: "chat", message: 1 });
  ends.shift()!();
  assertEquals(heard(), [[1], [], []]);
  ann.say({ type: "chat", message: 2 });
  assertEquals(ends.length, 1, "the room goes on by itself");
  ends.shift()!();
  assertEquals(heard(), [[1], [1, 2], []]);
  ends.shift()!();
  assertEquals(heard(), [[1], [1, 2], [1, 2]]);
  ends.shift()!();
  assertEquals(heard(), [[1, 2], [1, 2], [1, 2]]);
  assertEquals([listeners[0], listeners.at(-1)!].map(({ frames }) => frames.length), [2, 1]);
  assertEquals(ends.length, 0);
});

Deno.test("Room: who leaves or comes while a large room is written misses nothing and hears nothing twice", async () => {
  const ends: (() => void)[] = [];
  const schedule = (end: () => void) => ends.push(end);
  const turn = new Turn(schedule, schedule);
  const { connect } = createTestApp({ turn, settings: NO_RATES });
  const listeners: FakeSocket[] = [];
  const open = async () => listeners.push(await connect("/chat/ops", { dialect: "v1" }));
  while (listeners.length < BATCH_SIZE * 3) await open();
  const [ann] = listeners;
  ann.say({ type: "join", name: "Ann" });
  for (let number = 1; number <= 60; number++) {
    ann.say({ type: "chat", message: number });
    if (number % 2 === 0) ends.shift()?.();
    if (number % 3 === 0) await open();
    if (number % 5 === 0) listeners[number].say({ type: "leave" });
    if (number % 7 === 0) listeners[number].end();
  }
  while (ends.length > 0) ends.shift()!();
  for (const [index, socket] of listeners.entries()) {
    const heard = messagesOf(socket) as number[];
    const { seq } = (socket.objects as { type: string; seq: number }[])[0];
    const last = index > 60 || index === 0 || (index % 5 !== 0 && index % 7 !== 0)
      ? 60
      : index % 35 === 0 || index % 5 !== 0
      ? undefined
      : index;
    if (last === undefined) continue;
    assertEquals(heard, Array.from({ length: last - seq }, (_, n) => seq + n + 1), `${index}`);
  }
});

Deno.test("Room writes to several small groups in one turn", async () => {
  const ends: (() => void)[] = [];
  const schedule = (end: () => void) => ends.push(end);
  const turn = new Turn(schedule, schedule);
  const { connect } = createTestApp({ turn, settings: NO_RATES });
  const listeners: FakeSocket[] = [];
  while (listeners.length < BATCH_SIZE * 4) {
    listeners.push(await connect("/chat/ops", { dialect: "v1" }));
  }
  const left = listeners.filter((_, index) => index % 4 === 0);
  for (const socket of listeners) if (!left.includes(socket)) socket.end();
  left[0].say({ type: "join", name: "Ann" });
  while (ends.length > 0) ends.shift()!();
  left[0].say({ type: "chat", message: "to all" });
  ends.shift()!();
  assertEquals(left.map((socket) => messagesOf(socket)), left.map(() => ["to all"]));
  assertEquals(ends.length, 0);
});

Deno.test("Room keeps no state for subscribers who did not ask for it", async () => {
  const engine = createMemoryEngine(KEEPS, new FakeClock());
  const reads: string[] = [];
  const read = engine.state.bind(engine);
  engine.state = (room, since) => {
    reads.push(room);
    return read(room, since);
  };
  const { connect, registry } = createServer({}, engine);
  await connect("/chat/ops");
  await connect("/chat/ops", { dialect: "v1" });
  const reset = { type: "reset", epoch: "other", seq: 0, rev: 0, members: 0 } as const;
  registry.rooms.get("ops")!.deliver(reset);
  assertEquals(reads, []);
  await connect("/chat/ops?state=1", { dialect: "v1" });
  assertEquals(reads, ["ops"]);
});

Deno.test("Room tells a paced subscriber of a change, also where one of another pace has just left", async () => {
  const { connect, turn, engine, clock } = createServer();
  const set = (value: string) => engine.set("ops", { key: "a", value, sender: "Ann" });
  await connect("/chat/ops?state=1", { dialect: "v1" });
  const ann = await connect("/chat/ops?state=1&every=100", { dialect: "v1" });
  set("1");
  clock.tick(0);
  set("2");
  ann.end();
  const bo = await connect("/chat/ops?state=1&every=200", { dialect: "v1" });
  turn.flush();
  bo.take();
  set("3");
  clock.tick(1_000);
  turn.flush();
  assertEquals(bo.objects.map((object) => [(object as Fields).type, (object as Fields).rev]), [
    ["state", 3],
  ]);
});

Deno.test("Room tells the whole state where what was removed fits no queue", async () => {
  const { connect, turn, engine, clock, ask } = createServer({ MAX_QUEUE_BYTES: 65_536 });
  const set = (key: string, value: string) => engine.set("ops", { key, value, sender: "Ann" });
  const ann = await connect("/chat/ops?state=1&every=100", { dialect: "v1" });
  set("kept", "1");
  clock.tick(100);
  turn.flush();
  ann.take();
  for (let i = 0; i < 600; i++) {
    set(`${i}`.padStart(100, "k"), "1");
    set(`${i}`.padStart(100, "k"), "null");
  }
  clock.tick(1_000);
  turn.flush();
  const [{ type, since, entries }] = ann.objects as Fields[];
  assertEquals([type, since, (entries as unknown[]).length], ["state", undefined, 1]);
  const { epoch } = (await (await ask("/rooms/ops/state")).json()) as Fields;
  const bo = await connect(`/chat/ops?state=1&since=${epoch}:1`, { dialect: "v1" });
  turn.flush();
  assertEquals((bo.objects as Fields[]).map(({ type, since }) => [type, since]), [
    ["welcome", undefined],
    ["state", undefined],
  ]);
});
