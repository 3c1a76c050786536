/**
 * The dialect `parley.v1` line by line: who says what, and what everybody hears. `handlers/README.md`.
 */
import { setImmediate } from "node:timers";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Client, type Fields, RawClient } from "../support/clients.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { createTestApp } from "../support/fakes.ts";
import { startServer } from "../support/servers.ts";
import { hear, joinAs, nextOf, sayAll, settled, take, timeless } from "../support/v1.ts";

const INVALID = "Invalid message format or not joined.";

Deno.test("a client that offers parley.v1 gets it, whatever the order and spacing", async () => {
  await using server = await startServer();
  const cases = {
    "parley.v1": true,
    "chat.v9, parley.v1": true,
    "parley.v1,other": true,
    "a,b ,parley.v1  ,  c": true,
    "parley.v2": false,
    "xparley.v1, Parley.V1": false,
  };
  for (const [offer, isTaken] of Object.entries(cases)) {
    using client = await RawClient.open(`${server.ws}/chat/ops`, {
      "sec-websocket-protocol": offer,
    });
    assertEquals(client.status, 101, offer);
    const answer = /^sec-websocket-protocol: *(.*)\r$/im.exec(client.head)?.[1];
    assertEquals(answer, isTaken ? "parley.v1" : undefined, offer);
  }
});

Deno.test("plain and v1 clients share a room and see one order, each in its dialect", async () => {
  await using server = await startServer();
  const url = `${server.ws}/chat/ops`;
  await using plain = await Client.join(url, "Ann");
  await using v1 = await joinAs("Bob", url);
  assertEquals(await plain.nextObject(), { type: "status", message: "Bob joined the chat." });
  plain.send({ type: "chat", message: { deep: [1, null, "é"] } });
  sayAll(v1, [{ type: "chat", message: 2 }, { type: "chat" }, { type: "chat", message: "" }]);
  const heard = await take(v1, 4);
  const order = heard.map(({ sender, message }) => ({ type: "chat", sender, message }));
  assertEquals(await take(plain, 4), order);
  assertEquals(heard.map(({ seq }) => seq), [1, 2, 3, 4]);
  const [first] = heard.filter(({ sender }) => sender === "Ann");
  const { seq } = first;
  const expected = { type: "chat", room: "ops", seq, sender: "Ann", message: order[+seq! - 1] };
  assertEquals(timeless(first), { ...expected, message: { deep: [1, null, "é"] } });
});

Deno.test("the first thing heard of a room is its welcome, the very first with limits", async () => {
  await using server = await startServer();
  const { client, welcome } = await hear(`${server.ws}/chat/ops`);
  await using ann = client;
  const { epoch, ...rest } = welcome;
  assertMatch(String(epoch), /^[\w-]{8,64}$/);
  const limits = { messageBytes: 65_536 };
  assertEquals(rest, { type: "welcome", room: "ops", seq: 0, members: 0, limits });
  sayAll(ann, [{ type: "join", name: "Ann" }, { type: "chat", message: 1 }]);
  await nextOf(ann, "chat");
  const later = await hear(`${server.ws}/chat/ops`);
  await using _bob = later.client;
  const second = { type: "welcome", room: "ops", epoch, seq: 1, members: 1, limits };
  assertEquals(later.welcome, second);
  sayAll(later.client, [{ type: "listen", room: "dev" }]);
  assertEquals("limits" in await nextOf(later.client, "welcome"), false);
  const lobby = await hear(`${server.ws}/chat`);
  await using _eve = lobby.client;
  assertEquals(lobby.welcome.room, "lobby");
});

Deno.test("join, a new name and leave are told to the room as status", async () => {
  await using server = await startServer();
  const { client: eve } = await hear(`${server.ws}/chat/ops`);
  await using _ = eve;
  await using ann = (await hear(`${server.ws}/chat/ops`)).client;
  const status = { type: "status", room: "ops", members: 1 };
  const joined = { ...status, event: "join", name: "Ann", message: "Ann joined the chat." };
  ann.send({ type: "join", name: "Ann" });
  assertEquals([await ann.nextObject(), await eve.nextObject()], [joined, joined]);
  const renamed = { ...joined, name: "Anne", was: "Ann", message: "Anne joined the chat." };
  ann.send({ type: "join", name: "Anne" });
  assertEquals([await ann.nextObject(), await eve.nextObject()], [renamed, renamed]);
  ann.send({ type: "chat", message: 1 });
  assertEquals((await ann.nextObject()).sender, "Anne");
  ann.send({ type: "leave" });
  assertEquals(await settled(ann), []);
  const left = { ...status, event: "leave", name: "Anne", members: 0 };
  assertEquals(await eve.nextObject().then(timeless).then(({ seq }) => seq), 1);
  assertEquals(await eve.nextObject(), { ...left, message: "Anne left the chat." });
});

Deno.test("a member without a name is Anonymous, and its end is a leave", async () => {
  await using server = await startServer();
  await using eve = (await hear(`${server.ws}/chat/ops`)).client;
  const { client: ann } = await hear(`${server.ws}/chat/ops`);
  ann.send({ type: "join" });
  assertEquals((await eve.nextObject()).name, "Anonymous");
  await ann.close();
  const { event, members } = await eve.nextObject();
  assertEquals({ event, members }, { event: "leave", members: 0 });
});

Deno.test("leave ends the hearing, too, and a later join begins anew", async () => {
  await using server = await startServer();
  await using ann = await joinAs("Ann", `${server.ws}/chat/ops`);
  await using bob = await joinAs("Bob", `${server.ws}/chat/ops`);
  assertEquals((await ann.nextObject()).name, "Bob");
  sayAll(ann, [{ type: "leave" }, { type: "chat", message: 0, id: "0" }]);
  const refused = { type: "error", code: "not_joined", message: INVALID, id: "0" };
  assertEquals(await ann.nextObject(), refused);
  bob.send({ type: "chat", message: 1 });
  await nextOf(bob, "chat");
  assertEquals(await settled(ann), []);
  ann.send({ type: "join", name: "Ann" });
  const [welcome, status] = await take(ann, 2);
  assertEquals([welcome.type, welcome.seq, welcome.members], ["welcome", 1, 1]);
  assertEquals([status.event, status.members], ["join", 2]);
});

Deno.test("one socket hears several rooms, and speaks where it has joined", async () => {
  await using server = await startServer();
  await using ann = (await hear(`${server.ws}/chat/ops`)).client;
  sayAll(ann, [
    { type: "listen", room: "dev" },
    { type: "listen", room: "dev" },
    { type: "join", room: "qa", name: "Ann" },
    { type: "chat", room: "qa", message: "q", id: "1" },
    { type: "chat", room: "dev", message: "d", id: "2" },
    { type: "chat", message: "o", id: "3" },
  ]);
  const heard = await settled(ann);
  assertEquals(heard.map(({ type, room }) => [type, room]), [
    ["welcome", "dev"],
    ["welcome", "qa"],
    ["ack", "qa"],
    ["error", "dev"],
    ["error", undefined],
    ["status", "qa"],
    ["chat", "qa"],
  ]);
  await using bob = await joinAs("Bob", `${server.ws}/chat/dev`);
  bob.send({ type: "chat", message: "hi" });
  const [status, chat] = await take(ann, 2);
  assertEquals([status.room, chat.room, chat.seq, chat.message], ["dev", "dev", 1, "hi"]);
});

Deno.test("a socket hears at most MAX_ROOMS_PER_CONNECTION rooms", async () => {
  await using server = await startServer({ MAX_ROOMS_PER_CONNECTION: 3, JOIN_RATE: 0 });
  await using ann = (await hear(`${server.ws}/chat/a`)).client;
  sayAll(ann, [
    { type: "listen", room: "b" },
    { type: "join", room: "c", name: "Ann" },
    { type: "listen", room: "d" },
    { type: "join", room: "e", name: "Ann" },
  ]);
  const heard = await settled(ann);
  const error = { type: "error", code: "too_many_rooms", message: "Too many rooms." };
  const errors = heard.filter(({ type }) => type === "error");
  assertEquals(errors, [{ ...error, room: "d" }, { ...error, room: "e" }]);
  sayAll(ann, [{ type: "leave", room: "b" }]);
  await settled(ann);
  ann.send({ type: "listen", room: "d" });
  assertEquals((await ann.nextObject()).room, "d");
});

Deno.test("members answers with the names, sorted, one a socket where no token says who it is", async () => {
  await using server = await startServer();
  const url = `${server.ws}/chat/ops`;
  await using _b1 = await joinAs("Bob", url);
  await using _z = await joinAs("Zoe", url);
  await using _b2 = await joinAs("Bob", url);
  await using ann = (await hear(url)).client;
  ann.send({ type: "members" });
  const names = ["Bob", "Bob", "Zoe"];
  assertEquals(await ann.nextObject(), { type: "members", room: "ops", members: names, count: 3 });
  ann.send({ type: "members", room: "dev" });
  assertEquals((await ann.nextObject()).code, "not_joined");
});

Deno.test("members tells at most 1,000 names, and counts all", async () => {
  const turn = new Turn(() => {});
  const { connect } = createTestApp({ turn });
  const sockets = [];
  for (let index = 0; index < 1_002; index++) {
    const socket = await connect("/chat/ops", { dialect: "v1" });
    socket.say({ type: "join", name: `n${String(index).padStart(4, "0")}` });
    sockets.push(socket);
  }
  turn.flush();
  const [ann] = sockets;
  ann.take();
  ann.say({ type: "members" });
  turn.flush();
  const [{ members, count }] = ann.objects as { members: string[]; count: number }[];
  assertEquals([members.length, members[0], members[999], count], [1_000, "n0000", "n0999", 1_002]);
});

Deno.test("ping is answered by pong, with the id it had", async () => {
  await using server = await startServer();
  await using ann = (await hear(`${server.ws}/chat/ops`)).client;
  sayAll(ann, [{ type: "ping" }, { type: "ping", id: "7" }]);
  assertEquals(await take(ann, 2), [{ type: "pong" }, { type: "pong", id: "7" }]);
});

Deno.test("a chat with an id is acked with its place, one without is not", async () => {
  await using server = await startServer();
  const { client: ann, welcome: { epoch } } = await hear(`${server.ws}/chat/ops`);
  await using _ = ann;
  sayAll(ann, [
    { type: "join", name: "Ann", extra: 1 },
    { type: "chat", message: "a" },
    { type: "chat", message: "b", id: "b", extra: 1 },
  ]);
  const heard = await settled(ann);
  const acks = heard.filter(({ type }) => type === "ack");
  assertEquals(acks, [{ type: "ack", id: "b", room: "ops", epoch, seq: 2 }]);
  assertEquals(heard.filter(({ type }) => type === "chat").map(({ seq }) => seq), [1, 2]);
});

Deno.test("what cannot be done is answered with an error's code, and the socket stays", async () => {
  await using server = await startServer({ MESSAGE_RATE: 0 });
  await using ann = (await hear(`${server.ws}/chat/ops`)).client;
  const long = "x".repeat(65);
  const cases: [string | Fields, string, Fields?][] = [
    ["nonsense", "bad_json"],
    ["", "bad_json"],
    ["[]", "bad_message"],
    ["null", "bad_message"],
    ["1", "bad_message"],
    [{}, "bad_message"],
    [{ type: "dance", id: "1" }, "bad_message", { id: "1" }],
    [{ type: "chat", message: 1 }, "not_joined"],
    [{ type: "chat", message: 1, id: "1", room: "dev" }, "not_joined", { id: "1", room: "dev" }],
    [{ type: "chat", message: 1, id: 1 }, "bad_message"],
    [{ type: "chat", message: 1, id: "" }, "bad_message"],
    [{ type: "chat", message: 1, id: long }, "bad_message"],
    [{ type: "join", name: "" }, "bad_name"],
    [{ type: "join", name: long }, "bad_name"],
    [{ type: "join", name: "a\u202eb" }, "bad_name"],
    [{ type: "join", name: "a\nb", room: "dev" }, "bad_name", { room: "dev" }],
    [{ type: "join", name: 7 }, "bad_name"],
    [{ type: "join", name: "Ann", session: "short" }, "bad_message"],
    [{ type: "join", name: "Ann", session: long }, "bad_message"],
    [{ type: "join", name: "Ann", room: "a b" }, "bad_room"],
    [{ type: "listen" }, "bad_message"],
    [{ type: "listen", room: "" }, "bad_room"],
    [{ type: "listen", room: long }, "bad_room"],
    [{ type: "leave", room: 1 }, "bad_room"],
    [{ type: "members", room: "ö" }, "bad_room"],
    [{ type: "join", name: "Ann", room: "_stats" }, "forbidden", { room: "_stats" }],
    [{ type: "chat", message: 1, room: "_stats", id: "1" }, "forbidden", {
      id: "1",
      room: "_stats",
    }],
  ];
  for (const [said, code, about = {}] of cases) {
    ann.send(said);
    const { message, ...error } = await ann.nextObject();
    assertEquals(error, { type: "error", code, ...about }, JSON.stringify(said));
    assertEquals(typeof message, "string");
  }
  assertEquals(await settled(ann), []);
});

Deno.test("the server's own rooms can be heard", async () => {
  await using server = await startServer();
  const { client: ann, welcome } = await hear(`${server.ws}/chat/_a`);
  await using _ = ann;
  assertEquals(welcome.room, "_a");
  ann.send({ type: "listen", room: "_b" });
  assertEquals((await ann.nextObject()).room, "_b");
});

Deno.test("ten seconds of unbroken refusals end the socket with 1008", async () => {
  const { connect, clock } = createTestApp({
    settings: { BYTE_RATE: 1, MAX_MESSAGE_BYTES: 4_000_000 },
  });
  const bob = await connect("/chat/ops", { dialect: "v1" });
  const ping = { type: "ping", padding: "x".repeat(2_000) };
  bob.say(ping);
  for (let seconds = 0; seconds < 10; seconds++) {
    bob.say(ping);
    assertEquals(bob.closes, []);
    clock.tick(1_000);
  }
  bob.say(ping);
  assertEquals(bob.closes, [{ code: 1008, reason: "rate limited" }]);
});

Deno.test("a frame over MAX_MESSAGE_BYTES ends the socket with 1009", async () => {
  await using server = await startServer({ MAX_MESSAGE_BYTES: 1_000 });
  await using ann = await joinAs("Ann", `${server.ws}/chat/ops`);
  ann.send({ type: "chat", message: "é".repeat(400) });
  assertEquals((await ann.nextObject()).seq, 1);
  ann.send({ type: "chat", message: "é".repeat(500) });
  const { code, reason } = await ann.closed;
  assertEquals([code, reason], [1009, "message too big"]);
});

Deno.test("a peer that does not read is out of its rooms at once, with 1013", async () => {
  const turn = new Turn(() => {});
  const { connect, registry } = createTestApp({
    turn,
    settings: { MAX_QUEUE_BYTES: 100_000, MESSAGE_RATE: 0, BYTE_RATE: 0 },
  });
  const slow = await connect("/chat/ops", { dialect: "v1" });
  slow.say({ type: "join", name: "Slow" });
  const ann = await connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  slow.isStuck = true;
  for (let count = 0; count < 10; count++) {
    ann.say({ type: "chat", message: "x".repeat(9_000) });
    // The room takes all of them, though not in one turn.
    if (count % 5 === 4) await new Promise<void>((resolve) => setImmediate(resolve));
  }
  turn.flush();
  assertEquals([slow.closes, registry.clients.size], [[], 2]);
  for (let count = 0; count < 2; count++) ann.say({ type: "chat", message: "x".repeat(9_000) });
  turn.flush();
  assertEquals(slow.closes, [{ code: 1013, reason: "too slow" }]);
  assertEquals(registry.rooms.get("ops")?.subscriberCount, 1);
  turn.flush();
  assertEquals((ann.objects.at(-1) as Fields).message, "Slow left the chat.");
});

Deno.test("a server that drains says bye with a time to come back, then closes with 1001", async () => {
  const server = await startServer({ DRAIN_SECONDS: 0.25 });
  const clients = [];
  for (let count = 0; count < 8; count++) {
    clients.push((await hear(`${server.ws}/chat/ops`)).client);
  }
  const stopped = server[Symbol.asyncDispose]();
  const retries = new Set<unknown>();
  for (const client of clients) {
    const { type, retry } = await client.nextObject();
    assertEquals(type, "bye");
    assert(Number(retry) >= 250 && Number(retry) <= 500, `retry is ${retry}`);
    retries.add(retry);
    const { code, reason } = await client.closed;
    assertEquals([code, reason], [1001, "going away"]);
  }
  assert(retries.size > 4, "they would all come back at once");
  await stopped;
});
