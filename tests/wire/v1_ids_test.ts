/**
 * `id` and `session`: a message that is sent again is told once. `handlers/README.md`, `parley.v1`.
 */
import { assertEquals } from "@std/assert";
import { Turn } from "../../handlers/registry/flush.ts";
import type { Fields } from "../support/clients.ts";
import { createTestApp, type FakeSocket, type TestAppOptions } from "../support/fakes.ts";
import { startServer } from "../support/servers.ts";
import { joinAs, messagesOf, nextOf, range, sayAll, settled, take } from "../support/v1.ts";

const session = "0123456789abcdef";
const other = "fedcba9876543210";
const MINUTE_MS = 60_000;
const chat = (message: unknown, id: string, more: Fields = {}) => ({
  type: "chat",
  message,
  id,
  ...more,
});

/** A server of fakes with a member, and what its messages are answered with. */
function quietRoom(settings: TestAppOptions["settings"] = {}) {
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
    sayAll(socket, ids.map((id) => chat(id, id, { room })));
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
  sayAll(ann, [chat("a", "1"), chat("b", "2"), chat("again", "1")]);
  const acks = [await nextOf(ann, "ack"), await nextOf(ann, "ack"), await nextOf(ann, "ack")];
  assertEquals(acks.map(({ id, seq }) => [id, seq]), [["1", 1], ["2", 2], ["1", 1]]);
  assertEquals(acks[2], acks[0]);
  await ann.close();
  await using back = await joinAs("Ann", url, { session });
  sayAll(back, [chat("again", "2"), chat("c", "3")]);
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
    client.send(chat("hi", "1"));
    places.push((await nextOf(client, "ack")).seq);
  }
  assertEquals(places, [1, 2, 3, 4]);
  bare.send(chat("hi", "1"));
  assertEquals((await nextOf(bare, "ack")).seq, 3, "without a session, the socket is one");
});

Deno.test("an id counts in its session though the join before it is not answered yet", async () => {
  const { connect, engine } = quietRoom();
  const { join } = engine;
  engine.join = async (...args) => await join.apply(engine, args);
  for (let i = 0; i < 2; i++) {
    const socket = await connect("/chat/ops", { dialect: "v1" });
    sayAll(socket, [{ type: "join", name: "Ann", session }, chat("once", "1")]);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { seq } = await engine.read("ops") as { seq: number };
  assertEquals(seq, 1);
});

Deno.test("an id counts in its room", async () => {
  const { join, send } = quietRoom();
  const ann = await join({ session });
  ann.say({ type: "join", name: "Ann", room: "dev" });
  assertEquals(send(ann, ["1", "2"]), [1, 2]);
  assertEquals(send(ann, ["2", "1"], "dev"), [1, 2]);
  assertEquals(send(ann, ["1", "2"]), [1, 2]);
});

Deno.test("an id is remembered for 5 minutes", async () => {
  const { join, send, clock } = quietRoom();
  const ann = await join({ session });
  assertEquals(send(ann, ["1"]), [1]);
  clock.tick(5 * MINUTE_MS - 1);
  assertEquals(send(ann, ["1"]), [1]);
  clock.tick(1);
  assertEquals(send(ann, ["1", "1"]), [2, 2]);
});

Deno.test("the last 1,000 ids of a room and session are remembered", async () => {
  const { join, send } = quietRoom();
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
  const { join, send, registry } = quietRoom({ HISTORY_SIZE: 1 });
  const ann = await join({ session });
  assertEquals(send(ann, ["1", "2", "3"]), [1, 2, 3]);
  ann.end();
  assertEquals(registry.rooms.size, 0);
  assertEquals(send(await join({ session }), ["1", "2", "4"]), [1, 2, 4]);
});

Deno.test("more ids than a quarter of HISTORY_MB holds push out the oldest, and no message is refused", async () => {
  const { join, send, engine } = quietRoom({ HISTORY_MB: 1 });
  const places: unknown[] = [];
  for (let index = 0; index < 5; index++) {
    const ann = await join({ session: `${session}-${index}` });
    places.push(...send(ann, range(1, 900).map(String)));
    ann.end();
  }
  assertEquals(places, range(1, 4_500));
  const { historyBytes } = engine.stats();
  assertEquals(historyBytes <= 1_000_000, true, `${historyBytes} bytes are kept`);
  assertEquals(send(await join({ session: `${session}-4` }), ["1", "900"]), [3_601, 4_500]);
  assertEquals(send(await join({ session: `${session}-0` }), ["1"]), [4_501], "long forgotten");
});
