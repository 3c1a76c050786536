// One truth of who is a member, whatever the engine refuses and however late it answers.
import { assertEquals } from "@std/assert";
import type { Grants } from "../../handlers/access/grants.ts";
import type { Engine } from "../../handlers/engine/engine.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { findDifference } from "../../handlers/registry/audit.ts";
import { leave } from "../../handlers/registry/membership.ts";
import { createTestApp, FakeClock, type FakeSocket } from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";
import { people } from "../support/recorder.ts";

const KEEPS = { historySize: 10, historySeconds: 60, historyMb: 1, maxRooms: 10 };
const UNAVAILABLE = { refused: "unavailable" } as const;

/** A memory engine whose answers to some calls are late. */
function createLateEngine(...calls: ("host" | "join" | "publish" | "members" | "read")[]): Engine {
  const engine = createMemoryEngine(KEEPS, new FakeClock());
  for (const name of calls) {
    const call = (engine[name] as (...args: unknown[]) => unknown).bind(engine);
    Object.assign(engine, { [name]: async (...args: unknown[]) => await call(...args) });
  }
  return engine;
}

const typesOf = ({ objects }: FakeSocket) =>
  objects.map((object) => {
    const { type, code, name, message } = object as Record<string, unknown>;
    return [type, code ?? name ?? message];
  });

Deno.test("a refused join leaves a socket as it was: no voice, no member, no word to the others", async () => {
  const engine = createMemoryEngine(KEEPS, new FakeClock());
  const join = engine.join.bind(engine);
  const { connect, registry } = createTestApp({ engine });
  const ann = await connect("/chat/ops", { dialect: "v1" });
  const bob = await connect("/chat/ops");
  engine.join = () => UNAVAILABLE;
  ann.say({ type: "join", name: "Ann" });
  engine.join = join;
  ann.say({ type: "chat", message: "hi" });
  await nextTurn();
  assertEquals([registry.counters.members, findDifference(registry)], [0, undefined]);
  ann.say({ type: "join", name: "Ann" });
  await nextTurn();
  engine.join = () => UNAVAILABLE;
  ann.say({ type: "join", name: "Other" });
  ann.say({ type: "chat", message: "as Ann" });
  await nextTurn();
  assertEquals(typesOf(ann).slice(1).map(([, what]) => what), [
    "unavailable",
    "not_joined",
    "Ann",
    "unavailable",
    "as Ann",
  ]);
  ann.end();
  const said = [["status", "Ann joined the chat."], ["chat", "as Ann"]];
  assertEquals(typesOf(bob), [...said, ["status", "Ann left the chat."]]);
  assertEquals(registry.counters.members, 0);
});

Deno.test("a join to another room that the engine refuses ends the subscription that it began", async () => {
  const engine = createLateEngine("host", "join");
  const { connect, registry } = createTestApp({ engine });
  const ann = await connect("/chat/ops", { dialect: "v1" });
  engine.join = () => Promise.resolve(UNAVAILABLE);
  ann.say({ type: "join", name: "Ann", room: "news" });
  await nextTurn();
  assertEquals([...registry.rooms.keys()], ["ops"]);
  ann.end();
  assertEquals([registry.rooms.size, registry.heldCount], [0, 0]);
});

Deno.test("messages wait for the join before them, in their order", async () => {
  const { connect } = createTestApp({ engine: createLateEngine("host", "join", "publish") });
  const bob = await connect("/chat/ops");
  await nextTurn();
  const ann = await connect("/chat/ops");
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "chat", message: 1 });
  ann.say({ type: "join", name: "Anna" });
  ann.say({ type: "chat", message: 2 });
  ann.sayBytes(3);
  ann.say({ type: "chat", message: 4 });
  await nextTurn();
  await nextTurn();
  const heard = bob.frames.map((frame) =>
    typeof frame === "string" ? JSON.parse(frame).message : [...frame]
  );
  assertEquals(heard, ["Ann joined the chat.", 1, "Anna joined the chat.", 2, [3], 4]);
});

Deno.test("whoever joins while the room's state has to wait hears of that behind the welcome", async () => {
  const { clock, connect } = createTestApp();
  const ann = await connect("/chat/ops", { dialect: "v1" });
  const bob = await connect("/chat/news", { dialect: "v1" });
  await nextTurn();
  ann.take();
  ann.bufferedAmount = 200_000;
  ann.say({ type: "join", name: "Ann", room: "news", state: true });
  bob.say({ type: "join", name: "Bob" });
  await nextTurn();
  ann.bufferedAmount = 0;
  clock.tick(50);
  await nextTurn();
  assertEquals(typesOf(ann), [
    ["welcome", undefined],
    ["state", undefined],
    ["status", "Ann"],
  ]);
});

Deno.test("members are counted once they have joined, and out, however late the engine answers", async () => {
  for (const end of ["before the answer", "after it"]) {
    const engine = createLateEngine("host", "join", "publish", "members", "read");
    const { connect, registry } = createTestApp({ engine });
    const ann = await connect("/chat/home", { dialect: "v1" });
    for (let n = 0; n < 12; n++) ann.say({ type: "join", name: "Ann", room: `more${n}` });
    if (end === "after it") await nextTurn();
    assertEquals(registry.counters.members, end === "after it" ? 4 : 0);
    ann.end();
    await nextTurn();
    assertEquals([registry.counters.members, registry.rooms.size], [0, 0], end);
    assertEquals(await engine.rooms("", 100), []);
    for (let n = 0; n < 12; n++) {
      assertEquals(await engine.members(`more${n}`), people());
    }
  }
});

Deno.test("a socket that goes while the engine takes its join leaves no member behind", async () => {
  for (const isEnd of [true, false]) {
    const engine = createLateEngine("join");
    const { connect, registry } = createTestApp({ engine });
    const ann = await connect("/chat/ops", { dialect: "v1" });
    const bob = await connect("/chat/ops");
    ann.say({ type: "join", name: "Ann" });
    const [client] = registry.clients;
    if (isEnd) ann.end();
    // As a fresh token does it that grants less; a `leave` waits for the join.
    else leave(registry.room("ops"), client);
    await nextTurn();
    assertEquals([await engine.members("ops"), registry.counters.members], [people(), 0]);
    assertEquals(typesOf(bob).at(-1), ["status", "Ann left the chat."]);
  }
});

Deno.test("leaving a room counts its member out, a second time nothing", async () => {
  const { connect, registry } = createTestApp();
  const ann = await connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  ann.say({ type: "join", name: "Anna" });
  ann.say({ type: "join", name: "Ann", room: "news" });
  assertEquals(registry.counters.members, 2);
  ann.say({ type: "leave", room: "news" });
  ann.say({ type: "leave", room: "news" });
  assertEquals([registry.counters.members, findDifference(registry)], [1, undefined]);
  ann.end();
  assertEquals(registry.counters.members, 0);
});

Deno.test("1,000 messages of a socket wait for the engine; one more is unavailable", async () => {
  const gate = Promise.withResolvers<void>();
  const engine = createLateEngine("publish");
  const publish = engine.publish.bind(engine);
  engine.publish = async (...args) => {
    await gate.promise;
    return await publish(...args);
  };
  const { connect } = createTestApp({ engine, settings: { MESSAGE_RATE: 0 } });
  const ann = await connect("/chat/ops");
  ann.say({ type: "join", name: "Ann" });
  ann.take();
  for (let n = 1; n <= 1_001; n++) ann.say({ type: "chat", message: n });
  assertEquals(typesOf(ann), [[
    "error",
    "Server error: the message may not have been delivered.",
  ]]);
  ann.take();
  gate.resolve();
  await nextTurn();
  assertEquals(
    typesOf(ann).map(([, message]) => message),
    Array.from({ length: 1_000 }, (_, n) => n + 1),
  );
  ann.say({ type: "chat", message: "again" });
  await nextTurn();
  assertEquals(typesOf(ann).at(-1), ["chat", "again"]);
});

/** A server whose tokens name rights; `late` ones are verified when the test says so. */
function createGuarded(grants: Record<string, Grants>, late?: string) {
  const gate = Promise.withResolvers<void>();
  const test = createTestApp({
    authorize: async ({ headers }) => {
      const token = headers.get("authorization")!.slice("Bearer ".length);
      if (token === late) await gate.promise;
      return { user: "u", name: "Ann", ...grants[token] };
    },
  });
  return { ...test, verify: gate.resolve };
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

Deno.test("joining needs the right to speak: a mute can't talk by its names", async () => {
  const { connect, registry } = createGuarded({ mute: { speak: [] } });
  const victim = await connect("/chat/ops", bearer("mute"));
  const mute = await connect("/chat/ops", { ...bearer("mute"), dialect: "v1" });
  for (let n = 0; n < 3; n++) mute.say({ type: "join", name: "Ann" });
  await nextTurn();
  const codes = typesOf(mute).slice(1).map(([, code]) => code);
  assertEquals([victim.frames, codes], [[], ["forbidden", "forbidden", "forbidden"]]);
  assertEquals(registry.counters.members, 0);
});

Deno.test("of two tokens on their way the last one sent counts, whichever is verified last", async () => {
  const now = new FakeClock().now();
  const grants: Record<string, Grants> = {
    first: { expiresAt: now + 60_000 },
    old: { expiresAt: now + 120_000 },
    new: { expiresAt: now + 3_600_000 },
  };
  const { connect, clock, verify } = createGuarded(grants, "old");
  const socket = await connect("/chat/ops", { ...bearer("first"), dialect: "v1" });
  socket.say({ type: "token", token: "old" });
  socket.say({ type: "token", token: "new" });
  await nextTurn();
  verify();
  await nextTurn();
  clock.tick(121_000);
  assertEquals(socket.closes, []);
  clock.tick(3_600_000);
  assertEquals(socket.closes, [{ code: 1008, reason: "token expired" }]);
});

Deno.test("an `authorize` that fails at a fresh token refuses it, and the log tells", async () => {
  const { connect, log } = createTestApp({
    authorize: ({ headers }) => {
      if (headers.get("authorization") === "Bearer broken") throw new TypeError("no database");
      return { user: "u" };
    },
  });
  const socket = await connect("/chat/ops", { ...bearer("good"), dialect: "v1" });
  socket.say({ type: "token", token: "broken" });
  await nextTurn();
  assertEquals(typesOf(socket).at(-1), ["error", "forbidden"]);
  const [{ text, level }] = log.of("error");
  assertEquals([level, /^Cannot renew the rights of .*: TypeError: no database/.test(text)], [
    "error",
    true,
  ]);
});

Deno.test("a socket hears the rooms that its token lists from the start", async () => {
  const { connect, registry } = createGuarded({
    listens: { rooms: ["ops"], listen: ["user:{sub}"] },
  });
  const socket = await connect("/chat/ops", { ...bearer("listens"), dialect: "v1" });
  await nextTurn();
  const rooms = socket.objects.map((object) => (object as { room: string }).room);
  assertEquals(rooms, ["ops", "user:u"]);
  const plain = await connect("/chat/ops", bearer("listens"));
  await registry.room("user:u").submit({ sender: "shop", message: '"It has shipped"' });
  assertEquals(plain.objects, [{ type: "chat", sender: "shop", message: "It has shipped" }]);
  for (const end of [socket, plain]) end.end();
  assertEquals(registry.rooms.size, 0);
});
