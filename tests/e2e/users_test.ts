// Users with several sockets, over one process, two workers, and two nodes with Redis.
import { assertEquals } from "@std/assert";
import { Client, type Fields } from "../support/clients.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { ServerProcess } from "../support/process.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";
import { startServer } from "../support/servers.ts";
import { hear, nextOf, settled } from "../support/v1.ts";

const EVENTS = ["join", "leave", "occupied", "vacated"] as const;
const FLAGS = ["--auth-secret", SECRET, "--events", EVENTS.join()];

/** What a server is reached by. */
type Place = { ws: string; url: string };

/** A user comes with three sockets and goes, on one or two servers of one system. */
async function comeAndGo(one: Place, two: Place): Promise<void> {
  const tokenOf = async (sub: string, name = "Ann") =>
    `token=${await sign({ sub, name, admin: sub === "backend" })}`;
  const admin = await tokenOf("backend");
  const { client: events } = await hear(`${one.ws}/chat/_events?${admin}`);
  const { client: watcher } = await hear(`${two.ws}/chat/ops?${admin}`);
  await using plainWatcher = await Client.open(`${one.ws}/chat/ops?${admin}`);
  const open = async (place: Place, protocol?: string, name?: string) => {
    const client = await Client.open(
      `${place.ws}/chat/ops?${await tokenOf("u1", name)}`,
      protocol,
    );
    if (protocol) assertEquals((await client.nextObject()).type, "welcome");
    client.send({ type: "join" });
    return client;
  };
  const ask = async (path: string) =>
    await (await fetch(`${two.url}/rooms/ops${path}?${admin}`)).json();
  const joined = {
    type: "status",
    room: "ops",
    event: "join",
    name: "Ann",
    user: "u1",
    members: 1,
  };
  const joinedText = { type: "status", message: "Ann joined the chat." };

  const first = await open(one);
  assertEquals(await first.nextObject(), joinedText);
  assertEquals(await plainWatcher.nextObject(), joinedText);
  assertEquals(await watcher.nextObject(), { ...joined, message: joinedText.message });
  // A further socket is told alone that it has joined.
  const second = await open(two, "parley.v1");
  assertEquals(await second.nextObject(), { ...joined, message: joinedText.message });
  const third = await open(two);
  assertEquals(await third.nextObject(), joinedText);
  watcher.send({ type: "members" });
  const count = 1;
  assertEquals(await watcher.nextObject(), {
    type: "members",
    room: "ops",
    members: ["Ann"],
    count,
  });
  const people = [{ name: "Ann", user: "u1", sockets: 3 }];
  assertEquals(await ask("/members"), { room: "ops", members: people, count });
  assertEquals((await ask("")).members, 1);
  // The newest name counts, for all of them.
  const fourth = await open(one, undefined, "Anna");
  const renamed = { ...joined, name: "Anna", was: "Ann", message: "Anna joined the chat." };
  assertEquals(await watcher.nextObject(), renamed);
  for (const client of [plainWatcher, first, third, fourth]) {
    assertEquals(await client.nextObject(), { type: "status", message: renamed.message });
  }
  for (const client of [second, first, fourth]) await client[Symbol.asyncDispose]();
  third.send({ type: "chat", message: "alone" });
  const chat = { type: "chat", sender: "Ann", message: "alone" };
  for (const client of [third, plainWatcher]) assertEquals(await client.nextObject(), chat);
  assertEquals((await watcher.nextObject()).message, "alone");
  await third[Symbol.asyncDispose]();
  const message = "Anna left the chat.";
  assertEquals(await plainWatcher.nextObject(), { type: "status", message });
  const left = { ...joined, event: "leave", name: "Anna", members: 0, message };
  assertEquals(await watcher.nextObject(), left);
  assertEquals(await settled(watcher), []);
  const said: Fields[] = [];
  for (const _ of EVENTS) said.push((await nextOf(events, "chat")).message as Fields);
  const n = said[0].n as number;
  assertEquals(said, [
    { event: "occupied", room: "ops", n, members: 1 },
    { event: "join", room: "ops", n: n + 1, name: "Ann", user: "u1", members: 1 },
    { event: "leave", room: "ops", n: n + 2, name: "Anna", user: "u1", members: 0 },
    { event: "vacated", room: "ops", n: n + 3, members: 0 },
  ]);
  for (const client of [events, watcher]) await client[Symbol.asyncDispose]();
}

Deno.test("a user with several sockets is one person, in each dialect", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET, EVENTS: [...EVENTS] });
  await comeAndGo(server, server);
});

Deno.test("a user's sockets on two workers are one person", async () => {
  await using server = await ServerProcess.start([...FLAGS, "--workers", "2"]);
  await comeAndGo(server, server);
});

redisTest("a user's sockets on two nodes are one person", async () => {
  await using redis = await RedisServer.start();
  const settings = { AUTH_SECRET: SECRET, EVENTS: [...EVENTS], REDIS_URL: redis.url };
  await using one = await startServer(settings);
  await using two = await startServer(settings);
  await comeAndGo(one, two);
});
