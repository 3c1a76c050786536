/**
 * Rooms over HTTP: publish, history, the list. `handlers/README.md`, HTTP.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Fields } from "../support/clients.ts";
import { createTestApp, infoOf, type TestAppOptions } from "../support/fakes.ts";
import { startServer } from "../support/servers.ts";
import { joinAs, range, settled, timeless } from "../support/v1.ts";

const JSON_TYPE = { "content-type": "application/json" };
const UNAVAILABLE = "Server error: the message may not have been delivered.";
const MINUTE_MS = 60_000;

/** A server of fakes, and what one does with its rooms. */
function rooms(settings: TestAppOptions["settings"] = {}) {
  const made = createTestApp({ settings: { POST_RATE: 0, ...settings } });
  const publish = (room: string, body: unknown, headers: Record<string, string> = {}) =>
    made.ask(`/rooms/${room}/messages`, {
      method: "POST",
      headers: { ...JSON_TYPE, ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  const read = async (room: string, query = "") => {
    const response = await made.ask(`/rooms/${room}/messages${query}`);
    assertEquals(response.status, 200);
    return await response.json();
  };
  return { ...made, publish, read };
}

/** Checks that an answer is the JSON error of this status and code; gives its text. */
async function refusal(response: Response, status: number, code: string): Promise<string> {
  const { message, ...error } = await response.json();
  assertEquals({ status: response.status, ...error }, { status, type: "error", code });
  assertEquals(response.headers.get("content-type"), "application/json");
  return message;
}

Deno.test("POST publishes to everybody in the room, and answers 202 with the place", async () => {
  await using server = await startServer();
  await using ann = await joinAs("Ann", `${server.ws}/chat/ops`);
  const url = `${server.url}/rooms/ops/messages`;
  const bodies = [{ message: { a: ["é", null] }, sender: "cron" }, { message: 0 }, {}];
  const places = [];
  for (const body of bodies) {
    const response = await fetch(url, {
      method: "POST",
      headers: JSON_TYPE,
      body: JSON.stringify(body),
    });
    assertEquals(response.status, 202);
    places.push(await response.json());
  }
  const [{ epoch }] = places;
  assertEquals(places, range(1, 3).map((seq) => ({ room: "ops", epoch, seq })));
  const heard = (await settled(ann)).map(timeless);
  const chat = { type: "chat", room: "ops" };
  assertEquals(heard, [
    { ...chat, seq: 1, sender: "cron", message: { a: ["é", null] } },
    { ...chat, seq: 2, sender: "Anonymous", message: 0 },
    { ...chat, seq: 3, sender: "Anonymous", message: "" },
  ]);
  const history = await (await fetch(url)).json();
  const { messages, ...head } = history;
  assertEquals(head, { room: "ops", epoch, seq: 3, recovered: true });
  assertEquals(messages.map(timeless), heard);
});

Deno.test("POST to a room that nobody hears keeps the message", async () => {
  const { publish, read, clock } = rooms();
  const { epoch } = await (await publish("quiet", { message: "hi", sender: "Ann" })).json();
  const time = clock.now();
  const message = { type: "chat", room: "quiet", seq: 1, time, sender: "Ann", message: "hi" };
  const expected = { room: "quiet", epoch, seq: 1, recovered: true, messages: [message] };
  assertEquals(await read("quiet"), expected);
});

Deno.test("POST refuses what is no message", async () => {
  const { publish, read } = rooms();
  const deep = "[".repeat(20_000) + "]".repeat(20_000);
  const cases: [unknown, string][] = [
    ["{nonsense", "bad_json"],
    ["", "bad_json"],
    ["[]", "bad_message"],
    ["null", "bad_message"],
    ['"text"', "bad_message"],
    [`{"message":${deep}}`, "bad_message"],
    ['{"message":12345678901234567.89}', "bad_message"],
    [{ message: 1, sender: "" }, "bad_name"],
    [{ message: 1, sender: 7 }, "bad_name"],
    [{ message: 1, sender: "a\u2028b" }, "bad_name"],
    [{ message: 1, sender: "x".repeat(65) }, "bad_name"],
  ];
  for (const [body, code] of cases) await refusal(await publish("ops", body), 400, code);
  assertEquals((await read("ops")).messages, []);
});

Deno.test("POST takes JSON alone, in UTF-8", async () => {
  const { publish, ask } = rooms();
  for (const type of ["text/plain", "application/jsonx", "application/x-www-form-urlencoded"]) {
    await refusal(await publish("ops", {}, { "content-type": type }), 415, "bad_type");
  }
  const untyped = await ask("/rooms/ops/messages", {
    method: "POST",
    body: new TextEncoder().encode("{}"),
  });
  await refusal(untyped, 415, "bad_type");
  for (
    const type of ["application/json; charset=utf-8", "Application/JSON", "application/a+json"]
  ) {
    assertEquals((await publish("ops", {}, { "content-type": type })).status, 202, type);
  }
  const broken = await ask("/rooms/ops/messages", {
    method: "POST",
    headers: JSON_TYPE,
    body: new Uint8Array([123, 34, 255, 34, 58, 49, 125]),
  });
  await refusal(broken, 400, "bad_json");
});

Deno.test("POST takes a body of at most MAX_MESSAGE_BYTES, told or not", async () => {
  const { publish, ask } = rooms({ MAX_MESSAGE_BYTES: 1_000 });
  const bodyOf = (bytes: number) => `{"message":"${"é".repeat((bytes - 14) / 2)}"}`;
  assertEquals((await publish("ops", bodyOf(1_000))).status, 202);
  await refusal(await publish("ops", bodyOf(1_002)), 413, "too_big");
  await refusal(await publish("ops", "{}", { "content-length": "1001" }), 413, "too_big");
  let taken = 0;
  let isCancelled = false;
  const endless = new ReadableStream({
    pull(controller) {
      taken += 400;
      controller.enqueue(new Uint8Array(400));
    },
    cancel() {
      isCancelled = true;
    },
  });
  const streamed = await ask("/rooms/ops/messages", {
    method: "POST",
    headers: JSON_TYPE,
    body: endless,
  });
  await refusal(streamed, 413, "too_big");
  assert(isCancelled && taken < 3_000, `${taken} bytes were read`);
});

Deno.test("POST goes to no room of the server's own and to no bad name", async () => {
  const { publish } = rooms();
  assertEquals(await refusal(await publish("_stats", {}), 403, "forbidden"), "Not allowed.");
  for (const room of ["a%20b", "%C3%B6", "x".repeat(65), "%zz"]) {
    await refusal(await publish(room, {}), 400, "bad_room");
  }
});

Deno.test("Idempotency-Key: a repeat gets the first answer and publishes nothing", async () => {
  const { publish, read, clock } = rooms();
  const key = { "idempotency-key": "k1" };
  const first = await (await publish("ops", { message: "a" }, key)).json();
  await publish("ops", { message: "b" });
  clock.tick(5 * MINUTE_MS - 1);
  const again = await publish("ops", { message: "a" }, key);
  assertEquals([again.status, await again.json()], [202, first]);
  const other = await (await publish("dev", { message: "a" }, key)).json();
  assertEquals([other.room, other.seq], ["dev", 1], "a key counts in its room");
  assertEquals((await read("ops")).seq, 2);
  clock.tick(1);
  assertEquals((await (await publish("ops", { message: "a" }, key)).json()).seq, 3);
});

Deno.test("Idempotency-Key: another body under a known key is refused with 422", async () => {
  const { publish, read } = rooms();
  const key = { "idempotency-key": "k1" };
  await publish("ops", { message: "a" }, key);
  await refusal(await publish("ops", { message: "b" }, key), 422, "conflict");
  await refusal(await publish("ops", { message: "a", sender: "x" }, key), 422, "conflict");
  assertEquals((await read("ops")).seq, 1);
});

Deno.test("Idempotency-Key: 1 to 255 characters", async () => {
  const { publish } = rooms();
  const key = (text: string) => ({ "idempotency-key": text });
  await refusal(await publish("ops", {}, key("")), 400, "bad_key");
  await refusal(await publish("ops", {}, key("x".repeat(256))), 400, "bad_key");
  for (const [seq, end] of ["x", "y"].entries()) {
    const long = key("x".repeat(254) + end);
    for (let repeat = 0; repeat < 2; repeat++) {
      assertEquals((await (await publish("ops", {}, long)).json()).seq, seq + 1);
    }
  }
});

Deno.test("Idempotency-Key: no key is forgotten early, however many come", async () => {
  const { publish } = rooms();
  for (const index of range(1, 1_500)) {
    await publish("ops", {}, { "idempotency-key": `k${index}` });
  }
  const again = await (await publish("ops", {}, { "idempotency-key": "k1" })).json();
  assertEquals(again.seq, 1);
});

Deno.test("Idempotency-Key: no client on a socket can take a key's place", async () => {
  const { publish, connect } = rooms();
  const socket = await connect("/chat/ops", { dialect: "v1" });
  socket.say({ type: "join", name: "Eve", session: "http:0123456789abcdef" });
  socket.say({ type: "chat", message: "mine", id: "k1" });
  const place = await (await publish("ops", {}, { "idempotency-key": "k1" })).json();
  assertEquals(place.seq, 2);
});

Deno.test("a full table of keys answers 503, and what it knows it still knows", async () => {
  const { publish } = rooms({ HISTORY_MB: 1 });
  const key = (index: number) => ({ "idempotency-key": String(index).padEnd(250, "x") });
  let count = 0;
  let response: Response;
  do response = await publish("ops", {}, key(++count)); while (response.status === 202);
  assertEquals(await refusal(response, 503, "unavailable"), UNAVAILABLE);
  assertMatch(response.headers.get("retry-after") ?? "", /^\d+$/);
  assertEquals((await (await publish("ops", {}, key(1))).json()).seq, 1);
  assertEquals((await publish("ops", {})).status, 202, "without a key it needs no table");
});

Deno.test("keys from one address leave space for the keys of others and for sockets' ids", async () => {
  const { ask, connect, registry } = rooms({ HISTORY_MB: 1, POST_RATE: 0 });
  const post = async (key: string, address: string) => {
    const headers = { ...JSON_TYPE, "idempotency-key": key };
    const init = { method: "POST", headers, body: "{}" };
    const response = await ask("/rooms/ops/messages", init, infoOf(address));
    await response.body?.cancel();
    return response.status;
  };
  let count = 0;
  while (await post(`${++count}`.padStart(255, "k"), "192.0.2.1") === 202);
  assert(count > 150, `${count} long keys`);
  assertEquals(await post("k", "192.0.2.2"), 202);
  const socket = await connect("/chat/other", { dialect: "v1", info: infoOf("192.0.2.1") });
  socket.say({ type: "join", name: "Ann" });
  socket.say({ type: "chat", message: "hi", id: "1" });
  registry.turn.flush();
  const types = socket.objects.map((object) => (object as { type: string }).type);
  assert(types.includes("ack"), `${types}`);
});

Deno.test("POST_RATE holds an address, not the others", async () => {
  const { ask, clock } = rooms({ POST_RATE: 2 });
  const post = (address: string) =>
    ask("/rooms/ops/messages", { method: "POST", headers: JSON_TYPE, body: "{}" }, infoOf(address));
  assertEquals((await post("192.0.2.1")).status, 202);
  assertEquals((await post("192.0.2.1")).status, 202);
  const response = await post("192.0.2.1");
  assertEquals(response.headers.get("retry-after"), "1");
  await refusal(response, 429, "rate_limited");
  assertEquals((await post("192.0.2.2")).status, 202);
  clock.tick(500);
  assertEquals((await post("192.0.2.1")).status, 202);
});

Deno.test("POST_RATE counts by the token's user wherever they are, and not at all for an admin", async () => {
  const { ask, app } = rooms({ POST_RATE: 2 });
  app.authorize = ({ headers }) => {
    const user = headers.get("x-user") ?? undefined;
    return { user, publish: true, admin: user === "root" };
  };
  let host = 0;
  const post = async (user: string) => {
    const headers = { ...JSON_TYPE, ...(user !== "" && { "x-user": user }) };
    const init = { method: "POST", headers, body: "{}" };
    const address = user === "" ? "192.0.2.1" : `192.0.2.${++host}`;
    return (await ask("/rooms/ops/messages", init, infoOf(address))).status;
  };
  for (const user of ["ann", "bob", ""]) {
    assertEquals([await post(user), await post(user), await post(user)], [202, 202, 429], user);
  }
  for (const _ of range(1, 400)) assertEquals(await post("root"), 202);
});

Deno.test("GET /rooms/{room} is the room as the list has it; zeros for one that nobody knows", async () => {
  const { ask, connect, publish } = rooms();
  const room = async (name: string) => await (await ask(`/rooms/${name}`)).json();
  const names = ["a", "a-", "a.", "ab", "az", "azz", "b", "-", "Z"];
  for (const name of names) {
    const socket = await connect(`/chat/${name}`);
    socket.say({ type: "join", name: "Ann" });
    if (name === "az") socket.say({ type: "chat", message: 1 });
    await connect(`/chat/${name}`, { dialect: "v1" });
  }
  const { rooms: list } = await (await ask("/rooms")).json();
  assertEquals(list.length, names.length);
  for (const one of list) assertEquals(await room(one.room), one);
  const zeros = { members: 0, listeners: 0, seq: 0 };
  for (const name of ["nobody", "aa", "_stats2"]) {
    assertEquals(await room(name), { room: name, ...zeros });
  }
  await publish("kept", { message: 1 });
  assertEquals(await room("kept"), { room: "kept", ...zeros, seq: 1 });
});

Deno.test("GET /rooms/{room}/members lists who has joined, by name, to who has not", async () => {
  const { ask, connect } = rooms();
  const members = async () => await (await ask("/rooms/ops/members")).json();
  assertEquals(await members(), { room: "ops", members: [], count: 0 });
  const sockets = [];
  for (const name of ["Cy", "Ann", "Bo", "Ann"]) {
    const socket = await connect("/chat/ops");
    socket.say({ type: "join", name });
    sockets.push(socket);
  }
  await connect("/chat/ops");
  sockets[2].end();
  const one = (name: string) => ({ name, sockets: 1 });
  assertEquals(await members(), {
    room: "ops",
    members: [one("Ann"), one("Ann"), one("Cy")],
    count: 3,
  });
});

Deno.test("GET /rooms/{room} and its members need the room, and tell what the engine refuses", async () => {
  const { ask, app, engine } = rooms();
  app.authorize = () => ({ rooms: ["ops"] });
  for (const path of ["/rooms/hr", "/rooms/hr/members"]) {
    await refusal(await ask(path), 403, "forbidden");
  }
  engine.members = () => ({ refused: "unavailable" });
  engine.read = () => ({ refused: "unavailable" });
  for (const path of ["/rooms/ops", "/rooms/ops/members"]) {
    await refusal(await ask(path), 503, "unavailable");
  }
});

Deno.test("history pages forward from a cursor to the end, and no further", async () => {
  const { publish, read } = rooms();
  let epoch = "";
  for (const message of range(1, 25)) {
    ({ epoch } = await (await publish("ops", { message })).json());
  }
  const pages = [];
  for (let after = `${epoch}:0`;;) {
    const page = await read("ops", `?after=${after}&limit=10`);
    assertEquals([page.epoch, page.recovered], [epoch, true]);
    if (page.messages.length === 0) break;
    pages.push(page.messages.map(({ message }: Fields) => message));
    assertEquals(page.seq, page.messages.at(-1).seq, "seq is the cursor to ask with next");
    after = `${epoch}:${page.seq}`;
  }
  assertEquals(pages, [range(1, 10), range(11, 20), range(21, 25)]);
});

Deno.test("history without a cursor is the newest limit messages, 100 of them", async () => {
  const { publish, read } = rooms({ HISTORY_SIZE: 2_000 });
  for (const message of range(1, 1_010)) await publish("ops", { message });
  const seqs = ({ messages }: { messages: Fields[] }) => messages.map(({ seq }) => seq);
  assertEquals(seqs(await read("ops")), range(911, 1_010));
  assertEquals(seqs(await read("ops", "?limit=3")), range(1_008, 1_010));
  assertEquals(seqs(await read("ops", "?limit=99999")), range(11, 1_010));
  assertEquals((await read("ops", "?limit=3")).seq, 1_010);
});

Deno.test("history says recovered:false when something is missing since the cursor", async () => {
  const { publish, read } = rooms({ HISTORY_SIZE: 5 });
  let epoch = "";
  for (const message of range(1, 8)) {
    ({ epoch } = await (await publish("ops", { message })).json());
  }
  const cases = {
    "too old": [`${epoch}:1`, [4, 5], 5],
    "of another epoch": ["00000000:7", [7, 8], 8],
    "from the future": [`${epoch}:9`, [7, 8], 8],
    "malformed": ["nonsense", [7, 8], 8],
    "empty": ["", [7, 8], 8],
  };
  for (const [what, [after, seqs, seq]] of Object.entries(cases)) {
    const page = await read("ops", `?limit=2&after=${after}`);
    const found = [page.recovered, page.messages.map((chat: Fields) => chat.seq), page.seq];
    assertEquals(found, [false, seqs, seq], `a cursor ${what}`);
  }
  const edge = await read("ops", `?limit=2&after=${epoch}:3`);
  assertEquals([edge.recovered, edge.seq], [true, 5]);
});

Deno.test("history of a room that nobody knows is empty, and makes no room", async () => {
  const { read, ask, engine } = rooms();
  const { epoch, ...page } = await read("nowhere");
  assertEquals(page, { room: "nowhere", seq: 0, recovered: true, messages: [] });
  assertMatch(epoch, /^[\w-]+$/);
  assertEquals(engine.stats().rooms, 0);
  for (const limit of ["0", "-1", "1.5", "x", ""]) {
    await refusal(await ask(`/rooms/ops/messages?limit=${limit}`), 400, "bad_limit");
  }
});

Deno.test("GET /rooms lists the rooms with listeners, by name", async () => {
  await using server = await startServer();
  await using _ann = await joinAs("Ann", `${server.ws}/chat/b`);
  await using _bob = await joinAs("Bob", `${server.ws}/chat/a`);
  await using eve = await joinAs("Eve", `${server.ws}/chat/b`);
  eve.send({ type: "chat", message: 1 });
  await settled(eve);
  const url = `${server.url}/rooms`;
  await fetch(`${url}/unheard/messages`, { method: "POST", headers: JSON_TYPE, body: "{}" })
    .then((response) => response.body?.cancel());
  const list = await (await fetch(url)).json();
  assertEquals(list, {
    rooms: [
      { room: "a", members: 1, listeners: 1, seq: 0 },
      { room: "b", members: 2, listeners: 2, seq: 1 },
    ],
  });
});

Deno.test("GET /rooms pages beyond 1,000 by ?after=name", async () => {
  const { connect, ask } = rooms();
  const names = range(1, 2_005).map((index) => `r${String(index).padStart(4, "0")}`);
  for (const name of names.toReversed()) await connect(`/chat/${name}`);
  const sizes = [];
  const found: string[] = [];
  for (let after = "";;) {
    const { rooms } = await (await ask(`/rooms?after=${after}`)).json();
    if (rooms.length === 0) break;
    sizes.push(rooms.length);
    found.push(...rooms.map(({ room }: Fields) => room));
    after = found.at(-1)!;
  }
  assertEquals(sizes, [1_000, 1_000, 5]);
  assertEquals(found, names);
});

Deno.test("history pages backward from a cursor to the beginning, and meets the pages forward", async () => {
  const { publish, read, ask } = rooms();
  let epoch = "";
  for (const message of range(1, 25)) {
    ({ epoch } = await (await publish("ops", { message })).json());
  }
  const pages: number[][] = [];
  for (let before = `${epoch}:26`;;) {
    const page = await read("ops", `?limit=10&before=${before}`);
    assertEquals([page.epoch, page.recovered], [epoch, true]);
    if (page.messages.length === 0) break;
    pages.unshift(page.messages.map(({ message }: Fields) => message));
    assertEquals(page.seq, page.messages[0].seq);
    before = `${page.epoch}:${page.seq}`;
  }
  assertEquals(pages, [range(1, 5), range(6, 15), range(16, 25)]);
  const other = await read("ops", "?limit=2&before=other:3");
  assertEquals([other.recovered, other.messages.map(({ seq }: Fields) => seq)], [false, [24, 25]]);
  const bad = ["before=x", "before=", `before=${epoch}`, `before=${epoch}:-1`];
  for (const query of [...bad, `before=${epoch}:3&after=${epoch}:1`, `before=${epoch}:3&after=`]) {
    await refusal(await ask(`/rooms/ops/messages?${query}`), 400, "bad_cursor");
  }
});

Deno.test("history backward tells where older messages are gone", async () => {
  const { publish, read } = rooms({ HISTORY_SIZE: 5 });
  let epoch = "";
  for (const message of range(1, 9)) ({ epoch } = await (await publish("ops", { message })).json());
  const short = async (before: number, limit: number) => {
    const page = await read("ops", `?limit=${limit}&before=${epoch}:${before}`);
    return [page.seq, page.recovered, page.messages.length];
  };
  assertEquals(await short(10, 5), [5, true, 5]);
  assertEquals(await short(10, 6), [5, false, 5]);
  assertEquals(await short(5, 6), [5, false, 0]);
});
