// What a program does with Parley in its own code.
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { configureSync, getConfig, getLogger, type LogRecord, resetSync } from "@logtape/logtape";
import { processMemory } from "../handlers/access/memory_guard.ts";
import { createApp } from "../handlers/app.ts";
import {
  createParley,
  type Grants,
  memoryEngine,
  OptionError,
  ParleyError,
  refuse,
} from "../handlers/parley.ts";
import { runApp } from "../handlers/run_app.ts";
import { FakeClock } from "./support/fakes.ts";
import { nextTurn } from "./support/inbox.ts";

/** A Parley that goes in no time. */
function create(options: Parameters<typeof createParley>[0] = {}) {
  return createParley({ ...options, limits: { drainSeconds: 0, ...options.limits } });
}

/** The next `count` of an iterable. */
async function take<T>(count: number, from: AsyncIterator<T>): Promise<T[]> {
  const all: T[] = [];
  while (all.length < count) {
    const { value, done } = await from.next();
    if (done) break;
    all.push(value);
  }
  return all;
}

Deno.test("publish() gives the place, history() what is kept", async () => {
  await using parley = create();
  const first = await parley.publish("ops", { a: 1 }, { sender: "shop" });
  const { epoch } = first;
  assertEquals([first.seq, await parley.publish("ops", null)], [1, { epoch, seq: 2 }]);
  const page = await parley.history("ops");
  assertEquals([page.room, page.seq, page.recovered], ["ops", 2, true]);
  assertEquals(page.messages.map(({ sender, message }) => [sender, message]), [
    ["shop", { a: 1 }],
    ["Anonymous", null],
  ]);
  const rest = await parley.history("ops", { after: `${epoch}:1` });
  assertEquals(rest.messages.map(({ seq }) => seq), [2]);
  assertEquals((await parley.history("ops", { limit: 1 })).messages.length, 1);
});

Deno.test("publish() counts a key once, and refuses it with another message", async () => {
  await using parley = create();
  const first = await parley.publish("ops", "a", { key: "k" });
  assertEquals(await parley.publish("ops", "a", { key: "k" }), first);
  const error = await assertRejects(() => parley.publish("ops", "b", { key: "k" }), ParleyError);
  assertEquals([error.code, error.message], ["conflict", "Cannot publish in ops: conflict"]);
});

Deno.test("publish() keeps the order of its calls, whichever have keys and whether they are awaited", async () => {
  await using parley = create({ limits: { maxMessageBytes: 2_000_000, maxQueueBytes: 4_000_000 } });
  const sent = ["x".repeat(1_000_000), "a", "y".repeat(100_000), "b"];
  const keyed = sent.map((message, n) =>
    parley.publish("ops", message, n === 3 ? {} : { key: `${n}` })
  );
  assertEquals((await Promise.all(keyed)).map(({ seq }) => seq), [1, 2, 3, 4]);
});

Deno.test("what is no room, no name or no JSON is refused at once", async () => {
  await using parley = create();
  await assertRejects(() => parley.publish("a b", 1), TypeError, 'Cannot use room "a b"');
  await assertRejects(
    () => parley.publish("a", 1, { sender: "\n" }),
    TypeError,
    "Cannot use sender",
  );
  for (const message of [undefined, () => {}, Infinity]) {
    await assertRejects(() => parley.publish("a", message), TypeError, "no JSON value");
  }
  assertThrows(() => parley.subscribe(""), TypeError, "Cannot use room");
  await assertRejects(() => parley.members("?"), TypeError, "Cannot use room");
  // It rejects, and does not throw.
  await assertRejects(parley.note.bind(parley, "?", 1), TypeError, "Cannot use room");
  for (const query of [{ limit: 0 }, { limit: NaN }, { before: "x" }]) {
    await assertRejects(() => parley.history("a", query), TypeError, "Cannot read a: ");
  }
  await assertRejects(() => parley.drain({ seconds: -1 }), TypeError, "Cannot drain in -1");
});

Deno.test("calls from code pass neither hook nor rights nor rates", async () => {
  await using parley = create({
    onMessage: () => refuse("never"),
    onSet: () => refuse("never"),
    authorize: () => new Response("no", { status: 401 }),
    limits: { messageRate: 1, postRate: 1 },
  });
  const events = parley.subscribe("ops")[Symbol.asyncIterator]();
  for (let i = 0; i < 10; i++) {
    await parley.publish("ops", i);
    await parley.note("ops", i);
    await parley.set("ops", `key${i}`, i);
  }
  assertEquals((await parley.history("ops")).messages.length, 10);
  assertEquals((await parley.state("ops")).entries.length, 10);
  const heard = (await take(21, events)).map(({ type }) => type);
  assertEquals(heard.filter((type) => type === "note").length, 10);
  await events.return?.(undefined);
  const refused = await parley.fetch(new Request("http://parley.test/rooms/ops/messages"));
  assertEquals([refused.status, await refused.text()], [401, "no"]);
});

Deno.test("subscribe() hears welcome, chats and notes in order, and resumes", async () => {
  await using parley = create();
  const { epoch } = await parley.publish("ops", "before");
  const events = parley.subscribe("ops", { after: `${epoch}:0` })[Symbol.asyncIterator]();
  await parley.publish("ops", "after");
  await parley.note("ops", { typing: true }, { sender: "Ann" });
  const [welcome, ...rest] = await take(4, events);
  assertEquals(welcome, {
    type: "welcome",
    room: "ops",
    epoch,
    seq: 0,
    members: 0,
    recovered: true,
  });
  assertEquals(rest.map((event) => [event.type, "message" in event && event.message]), [
    ["chat", "before"],
    ["chat", "after"],
    ["note", { typing: true }],
  ]);
  await events.return?.(undefined);
});

Deno.test("a subscription that has ended has left its signal, read or not", async () => {
  await using parley = createParley({ limits: { maxMessageBytes: 1_000, maxQueueBytes: 2_000 } });
  const { signal } = new AbortController();
  let count = 0;
  const counted = (step: number, how: "addEventListener" | "removeEventListener") => {
    const call = signal[how].bind(signal);
    signal[how] = (...args: Parameters<AbortSignal["addEventListener"]>) => {
      count += step;
      call(...args);
    };
  };
  counted(1, "addEventListener");
  counted(-1, "removeEventListener");
  for await (const _ of parley.subscribe("a", { signal })) break;
  assertEquals(count, 0);
  parley.subscribe("b", { signal });
  assertEquals(count, 1);
  for (let i = 0; i < 3; i++) await parley.publish("b", "x".repeat(900));
  assertEquals(count, 0);
});

Deno.test("a subscription ends by break, by its signal and by the end of Parley", async () => {
  const parley = create();
  for await (const { type } of parley.subscribe("a")) {
    assertEquals(type, "welcome");
    break;
  }
  const stop = new AbortController();
  const stopped = Array.fromAsync(parley.subscribe("b", { signal: stop.signal }));
  const aborted = parley.subscribe("c", { signal: AbortSignal.abort() });
  assertEquals(await Array.fromAsync(aborted), []);
  const ended = Array.fromAsync(parley.subscribe("d"));
  await nextTurn();
  stop.abort();
  assertEquals((await stopped).map(({ type }) => type), ["welcome"]);
  await parley[Symbol.asyncDispose]();
  assertEquals((await ended).map(({ type }) => type), ["welcome"]);
});

Deno.test("a subscription ends before it is read, and while it is waited for", async () => {
  await using parley = create();
  const early = parley.subscribe("a")[Symbol.asyncIterator]();
  await early.return?.();
  const waiting = parley.subscribe("b")[Symbol.asyncIterator]();
  await waiting.next();
  const next = waiting.next();
  await waiting.return?.();
  const ended = { value: undefined, done: true };
  assertEquals([await early.next(), await next, await waiting.next()], [ended, ended, ended]);
  const rooms = await parley.fetch(new Request("http://parley.test/rooms"));
  assertEquals(await rooms.json(), { rooms: [] });
});

Deno.test("a bot that answers itself without end stops nobody else", async () => {
  await using parley = create();
  const stop = new AbortController();
  setTimeout(() => stop.abort());
  let count = 0;
  await parley.publish("ops", "hello");
  for await (const { type } of parley.subscribe("ops", { after: "x:0", signal: stop.signal })) {
    // It would go on for ever.
    if (type === "chat" && ++count < 100_000) await parley.publish("ops", "hello");
  }
  assertEquals(stop.signal.aborted && count > 0 && count < 100_000, true, `${count} messages`);
});

Deno.test("what an engine of one's own throws or rejects reaches whoever reads the subscription", async () => {
  for (const host of [() => Promise.reject(new Error("broken")), throwBroken]) {
    await using parley = create({ engine: Object.assign(memoryEngine(), { host }) });
    // Nobody reads this one: no rejection is left over.
    parley.subscribe("a");
    await assertRejects(() => Array.fromAsync(parley.subscribe("b")), Error, "broken");
  }
});

function throwBroken(): never {
  throw new Error("broken");
}

Deno.test("behind its end a Parley takes and gives nothing, and says so", async () => {
  const parley = create();
  await parley[Symbol.asyncDispose]();
  await parley[Symbol.asyncDispose]();
  const calls = [
    () => parley.publish("a", 1),
    () => parley.note("a", 1),
    () => parley.set("a", "key", 1),
    () => parley.state("a"),
    () => parley.history("a"),
    () => parley.members("a"),
  ];
  for (const call of calls) {
    assertEquals((await assertRejects(call, ParleyError)).code, "unavailable");
  }
  assertEquals(assertThrows(() => parley.subscribe("a"), ParleyError).code, "unavailable");
});

Deno.test("two in one process share nothing, and one may end before the other", async () => {
  await using one = create();
  {
    await using two = create();
    await two.publish("ops", 1);
    assertEquals((await one.history("ops")).messages, []);
  }
  assertEquals((await one.fetch(new Request("http://parley.test/metrics"))).status, 200);
  assertEquals((await one.publish("ops", 1)).seq, 1);
});

Deno.test("options may be an object of a class, and frozen", async () => {
  class Rules {
    readonly limits = Object.freeze({ drainSeconds: 0 });
    readonly words = ["damn"];
    onMessage({ message }: { message: unknown }) {
      return this.words.includes(String(message)) ? refuse("Be kind.") : undefined;
    }
    authorize(): Grants {
      return { publish: this.words.length > 0 };
    }
  }
  await using parley = createParley(Object.freeze(new Rules()));
  const post = async (message: string) => {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify({ message }) };
    const answer = await parley.fetch(new Request("http://parley.test/rooms/ops/messages", init));
    return (await answer.json()).message;
  };
  assertEquals([await post("damn"), await post("hello")], ["Be kind.", undefined]);
});

Deno.test("a program that does not read falls behind alone, and is told", async () => {
  await using parley = create({ limits: { maxQueueBytes: 70_000 } });
  const slow = parley.subscribe("ops")[Symbol.asyncIterator]();
  await slow.next();
  for (let i = 0; i < 10; i++) await parley.publish("ops", "x".repeat(10_000));
  await assertRejects(() => take(20, slow), Error, "too slow");
});

Deno.test("members() tells who has joined", async () => {
  await using parley = create();
  assertEquals(await parley.members("ops"), { room: "ops", members: [], count: 0 });
});

Deno.test("a program takes no client's place, and is counted as none", async () => {
  await using parley = create({ limits: { maxConnections: 0 } });
  const events = parley.subscribe("ops")[Symbol.asyncIterator]();
  assertEquals((await events.next()).value?.type, "welcome");
  assertEquals(parley.clientCount, 0);
  await events.return?.(undefined);
});

Deno.test("drain() takes nobody in any more, in the seconds it is given", async () => {
  await using parley = createParley();
  await parley.drain({ seconds: 0 });
  const ready = await parley.fetch(new Request("http://parley.test/readyz"));
  assertEquals([ready.status, await ready.text()], [503, "draining\n"]);
});

Deno.test("a second drain() waits for the first, and sends nobody away again", async () => {
  const clock = new FakeClock();
  const parley = runApp(createApp({ clock }));
  const hear = async () => {
    const stream = await parley.fetch(new Request("http://parley.test/rooms/ops/events"));
    return { text: stream.text() };
  };
  const heard = [await hear(), await hear()];
  const drained = [parley.drain({ seconds: 2 }), parley.drain({ seconds: 60 })];
  clock.tick(2_000);
  await Promise.all(drained);
  for (const { text } of heard) assertEquals((await text).split("retry:").length, 2);
  await parley[Symbol.asyncDispose]();
});

Deno.test("a subscription that has ended is forgotten with all that it was given", async () => {
  await using parley = create();
  const hear = async () => {
    const { signal } = new AbortController();
    for await (const _ of parley.subscribe("a", { signal })) break;
    return new WeakRef(signal);
  };
  const signal = await hear();
  await nextTurn();
  await processMemory.collect();
  assertEquals(signal.deref(), undefined);
});

Deno.test("an engine of one's own is closed with Parley", async () => {
  const engine = memoryEngine();
  {
    await using parley = create({ engine });
    // It hosts a room once: a second one would take the rooms of the first.
    assertThrows(() => create({ engine }), OptionError, "engine: another Parley has it");
    await parley.publish("ops", 1);
    assertEquals(engine.stats().rooms, 1);
  }
  assertEquals(engine.stats().rooms, 0);
});

Deno.test("a program's own LogTape stays as it configured it", async () => {
  const lines: string[] = [];
  const sinks = { own: ({ message }: LogRecord) => void lines.push(message.join("")) };
  configureSync({ sinks, loggers: [{ category: "app", sinks: ["own"], lowestLevel: "info" }] });
  try {
    const before = getConfig();
    {
      await using parley = create({ log: getLogger("app"), onMessage: () => refuse("no") });
      await parley.fetch(new Request("http://parley.test/rooms"));
      await parley.fetch(new Request("http://parley.test/metrics"));
    }
    assertEquals(getConfig() === before, true);
    getLogger("app").info("still here");
    assertEquals(lines.at(-1), "still here");
  } finally {
    resetSync();
  }
});

Deno.test("a limit that is undefined is as one that is missing", async () => {
  await using parley = create({ limits: { maxRooms: undefined, historySize: 1 } });
  for (const n of [1, 2]) await parley.publish("ops", n);
  assertEquals((await parley.history("ops")).messages.length, 1);
});

Deno.test("createParley() has the shape that deno serve wants", async () => {
  await using parley = create();
  const { fetch } = parley;
  assert((await fetch(new Request("http://parley.test/healthz"))).ok);
});
