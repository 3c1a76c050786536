// What is promised over several processes: one process, one with a file, two workers, and two nodes with Redis do the same.
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { JWTPayload } from "jose";
import { redisEngine } from "../../handlers/engines.ts";
import { createParley } from "../../handlers/parley.ts";
import { Client, type Fields } from "../support/clients.ts";
import { type EventBlock, EventReader } from "../support/event_source.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { ServerProcess } from "../support/process.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";
import { eventually, untilHeard } from "../support/inbox.ts";
import { startServer } from "../support/servers.ts";
import { runTogether, together } from "../support/together.ts";
import { hear, joinAs, nextOf, settled, timeless } from "../support/v1.ts";

const EVENTS = ["join", "leave", "occupied", "vacated"] as const;

/** What a server is reached by. */
type Place = { ws: string; url: string };

/** Two servers of one system, or one twice, with a hook by URL. */
interface System {
  one: Place;
  two: Place;
  /** The query that bears a token. */
  tokenOf(claims: JWTPayload): Promise<string>;
  /** The query of a backend. */
  admin: string;
  /** Asks one of them as the backend. */
  ask(place: Place, method: string, path: string, body?: unknown, headers?: HeadersInit): Promise<
    { status: number; answer: Fields }
  >;
}

/** Settles when plain sockets hear a room at a place too: they are told nothing. */
async function untilAllHear(
  { one, two, admin }: Pick<System, "one" | "two" | "admin">,
  place: Place,
  room: string,
  count: number,
): Promise<void> {
  // All of one node hear it from the same moment on.
  if (one !== two) await (await hear(`${place.ws}/chat/${room}?${admin}`)).client.close();
  else await untilHeard(place.url, room, count, admin);
}

/** A user comes with three sockets and goes, on one or two servers of one system. */
async function comeAndGo({ one, two, tokenOf, admin }: System): Promise<void> {
  const { client: events, welcome } = await hear(`${one.ws}/chat/_events?${admin}`);
  const { client: watcher } = await hear(`${two.ws}/chat/ops?${admin}`);
  await using plainWatcher = await Client.open(`${one.ws}/chat/ops?${admin}`);
  await untilAllHear({ one, two, admin }, one, "ops", 2);
  const come = async (place: Place, protocol?: string, name = "Ann") => {
    const client = await Client.open(
      `${place.ws}/chat/ops?${await tokenOf({ sub: "u1", name })}`,
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

  const first = await come(one);
  assertEquals(await first.nextObject(), joinedText);
  assertEquals(await plainWatcher.nextObject(), joinedText);
  assertEquals(await watcher.nextObject(), { ...joined, message: joinedText.message });
  // A further socket is told alone that it has joined.
  const second = await come(two, "parley.v1");
  assertEquals(await second.nextObject(), { ...joined, message: joinedText.message });
  const third = await come(two);
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
  const fourth = await come(one, undefined, "Anna");
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
  const chats: Fields[] = [];
  for (const _ of EVENTS) chats.push(await nextOf(events, "chat"));
  const said = chats.map(({ message }) => message as Fields);
  const n = said[0].n as number;
  assertEquals(said, [
    { event: "occupied", room: "ops", n, members: 1 },
    { event: "join", room: "ops", n: n + 1, name: "Ann", user: "u1", members: 1 },
    { event: "leave", room: "ops", n: n + 2, name: "Anna", user: "u1", members: 0 },
    { event: "vacated", room: "ops", n: n + 3, members: 0 },
  ]);
  // A backend that was away goes on from where it was, on any server.
  const place = `${welcome.epoch}:${chats[1].seq}`;
  const follower = await open(two, `/rooms/_events/events?lastEventId=${place}&${admin}`);
  assertEquals(JSON.parse((await follower.next()).data!).recovered, true);
  for (const chat of chats.slice(2)) assertEquals(JSON.parse((await follower.next()).data!), chat);
  const page = await (await fetch(`${two.url}/rooms/_events/messages?after=${place}&${admin}`))
    .json();
  assertEquals([page.recovered, page.messages], [true, chats.slice(2)]);
  for (const client of [events, watcher, follower]) await client[Symbol.asyncDispose]();
}

async function publishMany({ one, two, ask }: System): Promise<void> {
  const messages = [
    { room: "many", message: 1, sender: "cron", key: "k" },
    { room: "bad room", message: 2 },
    { room: "many", message: 3 },
  ];
  const { status, answer } = await ask(one, "POST", "/rooms/messages", { messages });
  const [first, bad, third] = answer.results as Fields[];
  assertEquals([status, first.seq, third.seq], [200, 1, 2]);
  assertEquals((bad.error as Fields).code, "bad_room");
  const again = await ask(two, "POST", "/rooms/messages", { messages: messages.slice(0, 1) });
  assertEquals((again.answer.results as Fields[])[0], first);
  const page = async (query: string) => {
    const { status, answer } = await ask(two, "GET", `/rooms/many/messages${query}`);
    const messages = answer.messages as Fields[] | undefined;
    return [status, messages?.map(({ message }) => message) ?? answer.code, answer.recovered];
  };
  assertEquals(await page(`?before=${first.epoch}:2`), [200, [1], true]);
  assertEquals(await page(`?before=${first.epoch}:3&limit=1`), [200, [3], true]);
  assertEquals(await page("?before=other:2"), [200, [1, 3], false]);
  for (const query of ["?before=x", `?before=${first.epoch}:2&after=${first.epoch}:1`]) {
    assertEquals(await page(query), [400, "bad_cursor", undefined]);
  }
  const summary = { room: "many", members: 0, listeners: 0, seq: 2 };
  assertEquals((await ask(two, "GET", "/rooms/many")).answer, summary);
}

async function note({ one, two, ask, admin, tokenOf }: System): Promise<void> {
  const { client: watcher, welcome } = await hear(`${two.ws}/chat/notes?${admin}`);
  assertEquals(welcome.limits, { messageBytes: 65_536 });
  const plain = await Client.open(`${two.ws}/chat/notes?${admin}`);
  const events = await open(two, `/rooms/notes/events?${admin}`);
  assertEquals((await events.next()).event, "welcome");
  await untilAllHear({ one, two, admin }, two, "notes", 3);
  const posted = await ask(one, "POST", "/rooms/notes/notes", {
    message: { x: 1 },
    sender: "Backend",
  });
  assertEquals([posted.status, posted.answer], [202, { room: "notes" }]);
  const expected = { type: "note", room: "notes", sender: "Backend", message: { x: 1 } };
  assertEquals(timeless(await watcher.nextObject()), expected);
  const { event, data, id } = await events.next();
  assertEquals([event, id, timeless(JSON.parse(data!))], ["note", undefined, expected]);
  const ann = await joinAs("Ann", `${one.ws}/chat/notes?${await tokenOf({ sub: "Ann" })}`);
  ann.send({ type: "note", message: "typing" });
  ann.send({ type: "chat", message: "done" });
  assertEquals((await nextOf(watcher, "note")).message, "typing");
  assertEquals((await nextOf(watcher, "chat")).seq, 1);
  const texts = [await plain.nextObject(), await plain.nextObject()].map(({ message }) => message);
  assertEquals(texts, ["Ann joined the chat.", "done"]);
  for (const client of [watcher, plain, ann, events]) await client[Symbol.asyncDispose]();
}

/** What a number is reaches all, whoever wrote it; what a double cannot hold is refused. */
async function numbers({ one, two, admin, tokenOf }: System): Promise<void> {
  const plain = await Client.open(`${two.ws}/chat/numbers?${admin}`);
  const { client: watcher } = await hear(`${two.ws}/chat/numbers?state=1&${admin}`);
  await untilAllHear({ one, two, admin }, two, "numbers", 2);
  const ann = await joinAs("Ann", `${one.ws}/chat/numbers?${await tokenOf({ sub: "Ann" })}`);
  ann.send('{"type":"chat","message":[-0.0,1e-7,{"0":-0}],"id":"1"}');
  ann.send('{"type":"set","key":"k","value":{"x":-0.0},"id":"2"}');
  ann.send('{"type":"chat","message":9007199254740993,"id":"3"}');
  assertEquals((await nextOf(ann, "error")).id, "3");
  assertMatch(`${await plain.next()}`, /"Ann joined the chat."/);
  assertMatch(`${await plain.next()}`, /"message":\[-0,1e-7,\{"0":-0\}\]/);
  assert(Object.is(((await nextOf(watcher, "chat")).message as number[])[0], -0));
  assert(Object.is(((await nextOf(watcher, "set")).value as { x: number }).x, -0));
  const query = `?${admin}`;
  const kept = await (await fetch(`${two.url}/rooms/numbers/messages${query}`)).text();
  assertMatch(kept, /"message":\[-0,1e-7,\{"0":-0\}\]/);
  const entries = await (await fetch(`${two.url}/rooms/numbers/state${query}`)).text();
  assertMatch(entries, /"value":\{"x":-0\}/);
  for (const client of [plain, watcher, ann]) await client[Symbol.asyncDispose]();
}

async function state({ one, two, ask, admin, tokenOf }: System): Promise<void> {
  const { client: watcher, welcome } = await hear(`${two.ws}/chat/map?state=1&${admin}`);
  assertEquals(welcome.rev, 0);
  assertEquals((await watcher.nextObject()).entries, []);
  const events = await open(two, `/rooms/map/events?state=1&${admin}`);
  assertEquals((await events.next()).event, "welcome");
  const idOf = ({ id }: EventBlock) => id?.slice(id.indexOf(":"));
  assertEquals(idOf(await events.next()), ":0:0");
  const put = (value: unknown, headers?: HeadersInit, query = "") =>
    ask(one, "PUT", `/rooms/map/state/a/b${query}`, value, headers);
  const first = await put({ x: 1 }, { "if-match": '"0"' });
  assertEquals([first.status, first.answer.rev], [200, 1]);
  const set = { type: "set", room: "map", sender: "Backend", key: "a/b" };
  assertEquals(timeless(await watcher.nextObject()), { ...set, rev: 1, value: { x: 1 } });
  const last = await events.next();
  assertEquals([last.event, idOf(last)], ["state", ":0:1"]);
  const conflict = await put(2, { "if-match": '"0"' });
  assertEquals([conflict.status, conflict.answer.code], [412, "rev_conflict"]);
  assertEquals((await put(2, {}, "?ttl=x")).status, 400);
  const bad = await ask(one, "PUT", "/rooms/map/state/a%2F%2Fb", 1);
  assertEquals([bad.status, bad.answer.code], [400, "bad_state_key"]);
  const ann = await joinAs("Ann", `${one.ws}/chat/map?${await tokenOf({ sub: "Ann" })}`);
  ann.send({ type: "set", key: "ann", value: "here", bind: true, id: "1" });
  const { epoch } = first.answer;
  assertEquals(await nextOf(ann, "ack"), { type: "ack", id: "1", room: "map", epoch, rev: 2 });
  await ann[Symbol.asyncDispose]();
  assertEquals((await nextOf(watcher, "set")).value, "here");
  assertEquals((await nextOf(watcher, "set")).value, null);
  const read = await ask(two, "GET", `/rooms/map/state?since=${epoch}:1`);
  const { rev, since, entries } = read.answer;
  assertEquals([rev, since, (entries as Fields[]).map(({ value }) => value)], [3, 1, [null]]);
  // A stream resumes messages and state on another server, by the id of three parts.
  await events[Symbol.asyncDispose]();
  const resumed = await open(one, `/rooms/map/events?state=1&${admin}`, {
    "last-event-id": last.id!,
  });
  assertEquals(JSON.parse((await resumed.next()).data!).recovered, true);
  assertEquals(JSON.parse((await resumed.next()).data!).since, 1);
  const paced = await hear(`${two.ws}/chat/map?state=1&every=10&since=${epoch}:3&${admin}`);
  assertEquals((await paced.client.nextObject()).since, 3);
  const slow = await open(one, `/rooms/map/events?state=1&every=10&${admin}`, {
    "last-event-id": `${epoch}:0:3`,
  });
  assertEquals([(await slow.next()).event, idOf(await slow.next())], ["welcome", ":0:3"]);
  const removed = await ask(one, "DELETE", "/rooms/map/state/a/b");
  assertEquals([removed.status, removed.answer.rev], [200, 4]);
  assertEquals((await nextOf(watcher, "set")).value, null);
  const merged = await paced.client.nextObject();
  assertEquals([merged.type, merged.since, merged.rev], ["state", 3, 4]);
  const streamed = await slow.next();
  assertEquals([streamed.event, idOf(streamed)], ["state", ":0:4"]);
  assertEquals(JSON.parse(streamed.data!).since, 3);
  await put("short", {}, "?ttl=1");
  assertEquals([(await nextOf(watcher, "set")).value, (await nextOf(watcher, "set")).value], [
    "short",
    null,
  ]);
  for (const client of [watcher, paced.client, resumed, slow]) await client[Symbol.asyncDispose]();
}

async function listen({ one, two, ask, tokenOf }: System): Promise<void> {
  const token = await tokenOf({ sub: "u2", rooms: ["own:{sub}:*"], listen: ["user:{sub}"] });
  const { client, welcome } = await hear(`${two.ws}/chat/own:u2:x?${token}`);
  assertEquals([welcome.room, (await nextOf(client, "welcome")).room], ["own:u2:x", "user:u2"]);
  assertEquals((await ask(one, "POST", "/rooms/user:u2/messages", { message: 1 })).status, 202);
  assertEquals((await nextOf(client, "chat")).room, "user:u2");
  client.send({ type: "listen", room: "own:u3:x" });
  assertEquals((await nextOf(client, "error")).code, "forbidden");
  await client[Symbol.asyncDispose]();
}

async function decide({ one, two, ask, tokenOf }: System): Promise<void> {
  const root = await Client.open(`${one.ws}/chat/hook?${await tokenOf({ name: "root" })}`);
  root.send({ type: "join" });
  assertEquals(await root.nextObject(), { type: "error", message: "Not this name." });
  const ann = await joinAs("Ann", `${two.ws}/chat/hook?${await tokenOf({ sub: "Ann" })}`);
  ann.send({ type: "chat", message: "root", id: "1" });
  const { code, message, id } = await ann.nextObject();
  assertEquals([code, message, id], ["refused", "Not this name.", "1"]);
  ann.send({ type: "chat", message: "damn" });
  assertEquals((await nextOf(ann, "chat")).message, "d***");
  const posted = await ask(two, "POST", "/rooms/hook/messages", { message: "root" });
  assertEquals([posted.status, posted.answer.code], [403, "refused"]);
  for (const client of [root, ann]) await client[Symbol.asyncDispose]();
}

async function ban({ one, two, ask, tokenOf }: System): Promise<void> {
  const token = await tokenOf({ sub: "a/b é", name: "Ann" });
  const clients = [await joinAs("Ann", `${one.ws}/chat/ops?${token}`)];
  clients.push(await joinAs("Ann", `${two.ws}/chat/ops?${token}`));
  const stream = await open(two, `/rooms/ops/events?${token}`);
  await stream.next();
  const path = `/users/${encodeURIComponent("a/b é")}?seconds=60`;
  assertEquals((await ask(one, "DELETE", path)).status, 202);
  for (const { closed } of clients) {
    const { code, reason } = await closed;
    assertEquals([code, reason], [1008, "not allowed"]);
  }
  await stream.ended;
  for (const { url } of [one, two]) {
    const status = async () => {
      const { status, body } = await fetch(
        `${url}/rooms?${await tokenOf({ sub: "a/b é", name: "New" })}`,
      );
      await body?.cancel();
      return status;
    };
    await eventually(status, (status) => status === 403);
  }
}

async function open({ url }: Place, path: string, headers?: HeadersInit): Promise<EventReader> {
  return new EventReader(await fetch(url + path, { headers }));
}

/** What a backend is asked, and answers. */
async function answerHook(request: Request): Promise<Response> {
  assertMatch(request.headers.get("parley-signature") ?? "", /^t=\d+,v1=[\da-f]{64}$/);
  const { event, name, message } = await request.json();
  const isRefused = event === "join" ? name === "root" : message === "root";
  if (isRefused) return Response.json({ message: "Not this name." }, { status: 403 });
  return Response.json(message === "damn" ? { message: "d***" } : {});
}

const SCENARIOS = {
  "a user's sockets are one person, in each dialect and in _events": comeAndGo,
  "many messages at once, and history backwards": publishMany,
  "notes, by socket and HTTP": note,
  "numbers, as they were sent or refused": numbers,
  "state, by socket, HTTP and event stream": state,
  "rooms of a user that a token names": listen,
  "a backend that is asked": decide,
  "a ban": ban,
};

/** Does it all on one system. */
async function tryAll(
  t: Deno.TestContext,
  start: (
    settings: Record<string, string>,
  ) => Promise<AsyncDisposable & { places: [Place, Place] }>,
): Promise<void> {
  await using backend = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, answerHook);
  const tokenOf = async (claims: JWTPayload) => `token=${await sign(claims)}`;
  const admin = await tokenOf({ sub: "backend", name: "Backend", admin: true, publish: true });
  const HOOK_URL = `http://127.0.0.1:${backend.addr.port}/`;
  const settings = { AUTH_SECRET: SECRET, HOOK_URL, HOOK_SECRET: "s3cret", HOOK_MS: "10000" };
  await using system = await start({ ...settings, EVENTS: EVENTS.join() });
  const [one, two] = system.places;
  const ask: System["ask"] = async (place, method, path, body, headers) => {
    const response = await fetch(`${place.url}${path}${path.includes("?") ? "&" : "?"}${admin}`, {
      method,
      headers: { "content-type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    return { status: response.status, answer: text ? JSON.parse(text) : {} };
  };
  const steps = Object.entries(SCENARIOS).map(([name, scenario]) => ({
    name,
    fn: () => scenario({ one, two, tokenOf, admin, ask }),
  }));
  await runTogether(t, steps, 1);
}

async function startNode(env: Record<string, string>) {
  const node = await startServer({
    ...env,
    EVENTS: [...EVENTS],
    HOOK_MS: 10_000,
  });
  return node;
}

const test = together("what is promised over several processes");

test("one process", (t) =>
  tryAll(t, async (env) => {
    const node = await startNode(env);
    return { places: [node, node], [Symbol.asyncDispose]: () => node[Symbol.asyncDispose]() };
  }));

test("one process with a file", async (t) => {
  const folder = await Deno.makeTempDir();
  await tryAll(t, async (env) => {
    const node = await startNode({ ...env, DATA_FILE: `${folder}/parley.db` });
    return { places: [node, node], [Symbol.asyncDispose]: () => node[Symbol.asyncDispose]() };
  });
  await Deno.remove(folder, { recursive: true });
});

test("two workers", (t) =>
  tryAll(t, async (env) => {
    const server = await ServerProcess.start(["--workers", "2", "--drain-seconds", "0"], { env });
    return { places: [server, server], [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
  }));

redisTest("two nodes with Redis", async (t) => {
  await using redis = await RedisServer.start();
  await tryAll(t, async (env) => {
    const settings = { ...env, REDIS_URL: redis.url };
    const nodes = new AsyncDisposableStack();
    const [one, two] = [nodes.use(await startNode(settings)), nodes.use(await startNode(settings))];
    return { places: [one, two], [Symbol.asyncDispose]: () => nodes.disposeAsync() };
  });
});

redisTest(
  "A ban on one Redis node ends the user's stream on another, also on one that starts later",
  async () => {
    await using redis = await RedisServer.start();
    const authorize = () => ({ user: "ann" });
    const start = async () => createParley({ authorize, engine: await redisEngine(redis.url) });
    const one = await start();
    const two = await start();
    const ask = (parley: typeof one, path: string) =>
      parley.fetch(new Request(`http://parley.test${path}`));
    const statusOf = async (parley: typeof one) => {
      const { status, body } = await ask(parley, "/rooms");
      await body?.cancel();
      return status;
    };
    const stream = await ask(two, "/rooms/ops/events");
    assertEquals(stream.status, 200);
    await one.disconnect("ann", { seconds: 60 });
    await stream.text();
    assertEquals(await statusOf(two), 403);
    const three = await start();
    await eventually(() => statusOf(three), (status) => status === 403);
    for (const parley of [one, two, three]) await parley[Symbol.asyncDispose]();
  },
  test,
);
