/**
 * Several objects a frame, both ways, and the order of what a turn of the event loop brings.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { Turn } from "../../handlers/registry/flush.ts";
import { Client, type Fields } from "../support/clients.ts";
import { createTestApp, type FakeSocket } from "../support/fakes.ts";
import { startServer } from "../support/servers.ts";
import { hear, joinAs, messagesOf, range, sayAll, settled } from "../support/v1.ts";

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
