/**
 * Several objects a frame, both ways, and the order of what a turn of the event loop brings.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { Turn } from "../../handlers/registry/flush.ts";
import { Client, type Fields } from "../support/clients.ts";
import { createTestApp, type FakeSocket, type TestAppOptions } from "../support/fakes.ts";
import { startServer } from "../support/servers.ts";
import { hear, joinAs, messagesOf, nextOf, range, sayAll, settled, take } from "../support/v1.ts";

const MAX_FRAME_BYTES = 65_536;
const UNLIMITED = { MESSAGE_RATE: 0, BYTE_RATE: 0, JOIN_RATE: 0 };
const chat = (message: unknown, more: Fields = {}) => ({ type: "chat", message, ...more });

/** A room of fakes whose turns end when the test says so: Ann speaks, Bob listens. */
async function quietRoom() {
  const turn = new Turn(() => {});
  const made = createTestApp({
    turn,
    settings: { ...UNLIMITED, MAX_MESSAGE_BYTES: 1_000_000, MAX_QUEUE_BYTES: 10_000_000 },
  });
  const v1 = { dialect: "v1" } as const;
  const ann = await made.connect("/chat/ops", v1);
  const bob = await made.connect("/chat/ops", v1);
  ann.say({ type: "join", name: "Ann" });
  turn.flush();
  ann.take();
  bob.take();
  return { ...made, turn, ann, bob };
}

function bytesOf(frame: string | Uint8Array): number {
  return typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.length;
}

Deno.test("the lines of a client's frame are handled in order; a bad one costs one error", async () => {
  await using server = await startServer();
  await using ann = await joinAs("Ann", `${server.ws}/chat/ops`);
  sayAll(ann, [
    chat("a", { id: "1" }),
    "{nonsense",
    chat("b", { id: "2" }),
    { type: "dance" },
    "",
    chat("c", { id: "3" }),
  ]);
  const heard = await settled(ann);
  assertEquals(messagesOf(heard), ["a", "b", "c"]);
  const answers = heard.filter(({ type }) => type !== "chat").map(({ code, seq }) => code ?? seq);
  assertEquals(answers, [1, "bad_json", 2, "bad_message", "bad_json", 3]);
});

Deno.test("what a turn brings goes out in one frame, in order, without a line break at its end", async () => {
  const { ann, bob, turn } = await quietRoom();
  ann.say(chat(1));
  sayAll(ann, [chat(2), chat(3)]);
  assertEquals(bob.frames, []);
  turn.flush();
  assertEquals([bob.frames.length, messagesOf(bob.objects)], [1, [1, 2, 3]]);
  assert(!String(bob.frames[0]).endsWith("\n"));
  ann.say(chat(4));
  turn.flush();
  assertEquals([bob.frames.length, messagesOf(bob.objects)], [2, [1, 2, 3, 4]]);
});

/** Checks the sizes of the frames that a socket got. */
function checkFrames(frames: (string | Uint8Array)[]): void {
  for (const frame of frames) {
    const isOne = !String(frame).includes("\n");
    assert(bytesOf(frame) <= MAX_FRAME_BYTES || isOne, `a frame of ${bytesOf(frame)} bytes`);
  }
}

Deno.test("a frame holds at most 64 kB, unless one object is longer", async () => {
  const { ann, bob, turn, connect } = await quietRoom();
  const both = await connect("/chat/dev", { dialect: "v1" });
  both.say({ type: "listen", room: "ops" });
  turn.flush();
  both.take();
  const sizes = [100, 30_000, 35_000, 40_000, 200_000, 5, 65_000, 500, 1, 65_536, 2];
  sayAll(ann, sizes.map((size, index) => chat(`${index}`.padEnd(size, "é"))));
  const late = await connect("/chat/ops?history=100", { dialect: "v1" });
  turn.flush();
  for (const { frames, objects } of [bob, both, late]) {
    assertEquals(messagesOf(objects).map((message) => String(message).length), sizes);
    assertEquals(messagesOf(objects), messagesOf(ann.objects));
    checkFrames(frames);
    assertGreater(sizes.length, frames.length);
  }
});

Deno.test("a socket in several rooms gets one frame a turn, too", async () => {
  const { ann, bob, turn } = await quietRoom();
  bob.say({ type: "listen", room: "dev" });
  ann.say({ type: "join", room: "dev", name: "Ann" });
  turn.flush();
  bob.take();
  sayAll(ann, [chat("o1"), chat("d1", { room: "dev" }), chat("o2"), chat("d2", { room: "dev" })]);
  turn.flush();
  assertEquals(bob.frames.length, 1);
  for (const room of ["ops", "dev"]) {
    const own = (bob.objects as Fields[]).filter((object) => object.room === room);
    assertEquals(own.map(({ message }) => message), [`${room[0]}1`, `${room[0]}2`]);
  }
});

Deno.test("binary comes after the text due before it, to the others, and has no number", async () => {
  const { ann, bob, turn, connect } = await quietRoom();
  const plain = await connect("/chat/ops");
  const guest = await connect("/chat/dev", { dialect: "v1" });
  guest.say({ type: "listen", room: "ops" });
  turn.flush();
  guest.take();
  sayAll(ann, [chat(1), chat(2)]);
  ann.sayBytes(7, 8);
  sayAll(ann, [chat(3)]);
  turn.flush();
  const kinds = (socket: FakeSocket) =>
    socket.frames.map((frame) =>
      typeof frame === "string" ? messagesOf(frame.split("\n").map((l) => JSON.parse(l))) : [frame]
    );
  const bytes = [new Uint8Array([7, 8])];
  assertEquals(kinds(bob), [[1, 2], bytes, [3]]);
  assertEquals(kinds(plain), [[1], [2], bytes, [3]]);
  assertEquals(kinds(ann), [[1, 2], [3]], "the sender does not get its own bytes");
  assertEquals(kinds(guest), [[1, 2, 3]], "its URL does not name the room");
  assertEquals((bob.objects as Fields[]).map(({ seq }) => seq), [1, 2, 3]);
});

Deno.test("who comes in the middle of a turn gets nothing twice and misses nothing", async () => {
  const { ann, bob, turn, connect, ask } = await quietRoom();
  const { epoch } = await (await ask("/rooms/ops/messages")).json();
  sayAll(ann, [chat(1), chat(2)]);
  const eve = await connect("/chat/ops", { dialect: "v1" });
  const zoe = await connect("/chat/ops?history=1", { dialect: "v1" });
  sayAll(ann, [chat(3)]);
  const late = await connect(`/chat/ops?after=${epoch}:0`, { dialect: "v1" });
  sayAll(ann, [chat(4)]);
  turn.flush();
  const seen = (socket: FakeSocket) =>
    (socket.objects as Fields[]).filter(({ type }) => type !== "status").map(({ type, seq }) =>
      type === "welcome" ? `after ${seq}` : seq
    );
  assertEquals(seen(bob), [1, 2, 3, 4]);
  assertEquals(seen(eve), ["after 2", 3, 4]);
  assertEquals(seen(zoe), ["after 1", 2, 3, 4]);
  assertEquals(seen(late), ["after 0", 1, 2, 3, 4]);
});

Deno.test("who leaves and comes back in a turn gets what was due, once", async () => {
  const { ann, bob, turn } = await quietRoom();
  ann.say(chat(1));
  bob.say({ type: "leave" });
  ann.say(chat(2));
  bob.say({ type: "listen", room: "ops" });
  ann.say(chat(3));
  turn.flush();
  const seen = (bob.objects as Fields[]).map(({ type, seq }) => `${type} ${seq}`);
  assertEquals(seen, ["chat 1", "welcome 2", "chat 3"]);
});

Deno.test("a chat of 32 merges under load, and sends single objects when idle", async () => {
  await using server = await startServer(UNLIMITED);
  const url = `${server.ws}/chat/ops`;
  const clients: Client[] = [];
  for (let index = 0; index < 32; index++) {
    const client = await Client.open(url, "parley.v1");
    client.send({ type: "join", name: `n${index}` });
    clients.push(client);
  }
  const [ann] = clients;
  while ((await ann.nextObject()).members !== 32);
  const quiet = await hear(url);
  ann.send(chat("idle"));
  const frame = await quiet.client.next();
  assertEquals(JSON.parse(String(frame)).message, "idle");

  const rounds = 50;
  for (const client of clients) {
    for (const round of range(1, rounds)) client.send(chat(round));
  }
  let frames = 0;
  const heard: Fields[] = [];
  while (heard.length < 32 * rounds) {
    const frame = await quiet.client.next();
    frames++;
    heard.push(...String(frame).split("\n").map((line) => JSON.parse(line)));
  }
  assertEquals(heard.map(({ seq }) => seq), range(2, 32 * rounds + 1));
  assertGreater(heard.length / frames, 2, `${heard.length} objects came in ${frames} frames`);
  for (const client of [...clients, quiet.client]) await client.close();
});

// `id` and `session`: a message that is sent again is told once. `handlers/README.md`, `parley.v1`.

const session = "0123456789abcdef";
const other = "fedcba9876543210";
const MINUTE_MS = 60_000;
const sent = (message: unknown, id: string, more: Fields = {}) => ({
  type: "chat",
  message,
  id,
  ...more,
});

/** A server of fakes with a member, and what its messages are answered with. */
function oneMember(settings: TestAppOptions["settings"] = {}) {
  const turn = new Turn(() => {});
  const made = createTestApp({ turn, settings: { MESSAGE_RATE: 0, BYTE_RATE: 0, ...settings } });
  const join = async (more: Fields = {}) => {
    const socket = await made.connect("/chat/ops", { dialect: "v1" });
    socket.say({ type: "join", name: "Ann", ...more });
    return socket;
  };
  /** Sends a message with each id; answers the place of each, or the error's code. */
  const send = (socket: FakeSocket, ids: string[], room = "ops") => {
    turn.flush();
    socket.take();
    sayAll(socket, ids.map((id) => sent(id, id, { room })));
    turn.flush();
    const answers = (socket.objects as Fields[]).filter(({ id }) => id !== undefined);
    return answers.map(({ seq, code }) => seq ?? code);
  };
  return { ...made, turn, join, send };
}

Deno.test("a repeated id is acked with the first place and told once, on whatever socket", async () => {
  await using server = await startServer();
  const url = `${server.ws}/chat/ops`;
  await using bob = await joinAs("Bob", url);
  const ann = await joinAs("Ann", url, { session });
  sayAll(ann, [sent("a", "1"), sent("b", "2"), sent("again", "1")]);
  const acks = [await nextOf(ann, "ack"), await nextOf(ann, "ack"), await nextOf(ann, "ack")];
  assertEquals(acks.map(({ id, seq }) => [id, seq]), [["1", 1], ["2", 2], ["1", 1]]);
  assertEquals(acks[2], acks[0]);
  await ann.close();
  await using back = await joinAs("Ann", url, { session });
  sayAll(back, [sent("again", "2"), sent("c", "3")]);
  assertEquals(await take(back, 2).then((all) => all.map(({ id, seq }) => [id, seq])), [
    ["2", 2],
    ["3", 3],
  ]);
  await nextOf(back, "chat");
  assertEquals(messagesOf(await settled(bob)), ["a", "b", "c"]);
});

Deno.test("two clients of one name with their own sessions never swallow each other's messages", async () => {
  await using server = await startServer();
  const url = `${server.ws}/chat/ops`;
  await using one = await joinAs("Ann", url, { session });
  await using two = await joinAs("Ann", url, { session: other });
  await using bare = await joinAs("Ann", url);
  await using bare2 = await joinAs("Ann", url);
  const places: unknown[] = [];
  for (const client of [one, two, bare, bare2]) {
    client.send(sent("hi", "1"));
    places.push((await nextOf(client, "ack")).seq);
  }
  assertEquals(places, [1, 2, 3, 4]);
  bare.send(sent("hi", "1"));
  assertEquals((await nextOf(bare, "ack")).seq, 3, "without a session, the socket is one");
});

Deno.test("an id counts in its session though the join before it is not answered yet", async () => {
  const { connect, engine } = oneMember();
  const { join } = engine;
  engine.join = async (...args) => await join.apply(engine, args);
  for (let i = 0; i < 2; i++) {
    const socket = await connect("/chat/ops", { dialect: "v1" });
    sayAll(socket, [{ type: "join", name: "Ann", session }, sent("once", "1")]);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { seq } = await engine.read("ops") as { seq: number };
  assertEquals(seq, 1);
});

Deno.test("an id counts in its room", async () => {
  const { join, send } = oneMember();
  const ann = await join({ session });
  ann.say({ type: "join", name: "Ann", room: "dev" });
  assertEquals(send(ann, ["1", "2"]), [1, 2]);
  assertEquals(send(ann, ["2", "1"], "dev"), [1, 2]);
  assertEquals(send(ann, ["1", "2"]), [1, 2]);
});

Deno.test("an id is remembered for 5 minutes", async () => {
  const { join, send, clock } = oneMember();
  const ann = await join({ session });
  assertEquals(send(ann, ["1"]), [1]);
  clock.tick(5 * MINUTE_MS - 1);
  assertEquals(send(ann, ["1"]), [1]);
  clock.tick(1);
  assertEquals(send(ann, ["1", "1"]), [2, 2]);
});

Deno.test("the last 1,000 ids of a room and session are remembered", async () => {
  // All of them come in one turn.
  const { join, send } = oneMember({ MAX_QUEUE_BYTES: 8_000_000 });
  const ann = await join({ session });
  const ids = range(1, 1_000).map(String);
  assertEquals(send(ann, ids), range(1, 1_000));
  const bob = await join({ session: other });
  assertEquals(send(bob, ["1"]), [1_001]);
  assertEquals(send(ann, ids), range(1, 1_000));
  assertEquals(send(ann, ["1001"]), [1_002]);
  assertEquals(send(ann, ids.slice(1)), range(2, 1_000));
  assertEquals(send(ann, ["1"]), [1_003], "the oldest made room");
  assertEquals(send(bob, ["1"]), [1_001], "each session has its own");
});

Deno.test("a repeat is known after everybody left, and after its message is gone", async () => {
  const { join, send, registry } = oneMember({ HISTORY_SIZE: 1 });
  const ann = await join({ session });
  assertEquals(send(ann, ["1", "2", "3"]), [1, 2, 3]);
  ann.end();
  assertEquals(registry.rooms.size, 0);
  assertEquals(send(await join({ session }), ["1", "2", "4"]), [1, 2, 4]);
});

Deno.test("more ids than a quarter of HISTORY_MB holds push out the oldest, and no message is refused", async () => {
  const { join, send, engine } = oneMember({ HISTORY_MB: 1 });
  const places: unknown[] = [];
  for (let index = 0; index < 5; index++) {
    const ann = await join({ session: `${session}-${index}` });
    places.push(...send(ann, range(1, 900).map(String)));
    ann.end();
    // In one turn no room takes all of them.
    await new Promise((resolve) => setTimeout(resolve));
  }
  assertEquals(places, range(1, 4_500));
  const { historyBytes } = engine.stats();
  assertEquals(historyBytes <= 1_000_000, true, `${historyBytes} bytes are kept`);
  assertEquals(send(await join({ session: `${session}-4` }), ["1", "900"]), [3_601, 4_500]);
  assertEquals(send(await join({ session: `${session}-0` }), ["1"]), [4_501], "long forgotten");
});
