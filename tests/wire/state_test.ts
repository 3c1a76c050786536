/** A room's state on the wire: set, state, withholding, pacing, HTTP, event streams. `handlers/README.md`, State. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createParley, ParleyError } from "../../handlers/parley.ts";
import { StateMap } from "../../handlers/engine/state_map.ts";
import type { Fields } from "../support/clients.ts";
import { EventReader } from "../support/event_source.ts";
import {
  createTestApp,
  FakeClock,
  type FakeSocket,
  handshakeHeaders,
  infoOf,
  type TestAppOptions,
} from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";
import { Random } from "../support/random.ts";
import { SEED, sized } from "../support/run.ts";
import { StateEngine } from "../support/state_engine.ts";

function stateServer(options: TestAppOptions = {}) {
  const engine = new StateEngine(new FakeClock());
  const made = createTestApp({
    ...options,
    engine,
    settings: { MESSAGE_RATE: 0, BYTE_RATE: 0, POST_RATE: 0, ...options.settings },
  });
  const { connect, registry, clock } = made;
  let last = 0;
  /** Sets a key from code. */
  const set = (key: string, value: unknown = ++last) =>
    registry.room("ops").change({ key, value: JSON.stringify(value), sender: "code" });
  const hear = (query = "state=1") => connect(`/chat/ops?${query}`, { dialect: "v1" });
  const request = (method: string, path: string, body?: unknown, more: Fields = {}) =>
    made.ask(`/rooms/ops/state${path}`, {
      method,
      headers: { "content-type": "application/json", ...more as Record<string, string> },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  /** Ends the turn of the event loop. */
  const turn = async () => {
    await Promise.resolve();
    registry.turn.flush();
    // Rooms that are looked at when their turn ends.
    await nextTurn();
  };
  return { ...made, engine, set, hear, request, turn, clock };
}

/** What a socket was told since the last call. */
function told(socket: FakeSocket): Fields[] {
  const objects = socket.objects as Fields[];
  socket.take();
  return objects;
}

/** The types and revs of what a socket was told. */
function outline(socket: FakeSocket): unknown[] {
  return told(socket).map(({ type, rev, since }) =>
    since === undefined ? [type, rev] : [type, rev, since]
  );
}

Deno.test("who asks for state gets welcome with rev, the state, then each change; others get none", async () => {
  const { set, hear, connect, turn } = stateServer();
  const [other, plain] = [await hear(""), await connect("/chat/ops?state=x&every=1")];
  set("a", 1);
  const ann = await hear();
  set("b/c", { x: 1 });
  set("a", null);
  await turn();
  const [welcome, state, ...sets] = told(ann);
  assertEquals([welcome.type, welcome.rev], ["welcome", 1]);
  const { epoch } = welcome;
  const [entry] = state.entries as Fields[];
  assertEquals(state, { type: "state", room: "ops", epoch, rev: 1, entries: [entry] });
  assertEquals({ ...entry, time: 0 }, { key: "a", value: 1, sender: "code", time: 0, rev: 1 });
  assertEquals(sets.map(({ time: _, ...rest }) => rest), [
    { type: "set", room: "ops", rev: 2, sender: "code", key: "b/c", value: { x: 1 } },
    { type: "set", room: "ops", rev: 3, sender: "code", key: "a", value: null },
  ]);
  assertEquals(told(other).map(({ type, rev }) => [type, rev]), [["welcome", undefined]]);
  assertEquals(plain.frames, []);
});

Deno.test("a room without state begins with an empty state", async () => {
  const { hear, turn } = stateServer();
  const ann = await hear();
  await turn();
  assertEquals(told(ann)[1].entries, []);
});

Deno.test("a set passes rights, if, ids and bind, and is acked with its rev", async () => {
  const { hear, turn, engine } = stateServer();
  const ann = await hear();
  ann.say({ type: "set", key: "a", value: 1, id: "1" });
  ann.say({ type: "join", name: "Ann", session: "0123456789abcdef" });
  ann.say({ type: "set", key: "a", value: 1, id: "2", bind: true, ttl: 5 });
  ann.say({ type: "set", key: "a", value: 2, id: "3", if: 0 });
  ann.say({ type: "set", key: "a", value: 2, id: "4", if: 1 });
  await turn();
  const objects = told(ann);
  const epoch = objects[0].epoch;
  const answers = objects.filter(({ id }) => id !== undefined);
  assertEquals(answers, [
    {
      type: "error",
      code: "not_joined",
      message: "Invalid message format or not joined.",
      id: "1",
    },
    { type: "ack", id: "2", room: "ops", epoch, rev: 1 },
    { type: "error", code: "rev_conflict", message: "The key has changed.", id: "3", rev: 1 },
    { type: "ack", id: "4", room: "ops", epoch, rev: 2 },
  ]);
  const [bound, , free] = engine.changes;
  assert(bound.member !== undefined && free.member === undefined);
  assertEquals([bound.ttlSeconds, bound.id?.session, free.id?.session], [
    5,
    `set:connection:${bound.member}`,
    "set:session:0123456789abcdef",
  ]);
});

Deno.test("bad input costs its sender an error and nobody anything", async () => {
  const { hear, turn, connect, registry } = stateServer();
  const [ann, bob, plain] = [await hear(), await hear(), await connect("/chat/ops")];
  ann.say({ type: "join", name: "Ann" });
  await turn();
  for (const socket of [ann, bob, plain]) socket.take();
  const odd = [null, true, -1, 1.5, "x", [], {}, 1e300];
  const keys = [
    undefined,
    ...odd.filter((one) => one !== "x"),
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "a/../b",
    "é",
    "x".repeat(129),
  ];
  for (const key of keys) ann.say({ type: "set", key, value: 1 });
  ann.say({ type: "set", key: "a" });
  const more = [
    ...odd.map((ttl) => ({ ttl })),
    ...odd.map((value) => ({ if: value })),
    { ttl: 0 },
    { ttl: 31_536_001 },
    ...odd.filter((one) => one !== true).map((bind) => ({ bind })),
  ];
  for (const fields of more) ann.say({ type: "set", key: "a", value: 1, ...fields });
  const wanted = [
    ...odd.filter((one) => one !== true).map((state) => ({ state })),
    ...odd.map((every) => ({ every })),
    { every: 9 },
    { every: 60_001 },
    ...odd.filter((one) => one !== "x").map((since) => ({ since })),
  ];
  for (const fields of wanted) ann.say({ type: "listen", room: "b", ...fields });
  for (const rev of [undefined, null, "1", 1.5, {}]) ann.say({ type: "got", rev });
  await turn();
  const errors = told(ann);
  const bad = keys.length;
  assertEquals(errors.map(({ code }) => code), [
    ...Array(bad).fill("bad_state_key"),
    ...Array(1 + more.length + wanted.length + 5).fill("bad_message"),
  ]);
  plain.say({ type: "set", key: "a", value: 1 });
  assertEquals(told(plain), [{ type: "error", message: "Invalid message format or not joined." }]);
  assertEquals([told(bob), registry.rooms.has("b")], [[], false]);
});

Deno.test("what a URL or header says of state is bad: its sender has a 400, or the whole state for a since", async () => {
  const { ask, hear, set, turn, request, engine, registry } = stateServer();
  set("a", 1);
  const bob = await hear();
  await turn();
  const [{ epoch }] = told(bob);
  const odd = ["", "null", "true", "-1", "1.5", "1e300", "x", "[]", "{}", '"1"'];
  const statusOf = async (response: Promise<Response>) => {
    const { status, body } = await response;
    await body?.cancel();
    return status;
  };
  const wanted = [
    ...odd.map((state) => ({ state })),
    ...[...odd, "9", "60001"].map((every) => ({ state: "1", every })),
  ];
  for (const one of wanted) {
    const query = new URLSearchParams(one);
    const headers = handshakeHeaders("v1");
    assertEquals(await statusOf(ask(`/chat/new?${query}`, { headers })), 400, `${query}`);
    assertEquals(await statusOf(ask(`/rooms/new/events?${query}`)), 400, `${query}`);
  }
  for (const ttl of [...odd, "0", "31536001"]) {
    const path = `/b?${new URLSearchParams({ ttl })}`;
    for (const method of ["PUT", "DELETE"]) {
      assertEquals(
        await statusOf(request(method, path, method === "PUT" ? 1 : undefined)),
        400,
        ttl,
      );
    }
  }
  for (
    const rev of [
      "1",
      "*",
      'W/"1"',
      '""',
      '"-1"',
      '"1.5"',
      '"x"',
      '"1", "2"',
      `"${"9".repeat(16)}"`,
    ]
  ) {
    assertEquals(await statusOf(request("PUT", "/b", 1, { "if-match": rev })), 400, rev);
  }
  assertEquals([told(bob), engine.changes.length, registry.rooms.has("new")], [[], 1, false]);
  for (const since of [...odd, ":", `${epoch}:`, `${epoch}:-1`, `${epoch}:1.5`, `${epoch}:9`]) {
    const query = new URLSearchParams({ state: "1", since });
    const cid = await hear(`${query}`);
    await turn();
    assertEquals(outline(cid), [["welcome", 1], ["state", 1]], since);
    const { entries, ...rest } = await (await request("GET", `?${query}`)).json();
    assertEquals([rest.since, entries.length], [undefined, 1], since);
    cid.end();
  }
  // A value is any JSON but null.
  const values = [true, -1, 1.5, "x", [], {}, 1e300, [null], false, 0, ""];
  for (const value of values) assertEquals(await statusOf(request("PUT", "/b", value)), 200);
  await turn();
  assertEquals(told(bob).map(({ value }) => value), values);
});

Deno.test("a resume by since gets what changed behind it, another epoch the whole state", async () => {
  const { hear, set, turn } = stateServer();
  const first = await hear();
  set("a");
  set("b");
  set("a");
  await turn();
  const { epoch } = told(first)[0];
  first.end();
  set("b", null);
  const again = await hear(`state=1&since=${epoch}:2&after=${epoch}:0`);
  const other = await hear(`state=1&since=other:2`);
  await turn();
  const [, state] = told(again);
  assertEquals((state.entries as Fields[]).map(({ key, value }) => [key, value]), [["a", 3], [
    "b",
    null,
  ]]);
  assertEquals([state.since, state.rev], [2, 4]);
  assertEquals(outline(other), [["welcome", 4], ["state", 4]]);
});

Deno.test("a long state comes in frames of 64 kB with more", async () => {
  const { hear, set, turn } = stateServer();
  for (let i = 0; i < 20; i++) set(`k${i}`, "x".repeat(10_000));
  const ann = await hear();
  await turn();
  assert(ann.frames.every((frame) => frame.length <= 65_536), "a frame is too long");
  const states = told(ann).filter(({ type }) => type === "state");
  assertEquals(states.map(({ more }) => more), [true, true, true, undefined]);
  assertEquals(states.flatMap(({ entries }) => entries as Fields[]).length, 20);
});

Deno.test("a slow reader gets no changes, then one state with what it missed; the others get each", async () => {
  const { hear, set, turn, clock } = stateServer();
  const [slow, quick] = [await hear(), await hear()];
  set("a");
  await turn();
  assertEquals(outline(slow), [["welcome", 0], ["state", 0], ["set", 1]]);
  told(quick);
  slow.bufferedAmount = 200_000;
  for (let i = 0; i < 1_000; i++) set("a");
  set("b");
  await turn();
  assertEquals([outline(slow), told(quick).length], [[], 1_001]);
  slow.bufferedAmount = 0;
  clock.tick(50);
  await turn();
  assertEquals(outline(slow), [["state", 1_002, 1]]);
  set("b");
  await turn();
  assertEquals(outline(slow), [["set", 1_003]]);
  assertEquals([slow.closes, quick.closes], [[], []]);
});

Deno.test("got bounds what is under way to 64 kB; with got behind it comes one state", async () => {
  const { hear, set, turn } = stateServer();
  const ann = await hear();
  await turn();
  ann.say({ type: "got", rev: 0 });
  for (let i = 0; i < 200; i++) set("a", "x".repeat(1_000));
  await turn();
  const sets = told(ann).filter(({ type }) => type === "set");
  const bytes = sets.reduce((sum, set) => sum + JSON.stringify(set).length, 0);
  assert(bytes > 50_000 && bytes <= 65_536 + 200 * 60, `${bytes} bytes are under way`);
  ann.say({ type: "got", rev: Number(sets[3].rev) });
  await turn();
  assertEquals(told(ann), []);
  const last = Number(sets.at(-1)!.rev);
  ann.say({ type: "got", rev: last });
  await turn();
  assertEquals(outline(ann), [["state", 200, last]]);
});

Deno.test("every gives changes together, with one encoding, and costs nothing where nothing changes", async () => {
  const { hear, set, turn, clock } = stateServer();
  const before = clock.timerCount;
  const viewers = [await hear("state=1&every=100"), await hear("state=1&every=100")];
  await turn();
  viewers.forEach(told);
  const idle = clock.timerCount;
  for (let i = 0; i < 50; i++) set("a");
  set("b");
  assertEquals(clock.timerCount, idle + 1);
  // Nothing was told for long: the first is told at once, what comes then after 100 ms.
  clock.tick(0);
  await turn();
  assertEquals(viewers.map(outline), [[["state", 51, 0]], [["state", 51, 0]]]);
  assertEquals(clock.timerCount, idle);
  set("a");
  clock.tick(60);
  set("b");
  clock.tick(39);
  await turn();
  assertEquals(viewers.map(outline), [[], []]);
  const { since } = StateMap.prototype;
  let reads = 0;
  StateMap.prototype.since = function (rev) {
    reads++;
    return since.call(this, rev);
  };
  using _ = { [Symbol.dispose]: () => void (StateMap.prototype.since = since) };
  clock.tick(1);
  await turn();
  assertEquals(reads, 1, "what is encoded is read once for all of them");
  assertEquals(viewers.map(outline), [[["state", 53, 51]], [["state", 53, 51]]]);
  set("b");
  viewers.forEach((viewer) => viewer.end());
  assertEquals(clock.timerCount, before);
});

Deno.test("a room that begins anew says welcome with rev and its whole state", async () => {
  const { hear, set, turn, engine, clock } = stateServer();
  const [ann, paced] = [await hear(), await hear("state=1&every=100")];
  set("a");
  await turn();
  ann.take();
  paced.take();
  engine.reset("anew");
  set("z");
  await turn();
  clock.tick(100);
  await turn();
  const got = told(ann);
  assertEquals(got.map(({ type, rev, epoch }) => [type, rev, epoch]), [
    ["welcome", 0, "anew"],
    ["state", 0, "anew"],
    ["set", 1, undefined],
  ]);
  assertEquals(told(paced).map(({ type, rev, since }) => [type, rev, since]), [
    ["welcome", 0, undefined],
    ["state", 1, undefined],
  ]);
});

Deno.test("state over HTTP: read, set, remove, conditions, errors, preflight", async () => {
  const { request, ask, hear } = stateServer();
  await hear();
  const answer = async (response: Promise<Response>) => {
    const { status } = await response;
    const { code, rev } = await (await response).json();
    return [status, code ?? rev, code && rev];
  };
  assertEquals(await answer(request("PUT", "/dev/1", 5)), [200, 1, undefined]);
  assertEquals(await answer(request("PUT", "/dev/1", 6, { "if-match": '"0"' })), [
    412,
    "rev_conflict",
    1,
  ]);
  assertEquals(await answer(request("PUT", "/dev/1?ttl=9&sender=Bob", 6, { "if-match": '"1"' })), [
    200,
    2,
    undefined,
  ]);
  for (const bad of ["?ttl=x", "?ttl=0", "?ttl="]) {
    assertEquals(await answer(request("PUT", `/a${bad}`, 6)), [400, "bad_message", undefined]);
  }
  assertEquals(await answer(request("PUT", "/a", null)), [400, "bad_message", undefined]);
  const inexact = {
    method: "PUT",
    body: "9007199254740993.0",
    headers: { "content-type": "application/json" },
  };
  assertEquals(await answer(ask("/rooms/ops/state/a", inexact)), [400, "bad_message", undefined]);
  assertEquals(await answer(request("PUT", "/a", 1, { "if-match": "1" })), [
    400,
    "bad_message",
    undefined,
  ]);
  assertEquals(await answer(request("PUT", "/a//b", 1)), [400, "bad_state_key", undefined]);
  const { epoch, entries } = await (await request("GET", "")).json();
  assertEquals([entries[0].key, entries[0].value, entries[0].sender], ["dev/1", 6, "Bob"]);
  assertEquals(await answer(request("DELETE", "/dev/1")), [200, 3, undefined]);
  const since = await (await request("GET", `?since=${epoch}:2`)).json();
  assertEquals([since.room, since.rev, since.since, since.entries[0].value], ["ops", 3, 2, null]);
  const preflight = await ask("/rooms/ops/state/a", { method: "OPTIONS" });
  assertEquals(preflight.headers.get("allow"), "PUT, DELETE");
  const wrong = await request("POST", "/a", 1);
  assertEquals([wrong.status, wrong.headers.get("allow")], [405, "PUT, DELETE"]);
  await wrong.body?.cancel();
});

Deno.test("an event stream has state with ids of three parts, which resume both", async () => {
  const { ask, set, turn } = stateServer();
  set("a", 1);
  const open = async (id?: string) =>
    new EventReader(
      await ask("/rooms/ops/events?state=1", { headers: id ? { "last-event-id": id } : {} }),
    );
  await using reader = await open();
  const welcome = await reader.next();
  const { epoch } = JSON.parse(welcome.data!);
  assertEquals([welcome.event, welcome.id], ["welcome", undefined]);
  const whole = await reader.next();
  assertEquals([whole.event, whole.id], ["state", `${epoch}:0:1`]);
  set("a", 2);
  const change = await reader.next();
  const state = JSON.parse(change.data!);
  assertEquals([change.event, change.id, state.since, state.entries[0].value], [
    "state",
    `${epoch}:0:2`,
    1,
    2,
  ]);
  await turn();
  await using again = await open(`${epoch}:0:1`);
  await again.next();
  assertEquals(JSON.parse((await again.next()).data!).since, 1);
  await using whole2 = await open(`${epoch}:0`);
  await whole2.next();
  assertEquals(JSON.parse((await whole2.next()).data!).since, undefined);
});

Deno.test("a paced event stream resumes behind a chat with just the changes that it was not told", async () => {
  const { ask, set, turn, registry, clock } = stateServer();
  for (const key of ["a", "b"]) set(key, 1);
  const path = "/rooms/ops/events?state=1&every=100";
  const open = async (id = "") =>
    new EventReader(await ask(path, { headers: { "last-event-id": id } }));
  await using reader = await open();
  await reader.next();
  const { id } = await reader.next();
  clock.tick(100);
  set("a", 2);
  clock.tick(0);
  assertEquals((await reader.nextData()).rev, 3);
  set("b", 2);
  registry.room("ops").submit({ sender: "Ann", message: "1" });
  const chat = await reader.next();
  assertEquals(chat.id, id!.replace("0:2", "1:3"));
  await using again = await open(chat.id);
  await again.next();
  const { since, rev, entries } = await again.nextData();
  assertEquals([since, rev, entries.map(({ key }: Fields) => key)], [3, 4, ["b"]]);
  await turn();
});

Deno.test("an engine that answers later costs no change, and gives none twice", async () => {
  const { hear, set, turn, engine } = stateServer();
  const gate = Promise.withResolvers<void>();
  engine.gate = gate.promise;
  const [ann, bob] = [await hear(), await hear()];
  set("a");
  set("b");
  await turn();
  assertEquals([ann.frames, engine.reads], [[], 1]);
  gate.resolve();
  await turn();
  set("a");
  await turn();
  const expected = [["welcome", 2], ["state", 2], ["set", 3]];
  assertEquals([outline(ann), outline(bob)], [expected, expected]);
  const again = Promise.withResolvers<void>();
  engine.gate = again.promise;
  engine.reset("anew");
  set("c");
  await turn();
  assertEquals(outline(ann), [["welcome", 0]]);
  again.resolve();
  await turn();
  set("c");
  await turn();
  assertEquals(outline(ann), [["state", 1], ["set", 2]]);
});

Deno.test("changes that the process missed come as one state with since, and are nobody's gap", async () => {
  const { hear, set, turn, engine, clock } = stateServer();
  const [ann, paced, other] = [await hear(), await hear("state=1&every=50"), await hear("after=")];
  for (const key of ["a", "b"]) set(key);
  await turn();
  clock.tick(50);
  await turn();
  for (const socket of [ann, paced, other]) told(socket);
  const gate = Promise.withResolvers<void>();
  engine.gate = gate.promise;
  engine.isCut = true;
  for (const [key, value] of [["b", 1], ["b", 2], ["a", null]] as const) set(key, value);
  engine.heal();
  set("c", 3);
  await turn();
  assertEquals([ann, paced, other].map(outline), [[], [], []]);
  gate.resolve();
  await turn();
  set("d", 4);
  await turn();
  clock.tick(50);
  await turn();
  const [missed, next] = told(ann);
  assertEquals([missed.type, missed.since, missed.rev], ["state", 2, 6]);
  const entries = (missed.entries as Fields[]).map(({ key, value }) => [key, value]);
  assertEquals(entries, [["b", 2], ["a", null], ["c", 3]]);
  assertEquals([next.type, next.rev], ["set", 7]);
  assertEquals([outline(paced), outline(other)], [[["state", 7, 2]], []]);
});

Deno.test("who says got goes on saying it in a room that begins anew, and gets each change there", async () => {
  const { hear, set, turn, engine, clock } = stateServer();
  const ann = await hear();
  for (let i = 0; i < 300; i++) set("a");
  await turn();
  ann.say({ type: "got", rev: 300 });
  engine.reset("anew");
  clock.tick(50);
  await turn();
  told(ann);
  for (let rev = 1; rev <= 100; rev++) {
    set("a", "x".repeat(1_000));
    await turn();
    assertEquals(outline(ann), [["set", rev]]);
    ann.say({ type: "got", rev });
  }
});

Deno.test("a state that was read too early is read again: nobody's map misses a change", async () => {
  const { hear, set, turn, engine } = stateServer();
  await hear("");
  set("a", 1);
  const early = await engine.state("ops");
  const { state } = engine;
  engine.state = () => {
    engine.state = state;
    return Promise.resolve(early);
  };
  set("b", 2);
  const ann = await hear();
  set("c", 3);
  await turn();
  const entries = told(ann).flatMap(({ type, entries, key, value }) =>
    type === "set"
      ? [[key, value]]
      : (entries as Fields[] ?? []).map(({ key, value }) => [key, value])
  );
  assertEquals(Object.fromEntries(entries), { a: 1, b: 2, c: 3 });
});

Deno.test("near QUEUE_MB a state that fits no queue waits, and evicts nobody", async () => {
  const { hear, set, turn, clock, registry } = stateServer();
  const [ann, paced] = [await hear(), await hear("state=1&every=50")];
  ann.bufferedAmount = paced.bufferedAmount = 200_000;
  for (let i = 0; i < 30; i++) set(`k${i}`, "x".repeat(5_000));
  await turn();
  [ann, paced].forEach(told);
  // What others have not read leaves little for each.
  const { queueLimit } = registry;
  registry.queueLimit = 65_536;
  ann.bufferedAmount = paced.bufferedAmount = 0;
  clock.tick(50);
  await turn();
  assertEquals([ann, paced].map(outline), [[], []]);
  // Who comes now waits for the whole of it, too.
  const late = await hear();
  late.isStuck = true;
  clock.tick(50);
  await turn();
  assertEquals(late.frames, []);
  registry.queueLimit = queueLimit;
  clock.tick(50);
  await turn();
  assertEquals(outline(late), [["welcome", 30], ...Array(3).fill(["state", 30])]);
  assertEquals(late.closes, []);
  for (const socket of [ann, paced]) {
    assertEquals(outline(socket), Array(3).fill(["state", 30, 0]));
    assertEquals(socket.closes, []);
  }
});

Deno.test("a set costs its sender what a message does, of MESSAGE_RATE, BYTE_RATE and POST_RATE", async () => {
  const allowed = async (
    settings: TestAppOptions["settings"],
    send: (server: ReturnType<typeof stateServer>) => Promise<() => Promise<boolean>>,
  ) => {
    const isTaken = await send(stateServer({ settings }));
    for (let count = 0; count < 500; count++) if (!await isTaken()) return count;
  };
  const bySocket = (fields: Fields) => async ({ hear, turn }: ReturnType<typeof stateServer>) => {
    const ann = await hear("");
    ann.say({ type: "join", name: "Ann" });
    let count = 0;
    return async () => {
      ann.say({ ...fields, id: `${1_000 + count++}` });
      await turn();
      return told(ann).every(({ code }) => code !== "rate_limited");
    };
  };
  const text = "x".repeat(2_000);
  // Both lines have the same length.
  const set = bySocket({ type: "set", key: "k", value: text });
  const chat = bySocket({ type: "chat", message: text + " ".repeat(7) });
  for (const settings of [{ MESSAGE_RATE: 5 }, { BYTE_RATE: 20_000 }]) {
    const counts = [await allowed(settings, set), await allowed(settings, chat)];
    assert(counts[0]! > 0 && counts[0] === counts[1], `${counts} of ${JSON.stringify(settings)}`);
  }
  const byPost = (method: string, path: string) => ({ ask }: ReturnType<typeof stateServer>) => {
    const headers = { "content-type": "application/json" };
    return Promise.resolve(async () => {
      const request = { method, headers, body: '{"message":"x"}' };
      const { status, body } = await ask(path, request, infoOf("192.0.2.1"));
      await body?.cancel();
      return status !== 429;
    });
  };
  const counts = await Promise.all([
    allowed({ POST_RATE: 5 }, byPost("PUT", "/rooms/ops/state/k")),
    allowed({ POST_RATE: 5 }, byPost("POST", "/rooms/ops/messages")),
  ]);
  assert(counts[0]! > 0 && counts[0] === counts[1], `${counts} of POST_RATE`);
});

Deno.test("a key may be escaped in a path", async () => {
  const { request, engine } = stateServer();
  await (await request("PUT", "/a%3Ab/c", 1)).body?.cancel();
  assertEquals(engine.changes[0].key, "a:b/c");
});

Deno.test("onSet changes a value, or refuses it", async () => {
  const { request } = stateServer({
    onSet: ({ key, value, name, via }) => ({ value: [key, value, name, via] }),
  });
  await (await request("PUT", "/a", 1)).body?.cancel();
  const { entries } = await (await request("GET", "")).json();
  assertEquals(entries[0].value, ["a", 1, "Anonymous", "http"]);
});

/** A subscriber as the protocol says: applies what it is told, and knows where it stands. */
class Model {
  map = new Map<string, unknown>();
  epoch = "";
  rev = -1;
  #parts: Fields[] = [];

  /** Applies an object, and says whether it now stands at a rev. */
  apply(object: Fields): boolean {
    if (object.type === "set") {
      assertEquals(object.rev, this.rev + 1, "a change is missing");
      this.#put(object);
    } else if (object.type === "state") {
      this.#parts.push(...object.entries as Fields[]);
      this.epoch = String(object.epoch);
      if (object.more) return false;
      if (object.since === undefined) this.map.clear();
      else assertEquals(object.since, this.rev, "a state begins elsewhere");
      for (const entry of this.#parts.splice(0)) this.#put(entry);
    } else return false;
    this.rev = Number(object.rev);
    return true;
  }

  #put({ key, value }: Fields): void {
    if (value === null) this.map.delete(String(key));
    else this.map.set(String(key), value);
  }
}

/** Plays a schedule of changes, resumes, slow readers and those who say what they got. */
async function playSchedule(seed: number): Promise<void> {
  const random = new Random(seed);
  const { hear, set, turn, clock, engine } = stateServer();
  const history = new Map<number, Map<string, unknown>>([[0, new Map()]]);
  const clients: { model: Model; socket: FakeSocket; query: string; says: boolean }[] = [];
  for (const query of ["state=1", "state=1", "state=1&every=30", "state=1&every=100"]) {
    const says = random.chance(0.5);
    clients.push({ model: new Model(), socket: await hear(query), query, says });
  }
  const check = () => {
    for (const { model, socket } of clients) {
      for (const object of told(socket)) {
        if (!model.apply(object)) continue;
        assertEquals(model.map, history.get(model.rev), `seed ${seed}, rev ${model.rev}`);
      }
    }
  };
  for (let step = 0; step < 60; step++) {
    const client = random.pick(clients);
    const { socket, model } = client;
    const what = random.below(8);
    if (what < 4) {
      for (let i = random.below(20); i >= 0; i--) {
        const value = random.chance(0.3)
          ? null
          : "x".repeat(random.below(random.pick([10, 4_000])));
        const key = `k${random.below(8)}`;
        const map = new Map(history.get(engine.map.rev));
        if (value === null) map.delete(key);
        else map.set(key, value);
        // What the engine refuses to count is no change.
        if (value !== null || engine.map.get(key)) history.set(engine.map.rev + 1, map);
        set(key, value);
      }
    } else if (what === 4) socket.bufferedAmount = random.pick([0, 200_000]);
    else if (what === 5) clock.tick(random.pick([10, 50, 100]));
    else if (what === 6 && client.says && model.rev >= 0) {
      socket.say({ type: "got", rev: model.rev });
    } else if (what === 7) {
      await turn();
      check();
      socket.drop();
      client.socket = await hear(`${client.query}&since=${model.epoch}:${model.rev}`);
    }
    if (random.chance(0.5)) await turn();
    check();
  }
  for (let round = 0; round < 3; round++) {
    for (const { socket, model, says } of clients) {
      socket.bufferedAmount = 0;
      if (says && model.rev >= 0) socket.say({ type: "got", rev: model.rev });
    }
    clock.tick(100);
    await turn();
    check();
  }
  for (const { model, socket } of clients) {
    assertEquals([model.rev, socket.closes], [engine.map.rev, []], `seed ${seed} ends behind`);
  }
}

/** They mostly wait for the end of a turn. */
const SCHEDULES_AT_ONCE = 50;

Deno.test("every subscriber's map equals the room's at each rev that it was told", async () => {
  const end = SEED * 10_000 + sized(25, 2_000);
  for (let seed = SEED * 10_000; seed < end; seed += SCHEDULES_AT_ONCE) {
    const count = Math.min(SCHEDULES_AT_ONCE, end - seed);
    await Promise.all(Array.from({ length: count }, (_, i) => playSchedule(seed + i)));
  }
});

Deno.test("a program sets, reads and hears state", async () => {
  await using parley = createParley({ engine: new StateEngine(new FakeClock()) });
  const heard = parley.subscribe("ops", { state: true })[Symbol.asyncIterator]();
  const next = async () => (await heard.next()).value;
  assertEquals((await next()).rev, 0);
  assertEquals((await next()).entries, []);
  assertEquals((await parley.set("ops", "a", [1])).rev, 1);
  const { type, key, value, sender } = await next();
  assertEquals([type, key, value, sender], ["set", "a", [1], "Anonymous"]);
  const { room, rev, entries } = await parley.state("ops");
  assertEquals([room, rev, entries[0].value], ["ops", 1, [1]]);
  const error = await assertRejects(() => parley.set("ops", "a", 2, { if: 0 }), ParleyError);
  assertEquals(error.code, "rev_conflict");
  await assertRejects(() => parley.set("ops", "a//b", 2), TypeError, "Cannot use key");
  await assertRejects(() => parley.set("ops", "a", 2, { ttl: 0 }), TypeError, "Cannot set a");
  await heard.return?.(undefined);
});
