/**
 * The two programs that Parley grew from, an echo client and a chat of two, over real sockets.
 */
import { assert, assertEquals } from "@std/assert";
import { Client, OPCODE, RawClient } from "../support/clients.ts";
import { startServer, type TestServer } from "../support/servers.ts";

const status = (message: string) => ({ type: "status", message });
const error = (message: string) => ({ type: "error", message });
const chat = (sender: string, message: unknown) => ({ type: "chat", sender, message });

/** A room with two people who have read what their arrival caused. */
async function pair(server: TestServer, room = "lobby"): Promise<[Client, Client]> {
  const ann = await Client.join(`${server.ws}/chat/${room}`, "Ann");
  const bob = await Client.join(`${server.ws}/chat/${room}`, "Bob");
  assertEquals(await ann.nextObject(), status("Bob joined the chat."));
  return [ann, bob];
}

/** Checks that nobody is left: no room, no client. */
async function assertEmpty(server: TestServer): Promise<void> {
  assertEquals(await (await fetch(`${server.url}/rooms`)).json(), { rooms: [] });
  assertEquals(server.registry.clients.size, 0);
  assertEquals(server.registry.rooms.size, 0);
}

Deno.test("an echo client hears each of its texts behind Echo:", async () => {
  await using server = await startServer();
  for (const path of ["/echo", "/"]) {
    await using client = await Client.open(server.ws + path);
    for (const text of ["Hello", "", "two\nlines", '{"type":"join"}']) {
      client.send(text);
      assertEquals(await client.next(), `Echo: ${text}`);
    }
  }
});

Deno.test("an echo client chooses another prefix, or none", async () => {
  await using server = await startServer();
  await using shout = await Client.open(`${server.ws}/echo?prefix=%3E%20`);
  shout.send("Hello");
  assertEquals(await shout.next(), "> Hello");
  await using bare = await Client.open(`${server.ws}/echo?prefix=`);
  bare.send("Hello");
  assertEquals(await bare.next(), "Hello");
});

Deno.test("an echo client gets its bytes back unchanged", async () => {
  await using server = await startServer();
  await using client = await Client.open(`${server.ws}/echo`);
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
  client.send(bytes);
  assertEquals(await client.next(), bytes);
});

Deno.test("two people join, chat and leave, and read the same words", async () => {
  await using server = await startServer();
  await using ann = await Client.open(`${server.ws}/chat`);
  ann.send({ type: "join", name: "Ann" });
  assertEquals(await ann.nextObject(), status("Ann joined the chat."));
  await using bob = await Client.open(`${server.ws}/chat/lobby`);
  bob.send({ type: "join", name: "Bob" });
  for (const one of [ann, bob]) {
    assertEquals(await one.nextObject(), status("Bob joined the chat."));
  }
  ann.send({ type: "chat", message: "Hello, Bob" });
  bob.send({ type: "chat", message: "Hello, Ann" });
  const heard = await Promise.all([ann, bob].map(async (one) => [
    await one.nextObject(),
    await one.nextObject(),
  ]));
  assertEquals(heard[0], heard[1]);
  assertEquals(
    heard[0].toSorted((a, b) => String(a.sender) < String(b.sender) ? -1 : 1),
    [chat("Ann", "Hello, Bob"), chat("Bob", "Hello, Ann")],
  );
  await bob.close();
  assertEquals(await ann.nextObject(), status("Bob left the chat."));
});

Deno.test("a socket that has not joined hears the room and may not speak", async () => {
  await using server = await startServer();
  await using guest = await Client.open(`${server.ws}/chat`);
  await using ann = await Client.join(`${server.ws}/chat`, "Ann");
  assertEquals(await guest.nextObject(), status("Ann joined the chat."));
  for (const message of [{ type: "chat", message: "Hi" }, new Uint8Array([1])]) {
    guest.send(message);
    assertEquals(await guest.nextObject(), error("Invalid message format or not joined."));
  }
  ann.send({ type: "chat", message: "Anybody?" });
  assertEquals(await ann.nextObject(), chat("Ann", "Anybody?"));
  assertEquals(await guest.nextObject(), chat("Ann", "Anybody?"));
});

Deno.test("what is no JSON, or JSON of another shape, is an error for its sender alone", async () => {
  await using server = await startServer();
  const [ann, bob] = await pair(server);
  for (const text of ["Hello", "", "{", "{'type':'chat'}"]) {
    bob.send(text);
    assertEquals(await bob.nextObject(), error("Invalid JSON format."), text);
  }
  for (const text of ["1", "null", "[]", "{}", '{"type":"dance"}', '"chat"']) {
    bob.send(text);
    assertEquals(await bob.nextObject(), error("Invalid message format or not joined."), text);
  }
  bob.send({ type: "join", name: "two\nlines" });
  assertEquals(await bob.nextObject(), error("Invalid name."));
  bob.send({ type: "chat", message: "still here" });
  assertEquals(await ann.nextObject(), chat("Bob", "still here"));
  await ann.close();
  await bob.close();
});

Deno.test("who joins without a name is Anonymous, and may take a name later", async () => {
  await using server = await startServer();
  await using guest = await Client.open(`${server.ws}/chat`);
  guest.send({ type: "join" });
  assertEquals(await guest.nextObject(), status("Anonymous joined the chat."));
  guest.send({ type: "join", name: "Ann" });
  assertEquals(await guest.nextObject(), status("Ann joined the chat."));
  guest.send({ type: "chat", message: 1 });
  assertEquals(await guest.nextObject(), chat("Ann", 1));
});

Deno.test("a chat without a message says the empty text, and any JSON value is a message", async () => {
  await using server = await startServer();
  await using ann = await Client.join(`${server.ws}/chat`, "Ann");
  ann.send({ type: "chat" });
  assertEquals(await ann.nextObject(), chat("Ann", ""));
  for (const message of [null, false, 0, [1, [2]], { a: { b: "c" } }]) {
    ann.send({ type: "chat", message });
    assertEquals(await ann.nextObject(), chat("Ann", message));
  }
});

Deno.test("who closes has left the chat, with the code in the log", async () => {
  await using server = await startServer();
  const [ann, bob] = await pair(server);
  await bob.close(1000);
  assertEquals(await ann.nextObject(), status("Bob left the chat."));
  const { level, text } = await server.log.when("disconnected");
  assertEquals(level, "info");
  assert(/cleanly.*1000.*Total clients: 1/.test(text), text);
  await ann.close();
  await server.log.when("disconnected", ({ clients }) => clients === 0);
  await assertEmpty(server);
});

Deno.test("whose connection drops has left the chat, and that is no error of the server", async () => {
  await using server = await startServer();
  await using ann = await Client.join(`${server.ws}/chat`, "Ann");
  using bob = await RawClient.open(`${server.ws}/chat`);
  await bob.send('{"type":"join","name":"Bob"}');
  assertEquals(await ann.nextObject(), status("Bob joined the chat."));
  bob.drop();
  assertEquals(await ann.nextObject(), status("Bob left the chat."));
  const { level, text } = await server.log.when("disconnected");
  assertEquals(level, "info");
  assert(/closed with error.*Total clients: 1/.test(text), text);
});

Deno.test("two rooms do not hear each other", async () => {
  await using server = await startServer();
  await using red = await Client.join(`${server.ws}/chat/red`, "Ann");
  await using blue = await Client.join(`${server.ws}/chat/blue`, "Bob");
  red.send({ type: "chat", message: "in red" });
  assertEquals(await red.nextObject(), chat("Ann", "in red"));
  red.send(new Uint8Array([1, 2, 3]));
  red.send({ type: "chat", message: "red again" });
  assertEquals(await red.nextObject(), chat("Ann", "red again"));
  blue.send({ type: "chat", message: "in blue" });
  assertEquals(await blue.nextObject(), chat("Bob", "in blue"));
  const { rooms } = await (await fetch(`${server.url}/rooms`)).json();
  assertEquals(rooms, [
    { room: "blue", members: 1, listeners: 1, seq: 1 },
    { room: "red", members: 1, listeners: 1, seq: 2 },
  ]);
  await red.close();
  // Nothing of red, not even the end of its last member.
  blue.send({ type: "chat", message: "alone" });
  assertEquals(await blue.nextObject(), chat("Bob", "alone"));
});

Deno.test("a binary frame goes to all others of the room, behind the text before it", async () => {
  await using server = await startServer();
  const [ann, bob] = await pair(server);
  await using guest = await Client.open(`${server.ws}/chat`);
  const bytes = new Uint8Array([0, 255, 1, 254]);
  ann.send({ type: "chat", message: "before" });
  ann.send(bytes);
  ann.send({ type: "chat", message: "after" });
  assertEquals(await ann.nextObject(), chat("Ann", "before"));
  assertEquals(await ann.nextObject(), chat("Ann", "after"));
  for (const one of [bob, guest]) {
    assertEquals(await one.nextObject(), chat("Ann", "before"));
    assertEquals(await one.next(), bytes);
    assertEquals(await one.nextObject(), chat("Ann", "after"));
  }
  await ann.close();
  await bob.close();
});

/** Sends as fast as it hears itself; a platform socket would wait for each acknowledgement. */
async function say(sender: RawClient, message: unknown): Promise<unknown> {
  await sender.send(JSON.stringify({ type: "chat", message }));
  return JSON.parse(await sender.readText());
}

Deno.test("a peer that never reads is counted out all the same, and its end empties the server", async () => {
  await using server = await startServer({
    MAX_QUEUE_BYTES: 100_000,
    MESSAGE_RATE: 0,
    BYTE_RATE: 0,
  });
  using ann = await RawClient.open(`${server.ws}/chat`);
  await ann.send('{"type":"join","name":"Ann"}');
  await ann.readText();
  using _stuck = await RawClient.open(`${server.ws}/chat`);
  while (server.registry.clients.size > 1) await say(ann, "x".repeat(60_000));
  assertEquals((await server.log.when("evicted")).fields.code, 1013);
  assertEquals(server.registry.rooms.get("lobby")?.subscriberCount, 1);
  ann.drop();
  await server.log.when("disconnected");
  await assertEmpty(server);
  assertEquals(server.registry.counters.connections, { plain: 0, v1: 0, echo: 0, events: 0 });
});

Deno.test("a message in fragments is one message, a ping in between is answered", async () => {
  await using server = await startServer();
  using echo = await RawClient.open(`${server.ws}/echo`);
  const { text, continuation, ping } = OPCODE;
  await echo.send("Hel", { opcode: text, fin: false });
  await echo.send("?", { opcode: ping });
  await echo.send("", { opcode: continuation, fin: false });
  await echo.send("lo", { opcode: continuation });
  assertEquals((await echo.read())?.opcode, OPCODE.pong);
  assertEquals(await echo.readText(), "Echo: Hello");

  await using ann = await Client.join(`${server.ws}/chat`, "Ann");
  using bob = await RawClient.open(`${server.ws}/chat`);
  await bob.send('{"type":"join","na', { opcode: text, fin: false });
  await bob.send('me":"Bob"}', { opcode: continuation });
  assertEquals(await ann.nextObject(), status("Bob joined the chat."));
});

Deno.test("a message of 60 kB goes through, in echo and in chat", async () => {
  await using server = await startServer();
  const long = "0123456789".repeat(6_000);
  await using echo = await Client.open(`${server.ws}/echo`);
  echo.send(long);
  assertEquals(await echo.next(), `Echo: ${long}`);
  const [ann, bob] = await pair(server);
  ann.send({ type: "chat", message: long });
  for (const one of [ann, bob]) {
    assertEquals(await one.nextObject(), chat("Ann", long));
    await one.close();
  }
});

Deno.test("Korean and emoji come through whole", async () => {
  await using server = await startServer();
  const text = "안녕하세요 👋🏽 👨‍👩‍👧‍👦 é e\u0301 ﷽ \u0000 \u2028";
  await using echo = await Client.open(
    `${server.ws}/echo?prefix=${encodeURIComponent("메아리: ")}`,
  );
  echo.send(text);
  assertEquals(await echo.next(), `메아리: ${text}`);
  await using client = await Client.open(`${server.ws}/chat/k`);
  client.send({ type: "join", name: "지민 🐻" });
  assertEquals(await client.nextObject(), status("지민 🐻 joined the chat."));
  client.send({ type: "chat", message: { [text]: text } });
  assertEquals(await client.nextObject(), chat("지민 🐻", { [text]: text }));
});

Deno.test("with a certificate the same port speaks wss and https", async () => {
  // Made once for tests, valid for localhost from 2020 to 2120: no test needs openssl.
  const file = (name: string) => new URL(`../tls/${name}`, import.meta.url).pathname;
  await using server = await startServer({
    TLS_CERT: file("localhost.pem"),
    TLS_KEY: file("localhost.key"),
  });
  using trusting = Deno.createHttpClient({
    caCerts: [Deno.readTextFileSync(file("localhost.pem"))],
  });
  assert(server.url.startsWith("https://"), server.url);
  await using ann = await Client.open(`${server.ws}/chat`, { client: trusting });
  ann.send({ type: "join", name: "Ann" });
  assertEquals(await ann.nextObject(), status("Ann joined the chat."));
  const health = await fetch(`${server.url}/healthz`, { client: trusting });
  assertEquals([health.status, await health.text()], [200, "ok\n"]);
});

Deno.test("on a Unix domain socket the same chat runs", {
  ignore: Deno.build.os === "windows",
}, async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/parley.sock`;
  {
    await using _server = await startServer({ SOCKET_PATH: path });
    const connect = () => Deno.connect({ transport: "unix", path });
    using ann = await RawClient.upgrade(await connect(), "/chat/ops");
    using bob = await RawClient.upgrade(await connect(), "/chat/ops");
    await ann.send('{"type":"join","name":"Ann"}');
    for (const one of [ann, bob]) {
      assertEquals(JSON.parse(await one.readText()), status("Ann joined the chat."));
    }
    await ann.send('{"type":"chat","message":"through a file"}');
    assertEquals(JSON.parse(await bob.readText()), chat("Ann", "through a file"));
  }
  await Deno.remove(folder, { recursive: true });
});
