// The room `_events`: what a backend hears of who comes and goes.
import { assertEquals, assertGreater } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import { eventTexts, leftBehind, MEMBER_EVENTS } from "../../handlers/engine/member_events.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import type { Chat } from "../../handlers/protocol/room_event.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { createTestApp, FakeClock } from "../support/fakes.ts";
import { sign } from "../support/jwt.ts";
import { granted, people, Recorder } from "../support/recorder.ts";
import { startServer } from "../support/servers.ts";
import { hear, joinAs, nextOf } from "../support/v1.ts";
import { draft, ROOMY } from "./contract.ts";
import { MemoryStore } from "../support/memory_store.ts";
import { SECRET } from "../support/jwt.ts";

const ALL = { events: MEMBER_EVENTS };

/** What was said, without the room and in short. */
function shown(chats: Chat[]): string[] {
  return chats.map(({ message }) => {
    const { event, room, name, members } = JSON.parse(message);
    return [event, room, name, members].filter((part) => part !== undefined).join(" ");
  });
}

Deno.test("eventTexts() tells whom a token named", () => {
  const change = { event: "join", room: "r", name: "Ann", user: "u1", members: 2 } as const;
  assertEquals(eventTexts(MEMBER_EVENTS, change, 7), [
    '{"event":"join","room":"r","n":7,"name":"Ann","user":"u1","members":2}',
  ]);
});

Deno.test("leftBehind() is who had joined and not left, room by room, users by what their tokens say", () => {
  const n = 1;
  const chats = [
    { event: "join", room: "a", n, name: "Ann", members: 1 },
    { event: "occupied", room: "b", n, members: 1 },
    { event: "join", room: "a", n, name: "Bo", members: 2 },
    { event: "leave", room: "a", n, name: "renamed", members: 1 },
    { event: "join", room: "c", n, name: "Cy", members: 1 },
    { event: "leave", room: "c", n, name: "Cy", members: 0 },
    { event: "join", room: "d", n, name: "Ann", members: 1 },
    { event: "join", room: "d", n, name: "Ann", user: "u1", members: 2 },
    { event: "join", room: "d", n, name: "Ann", user: "u2", members: 3 },
    { event: "leave", room: "d", n, name: "renamed", user: "u2", members: 2 },
    { event: "leave", room: "d", n, name: "Ann", members: 1 },
  ].map((event, i) => ({ seq: i, time: 0, sender: "", message: JSON.stringify(event) }));
  assertEquals(leftBehind(chats), {
    changes: [
      { event: "leave", room: "a", name: "Bo", user: undefined, members: 0 },
      { event: "leave", room: "b", members: 0 },
      { event: "leave", room: "d", name: "Ann", user: "u1", members: 0 },
    ],
    lastNumber: 1,
  });
});

Deno.test("a room that goes and comes within a millisecond goes on counting its events", async () => {
  const engine = createMemoryEngine({ ...ROOMY, ...ALL }, new FakeClock());
  for (let i = 0; i < 3; i++) {
    engine.join("r", "m", "Ann");
    engine.leave("r", "m");
  }
  const { chats } = await granted(engine.read("_events"));
  const numbers = chats.map(({ message }) => JSON.parse(message).n);
  assertEquals(numbers, numbers.map((_, i) => numbers[0] + i));
  await engine.close();
});

Deno.test("whoever reads all events knows who is where, and misses no number", async () => {
  const step = fc.tuple(
    fc.constantFrom("join", "leave"),
    fc.constantFrom("r", "s"),
    fc.constantFrom("a", "b", "c"),
    fc.nat(2),
  );
  await fc.assert(fc.asyncProperty(fc.array(step), async (steps) => {
    const clock = new FakeClock();
    const engine = createMemoryEngine({ ...ROOMY, ...ALL, historySeconds: 1 }, clock);
    for (const [what, room, member, seconds] of steps) {
      // Who joins hears the room; it is over some time after the last one.
      if (what === "join") engine.host(room, new Recorder());
      if (what === "join") engine.join(room, member, member);
      else engine.leave(room, member);
      if ((await granted(engine.members(room))).count === 0) engine.release(room);
      clock.tick(seconds * 3_000);
    }
    const rooms = new Map<string, { n: number; names: Set<string>; isOccupied: boolean }>();
    for (const { message } of (await granted(engine.read("_events"))).chats) {
      const { event, room, n, name, members } = JSON.parse(message);
      const known = rooms.get(room) ?? { n: 0, names: new Set(), isOccupied: false };
      rooms.set(room, known);
      assertEquals(known.names.size === 0 ? n > known.n : n === known.n + 1, true);
      known.n = n;
      if (event === "join") assertEquals(known.names.has(name), false);
      if (event === "join") known.names.add(name);
      if (event === "leave") assertEquals(known.names.delete(name), true);
      if (event === "occupied" || event === "vacated") known.isOccupied = event === "occupied";
      else assertEquals([known.isOccupied, members], [true, known.names.size]);
    }
    for (const room of ["r", "s"]) {
      const { names = new Set<string>(), isOccupied = false } = rooms.get(room) ?? {};
      assertEquals(await engine.members(room), people(...[...names].sort()));
      assertEquals(isOccupied, names.size > 0);
    }
    await engine.close();
  }));
});

Deno.test("_events outlives HISTORY_SECONDS, and is there where MAX_ROOMS are in use", async () => {
  const clock = new FakeClock();
  const engine = createMemoryEngine({ ...ROOMY, ...ALL, historySeconds: 1, maxRooms: 2 }, clock);
  engine.join("r", "m", "Ann");
  engine.leave("r", "m");
  clock.tick(3_600_000);
  await granted(engine.publish("other", draft("x")));
  await granted(engine.publish("another", draft("x")));
  assertEquals(shown((await granted(engine.read("_events"))).chats), [
    "occupied r 1",
    "join r Ann 1",
    "leave r Ann 0",
    "vacated r 0",
  ]);
  await engine.close();
});

Deno.test("after a kill the durable engine says that those have left whom it took", async () => {
  let store = new MemoryStore();
  const start = () => {
    const open = (_: string, take: Parameters<MemoryStore["read"]>[0]) => {
      store.read(take);
      return Promise.resolve(store);
    };
    return createDurableEngine("memory", { ...ROOMY, ...ALL }, new FakeClock(), silentLog, open);
  };
  const engine = await start();
  for (const member of ["a", "b"]) await engine.join("r", member, member);
  const before = await granted(engine.read("_events"));
  store = store.killed();
  const again = await start();
  const after = await granted(again.read("_events", { epoch: before.epoch, seq: before.seq }));
  assertEquals(after.epoch, before.epoch);
  assertEquals(shown(after.chats), ["leave r a 1", "leave r b 0", "vacated r 0"]);
  const last = ({ chats }: { chats: Chat[] }) => JSON.parse(chats.at(-1)!.message).n;
  assertGreater(last(after), last(before));
  for (const each of [engine, again]) await each.close();
});

Deno.test("a backend follows _events by socket, SSE and GET; nobody else hears or posts there", async () => {
  await using server = await startServer({ EVENTS: [...MEMBER_EVENTS], AUTH_SECRET: SECRET });
  const admin = `token=${await sign({ sub: "backend", admin: true, publish: true })}`;
  const token = `token=${await sign({ sub: "u1", name: "Ann" })}`;
  const { client: backend } = await hear(`${server.ws}/chat/_events?${admin}`);
  const ann = await joinAs("Ann", `${server.ws}/chat/ops?${token}`);
  const first = await nextOf(backend, "chat");
  assertEquals((first.message as { event: string }).event, "occupied");
  await ann[Symbol.asyncDispose]();
  for (const event of ["join", "leave", "vacated"]) {
    assertEquals(((await nextOf(backend, "chat")).message as { event: string }).event, event);
  }
  const ask = (path: string, init?: RequestInit) => fetch(`${server.url}/rooms${path}`, init);
  const { messages } = await (await ask(`/_events/messages?${admin}`)).json();
  assertEquals(messages.length, 4);
  const { rooms } = await (await ask(`?${admin}`)).json();
  assertEquals(rooms, [], "it is no room of clients");
  const refused = await ask(`/_events/messages?${token}`);
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: "{}" };
  const posted = await ask(`/_events/messages?${admin}`, post);
  assertEquals([refused.status, posted.status], [403, 403]);
  for (const { body } of [refused, posted]) await body?.cancel();
  await backend[Symbol.asyncDispose]();
});

Deno.test("without EVENTS nothing is said", async () => {
  const { connect, ask } = createTestApp();
  (await connect("/chat/ops")).say({ type: "join", name: "Ann" });
  assertEquals((await (await ask("/rooms/_events/messages")).json()).messages, []);
});
