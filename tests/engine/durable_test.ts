import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { DEDUPE_MS } from "../../handlers/engine/dedupe.ts";
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import { type Engine, isRefusal } from "../../handlers/engine/engine.ts";
import type { HistoryLimits } from "../../handlers/engine/room_rules.ts";
import type { Cursor } from "../../handlers/protocol/position.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { FakeClock, RecordingLog } from "../support/fakes.ts";
import { MemoryStore } from "../support/memory_store.ts";
import { granted, hear, people, Recorder } from "../support/recorder.ts";
import { together } from "../support/together.ts";
import { draft, engineContract, range, ROOMY } from "./contract.ts";
import { put, setsOf, stateContract, stateOf } from "./state_contract.ts";

async function make(limits: HistoryLimits) {
  const folder = await Deno.makeTempDir();
  const clock = new FakeClock(Date.now());
  const engine = await createDurableEngine(`${folder}/data.db`, limits, clock, silentLog);
  return {
    nodes: [engine, engine],
    pass: (ms: number) => clock.tick(ms),
    stop: () => Deno.remove(folder, { recursive: true }),
  };
}

const step = together("a durable engine with its thread");
engineContract("durable", make, step);
stateContract("durable", make, step);

const UNAVAILABLE = { refused: "unavailable" } as const;

/** An engine over a store that is held in memory. */
async function engineOn(store = new MemoryStore(), limits: Partial<HistoryLimits> = {}) {
  const clock = new FakeClock();
  const log = new RecordingLog();
  const open = (_file: string, take: Parameters<MemoryStore["read"]>[0]) => {
    store.read(take);
    return Promise.resolve(store);
  };
  const engine = await createDurableEngine("memory", { ...ROOMY, ...limits }, clock, log, open);
  return { engine, store, clock, log };
}

/** One turn of the event loop: promises that can settle have. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function textsOf(engine: Engine, room = "r"): Promise<string[]> {
  return (await granted(engine.read(room))).chats.map(({ message }) => message);
}

Deno.test("nobody is told or hears anything before it is committed", async () => {
  const { engine, store } = await engineOn();
  const { recorder, head: { epoch } } = await hear(engine, "r");
  await turn();
  store.hold();
  const answers: unknown[] = [];
  const answered = (name: string, value: unknown) =>
    Promise.resolve(value).then((value) => answers.push([name, value]));
  const place = { epoch, seq: 1 };
  answered("publish", engine.publish("r", draft("1", { session: "s", id: "1" })));
  answered("host", Promise.resolve(engine.host("other", new Recorder())).then(isRefusal));
  // All else changes nothing that is kept, and waits behind the commit that has begun.
  await turn();
  answered("repeat", engine.publish("r", draft("1", { session: "s", id: "1" })));
  answered("set", put(engine, "k", 1));
  answered("state", stateOf(engine));
  answered("join", engine.join("r", "m", "Ann"));
  engine.relay("r", { type: "binary", bytes: new Uint8Array([1]), from: "m" });
  answered("members", engine.members("r"));
  answered("read", Promise.resolve(engine.read("r")).then((span) => "seq" in span && span.seq));
  answered("rooms", granted(engine.rooms("", 9)).then((rooms) => rooms.at(-1)!.seq));
  engine.leave("r", "m");
  await turn();
  await turn();
  assertEquals([answers, recorder.events], [[], []]);
  store.release();
  await recorder.until(({ events }) => events.length === 5);
  await turn();
  assertEquals(answers.map((answer) => (answer as unknown[])[0]).slice(0, 2), [
    "publish",
    "repeat",
  ]);
  assertEquals(
    new Map(answers as [string, unknown][]),
    new Map<string, unknown>([
      ["publish", place],
      ["repeat", place],
      ["set", { epoch, rev: 1 }],
      ["state", "1 k=1"],
      ["join", undefined],
      ["members", people("Ann")],
      ["read", 1],
      ["rooms", 1],
      ["host", false],
    ]),
  );
  const types = recorder.events.map((event) => event.type);
  assertEquals(types, ["chat", "set", "status", "binary", "status"]);
  await engine.close();
});

Deno.test("with nothing to wait for, reads and repeats are answered in the same call", async () => {
  const { engine } = await engineOn();
  const { recorder } = await hear(engine, "r");
  const key = { session: "s", id: "1" };
  const place = await granted(engine.publish("r", draft("1", key)));
  await recorder.until(({ chats }) => chats.length === 1);
  assertEquals(engine.publish("r", draft("1", key)), place);
  assert(!(engine.read("r") instanceof Promise));
  engine.relay("r", { type: "binary", bytes: new Uint8Array([1]), from: "m" });
  assertEquals(recorder.events.length, 2);
  await engine.close();
});

Deno.test("answers that take longer than a turn may go on in the next ones", async () => {
  const { engine } = await engineOn();
  const { now } = performance;
  let ms = 0;
  // One answer fits into the time of a turn.
  performance.now = () => ms += 6;
  try {
    const places = await Promise.all(range(1, 5).map((n) => engine.publish("r", draft(`${n}`))));
    assertEquals(places.map((place) => (place as Cursor).seq), range(1, 5));
  } finally {
    performance.now = now;
  }
  await engine.close();
});

Deno.test("what comes while a batch is committed is the next one", async () => {
  const { engine, store } = await engineOn();
  await hear(engine, "r");
  const before = store.given.length;
  store.hold();
  const first = engine.publish("r", draft("0"));
  await turn();
  const rest = range(1, 100).map((i) => engine.publish("r", draft(`${i}`)));
  await turn();
  assertEquals(store.given.length, before + 1);
  store.release();
  await Promise.all([first, ...rest]);
  assertEquals(store.given.length, before + 2);
  await engine.close();
});

Deno.test("while the store fails callers are refused; then the same batch is committed and heard", async () => {
  const { engine, store, clock, log } = await engineOn();
  const { recorder, head: { epoch } } = await hear(engine, "r");
  await engine.join("r", "known", "Zoë");
  store.failure = "disk full";
  const key = { session: "s", id: "1" };
  const answers = [
    engine.publish("r", draft("1", key)),
    engine.join("r", "m", "Ann"),
    engine.join("r", "known", "Eve"),
    engine.host("new", new Recorder()),
    engine.read("r"),
    engine.members("r"),
  ];
  assertEquals(await Promise.all(answers), answers.map(() => UNAVAILABLE));
  assertEquals(engine.isReady(), false);
  const refused = [
    engine.publish("r", draft("never")),
    engine.join("r", "late", "Bob"),
    engine.read("r"),
    engine.host("late", new Recorder()),
    engine.rooms("", 9),
  ];
  assertEquals(refused, refused.map(() => UNAVAILABLE));
  const failed = store.given.at(-1);
  for (let i = 0; i < 3; i++) {
    clock.tick(1_000);
    await turn();
    assertEquals(store.given.at(-1), failed);
  }
  assertEquals(recorder.chats, []);
  store.failure = undefined;
  clock.tick(1_000);
  await recorder.until(({ chats }) => chats.length === 1);
  assertEquals(engine.isReady(), true);
  assertEquals(log.lines.map(({ level, text }) => `${level}: ${text}`), [
    "error: Cannot store: disk full",
    "info: The store works again",
  ]);
  assertEquals(await engine.publish("r", draft("1", key)), { epoch, seq: 1 });
  assertEquals(await textsOf(engine), ["1"]);
  // The others heard them come and go, as nobody was told that they had joined.
  assertEquals(await engine.members("r"), people("Zoë"));
  assertEquals((await granted(engine.rooms("", 9))).map(({ room }) => room), ["r"]);
  await engine.close();
});

Deno.test("a store that does not answer counts as failed until it does", async () => {
  const { engine, store, clock } = await engineOn();
  const { recorder, head: { epoch } } = await hear(engine, "r");
  await turn();
  store.hold();
  const key = { session: "s", id: "1" };
  const answer = engine.publish("r", draft("1", key));
  await turn();
  clock.tick(4_999);
  assertEquals(engine.isReady(), true);
  clock.tick(1);
  assertEquals([await answer, engine.isReady()], [UNAVAILABLE, false]);
  const given = store.given.length;
  store.release();
  await recorder.until(({ chats }) => chats.length === 1);
  assertEquals(engine.isReady(), true);
  assertEquals(await engine.publish("r", draft("1", key)), { epoch, seq: 1 });
  assertEquals(store.given.length, given);
  await engine.close();
});

Deno.test("what waits for a commit is bounded: beyond it a message is unavailable", async () => {
  const { engine, store } = await engineOn();
  const { recorder } = await hear(engine, "r");
  await turn();
  store.hold();
  const message = JSON.stringify("x".repeat(1_000_000));
  const answers = range(1, 100).map(() => engine.publish("r", draft(message)));
  const taken = answers.filter((answer) => answer instanceof Promise).length;
  assert(taken > 20 && taken < 50, `${taken}`);
  assertEquals(answers[taken], UNAVAILABLE);
  assertEquals(engine.join("r", "m", "Ann"), UNAVAILABLE);
  engine.relay("r", { type: "binary", bytes: new Uint8Array(1), from: "m" });
  store.release();
  await recorder.until(({ chats }) => chats.length === taken);
  assert(!isRefusal(await engine.publish("r", draft("1"))));
  assertEquals(recorder.events.length, taken + 1);
  await engine.close();
});

Deno.test("opened again, rooms go on: numbers, epoch, messages, ids", async () => {
  const { engine, store, clock } = await engineOn();
  const { epoch } = await granted(engine.publish("r", draft("1")));
  const key = { session: "s", id: "1", digest: "d" };
  await granted(engine.publish("r", draft("2", key)));
  const quiet = await hear(engine, "quiet");
  const again = await engineOn(store.killed());
  again.clock.tick(clock.now() - again.clock.now());
  assertEquals(await textsOf(again.engine), ["1", "2"]);
  assertEquals(await again.engine.publish("r", draft("2", key)), { epoch, seq: 2 });
  const other = await again.engine.publish("r", draft("3", { ...key, digest: "e" }));
  assertEquals(other, { refused: "conflict" });
  assertEquals(await again.engine.publish("r", draft("3")), { epoch, seq: 3 });
  assertEquals((await hear(again.engine, "quiet")).head.epoch, quiet.head.epoch);
  again.clock.tick(DEDUPE_MS);
  assertEquals((await granted(again.engine.publish("r", draft("4", key)))).seq, 4);
  for (const each of [engine, again.engine]) await each.close();
});

for (const skipsDeletes of [false, true]) {
  Deno.test(`opened again with other limits, what is kept has no gap (${skipsDeletes ? "nothing" : "all"} deleted)`, async () => {
    let store = new MemoryStore();
    let epoch = "";
    let count = 0;
    const session = async (historySize: number, messages: number, limits = {}) => {
      const { engine } = await engineOn(store, { historySize, ...limits });
      const before = (await granted(engine.read("r"))).chats.map(({ seq }) => seq);
      for (let i = 0; i < messages; i++) {
        const place = await granted(engine.publish("r", draft(`${++count}`)));
        assertEquals(place, { epoch: epoch ||= place.epoch, seq: count });
      }
      await engine.close();
      store = store.killed();
      store.skipsDeletes = skipsDeletes;
      return before;
    };
    assertEquals(await session(100, 5), []);
    assertEquals(await session(0, 3), []);
    assertEquals(await session(100, 2), [], "3 messages between them were not kept");
    assertEquals(await session(100, 2), [9, 10]);
    assertEquals(await session(2, 0), [11, 12]);
    assertEquals(await session(100, 0, { historyMb: 0.000_3 }), [12]);
  });
}

Deno.test("a room whose messages have expired keeps its numbers", async () => {
  const { engine, store, clock } = await engineOn(undefined, { historySeconds: 60 });
  await hear(engine, "r");
  const { epoch } = await granted(engine.publish("r", draft("1")));
  clock.tick(70_000);
  await turn();
  await turn();
  const again = await engineOn(store.killed(), { historySeconds: 60 });
  assertEquals(await again.engine.publish("r", draft("2")), { epoch, seq: 2 });
  for (const each of [engine, again.engine]) await each.close();
});

Deno.test("what was dropped goes from the store, too, some at a time", async () => {
  const { engine, store, clock } = await engineOn(undefined, { historySeconds: 60 });
  const answers = range(1, 5_000).map((i) =>
    engine.publish(`r${i % 500}`, draft("x", { session: "s", id: `${i}` }))
  );
  await Promise.all(answers);
  assertEquals(store.size, 10_500);
  clock.tick(DEDUPE_MS + 70_000);
  while (store.size > 0) await turn();
  const most = Math.max(...store.given.map(({ deletes }) => deletes.length));
  assert(most > 0 && most < 2_000, `${most} in one batch`);
  assertEquals(engine.stats().rooms, 0);
  await engine.close();
});

for (const maxRooms of [5, 100]) {
  Deno.test(`whenever the process ends, what was acked is there, in its place (MAX_ROOMS ${maxRooms})`, async () => {
    // A walk that can be played again.
    let state = 1;
    const random = (below: number) => (state = (state * 48_271) % 2_147_483_647) % below;
    const limits = { historySize: 20, historySeconds: 1_000_000, maxRooms };
    const rooms = [..."abcdef"];
    /** The message of each acked place, and the last one of each room. */
    const acked = new Map<string, string>();
    const lastAcked = new Map<string, Cursor>();
    let store = new MemoryStore();
    let count = 0;
    for (let life = 0; life < 30; life++) {
      const { engine, clock } = await engineOn(store, limits);
      clock.tick(life * 400_000);
      for (const room of rooms) {
        const { epoch, seq, chats } = await granted(engine.read(room));
        assertEquals(chats.map((chat) => chat.seq), range(seq - chats.length + 1, seq), room);
        for (const chat of chats) {
          const message = acked.get(`${room} ${epoch}:${chat.seq}`);
          if (message !== undefined) assertEquals(chat.message, message);
        }
        const last = lastAcked.get(room);
        if (!last) continue;
        if (maxRooms > rooms.length) assertEquals(epoch, last.epoch);
        if (epoch !== last.epoch) continue;
        assert(seq >= last.seq, `${room} ${last.seq} is lost`);
        assertEquals(chats.length, Math.min(20, seq));
      }
      let isOver = false;
      for (let step = random(300); step > 0; step--) {
        const room = rooms[random(rooms.length)];
        const message = `${++count}`;
        if (random(9) === 0) store.hold();
        else store.release();
        const key = random(2) === 0 ? undefined : { session: "s", id: `${random(50)}` };
        Promise.resolve(engine.publish(room, draft(message, key))).then((place) => {
          if (isOver || isRefusal(place)) return;
          lastAcked.set(room, place);
          if (!key) acked.set(`${room} ${place.epoch}:${place.seq}`, message);
        });
        clock.tick(random(1_000));
        if (random(3) === 0) await turn();
      }
      isOver = true;
      const left = store.killed();
      store.release();
      await engine.close();
      store = left;
    }
    assert(acked.size > 500, `${acked.size}`);
  });
}

Deno.test("a clean stop commits what is left, and leaves no timer", async () => {
  const { engine, store, clock } = await engineOn();
  const { head } = await hear(engine, "r");
  const answer = engine.publish("r", draft("1"));
  const [, place] = await Promise.all([engine.close(), answer]);
  assertEquals(place, { epoch: head.epoch, seq: 1 });
  assertEquals([store.isClosed, clock.timerCount], [true, 0]);
  assertEquals(engine.publish("r", draft("2")), UNAVAILABLE);
  const again = await engineOn(store.killed());
  assertEquals(await textsOf(again.engine), ["1"]);
  await again.engine.close();
});

Deno.test("a stop while the store fails does not wait for it", async () => {
  const { engine, store, clock } = await engineOn();
  await hear(engine, "r");
  store.failure = "disk full";
  assertEquals(await engine.publish("r", draft("1")), UNAVAILABLE);
  await engine.close();
  assertEquals([store.isClosed, clock.timerCount], [true, 0]);
});

Deno.test("a room that came again after it was dropped has its new epoch, though the old one is not deleted yet", async () => {
  const { engine, store } = await engineOn(undefined, { maxRooms: 1 });
  store.skipsDeletes = true;
  const old = await granted(engine.publish("r", draft("old")));
  await granted(engine.publish("other", draft("x")));
  const place = await granted(engine.publish("r", draft("new")));
  assertNotEquals(place.epoch, old.epoch);
  const left = store.killed();
  const again = await engineOn(left, { maxRooms: 10 });
  const { epoch, chats } = await granted(again.engine.read("r"));
  assertEquals([epoch, chats.map(({ message }) => message)], [place.epoch, ["new"]]);
  await turn();
  await turn();
  assertEquals(left.size, 4, "the dropped room's rows are deleted now");
  for (const each of [engine, again.engine]) await each.close();
});

Deno.test("a key outlives a restart, but for what is bound, and the numbers go on", async () => {
  const { engine, store, clock } = await engineOn();
  await hear(engine, "r");
  await engine.join("r", "m", "Ann");
  const { epoch } = await granted(put(engine, "stays", 1));
  await granted(put(engine, "stays", 2));
  await granted(put(engine, "bound", 1, { member: "m" }));
  await granted(put(engine, "later", 1, { ttlSeconds: 60 }));
  await granted(put(engine, "removed", 1));
  await granted(put(engine, "removed", null));
  const { engine: next, clock: nextClock } = await engineOn(store);
  assertEquals(await stateOf(next), "7 later=1 stays=2");
  const { since, entries } = await granted(next.state("r", { epoch, rev: 5 }));
  assertEquals([since, ...entries.map(({ key }) => key)], [5, "removed", "bound"]);
  const { recorder, head } = await hear(next, "r");
  assertEquals([head.epoch, head.rev], [epoch, 7]);
  nextClock.tick(clock.now() + 61_000 - nextClock.now());
  await recorder.until(({ events }) => events.length === 1);
  assertEquals(setsOf(recorder), ["8 later=null"]);
  assertEquals((await granted(put(next, "stays", 3))).rev, 9);
  await next.close();
  await engine.close();
});

Deno.test("what was forgotten of removals stays unknown after a restart", async () => {
  const { engine, store } = await engineOn();
  const { epoch } = await granted(put(engine, "stays", 1));
  for (const round of [1, 2]) {
    for (const value of [1, null]) {
      await Promise.all(range(1, 600).map((i) => put(engine, `${round}-${i}`, value)));
    }
  }
  await granted(put(engine, "2-600", 1));
  const { engine: next } = await engineOn(store);
  for (const node of [engine, next]) {
    assertEquals((await granted(node.state("r", { epoch, rev: 1 }))).since, undefined);
    assertEquals((await granted(node.state("r", { epoch, rev: 1_300 }))).since, 1_300);
  }
  await next.close();
  await engine.close();
});

Deno.test("whose keys they are is known after a restart: one owner's share stays full", async () => {
  const limits = { historyMb: 0.1 };
  const first = await engineOn(new MemoryStore(), limits);
  const fill = async (engine: Engine, owner: string) => {
    for (let count = 0;; count++) {
      const value = JSON.stringify("x".repeat(100));
      const key = { key: `${owner}/${count}/${crypto.randomUUID()}`, value, sender: "Ann", owner };
      if (isRefusal(await engine.set("r", key))) return count;
    }
  };
  assert(await fill(first.engine, "a") > 5);
  const second = await engineOn(first.store.killed(), limits);
  assertEquals(await fill(second.engine, "a"), 0);
  assert(await fill(second.engine, "b") > 5);
  for (const { engine } of [first, second]) await engine.close();
});
