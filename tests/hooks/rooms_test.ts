// A program's rules between a message and its room, as clients see them.
import { assertEquals, assertMatch } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import type { AppOptions } from "../../handlers/app.ts";
import { refuse } from "../../handlers/hooks/hooks.ts";
import { leave } from "../../handlers/registry/membership.ts";
import { type Parley, runApp } from "../../handlers/run_app.ts";
import { createTestApp, type FakeSocket, type TestApp } from "../support/fakes.ts";
import { nextTurn, soon } from "../support/inbox.ts";

/** A server with hooks, whose sockets answer without rates. */
function createServer(hooks: AppOptions): TestApp {
  return createTestApp({ ...hooks, settings: { MESSAGE_RATE: 0, JOIN_RATE: 0, BYTE_RATE: 0 } });
}

async function joined(server: TestApp, name: string, dialect: "plain" | "v1" = "v1") {
  const socket = await server.connect("/chat/ops", { dialect });
  socket.say({ type: "join", name });
  await nextTurn();
  socket.take();
  return socket;
}

/** What a socket was told since the last time, of these types. */
function told(socket: FakeSocket, ...types: string[]) {
  const objects = socket.take().flatMap((frame) => String(frame).split("\n"))
    .map((line) => JSON.parse(line));
  return objects.filter(({ type }) => types.includes(type));
}

/** Ends a Parley whose clock stands still. */
async function end(parley: Parley, { clock, registry }: TestApp) {
  const ended = parley[Symbol.asyncDispose]();
  clock.tick(registry.limits.drainSeconds * 1_000);
  await nextTurn();
  clock.tick(1_000);
  await ended;
}

function post(server: TestApp, path: string, body: unknown) {
  const headers = { "content-type": "application/json" };
  return server.ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

Deno.test("onMessage changes, lets be and refuses, by socket and by HTTP", async () => {
  const server = createServer({
    onMessage({ message }) {
      if (message === "damn") return refuse("Be kind.");
      if (message === "darn") return { message: "d***" };
    },
  });
  const ann = await joined(server, "Ann");
  const bo = await joined(server, "Bo", "plain");
  ann.take();
  for (const message of ["hi", "darn", "damn"]) ann.say({ type: "chat", message, id: message });
  await nextTurn();
  bo.say({ type: "chat", message: "damn" });
  await nextTurn();
  assertEquals(told(ann, "error"), [
    { type: "error", code: "refused", message: "Be kind.", id: "damn" },
  ]);
  assertEquals(bo.take(), [
    '{"type":"chat","sender":"Ann","message":"hi"}',
    '{"type":"chat","sender":"Ann","message":"d***"}',
    '{"type":"error","message":"Be kind."}',
  ]);
  const refused = await post(server, "/rooms/ops/messages", { message: "damn" });
  assertEquals([refused.status, await refused.json()], [
    403,
    { type: "error", code: "refused", message: "Be kind." },
  ]);
  assertEquals((await post(server, "/rooms/ops/messages", { message: "darn" })).status, 202);
  const { messages } = await (await server.ask("/rooms/ops/messages")).json();
  assertEquals(messages.map(({ message }: { message: string }) => message), ["hi", "d***", "d***"]);
});

Deno.test("onJoin gives another name or refuses; a refused socket stays as it was", async () => {
  const server = createServer({
    onJoin: ({ name }) => name === "admin" ? refuse("Not you.") : name.toUpperCase(),
  });
  const ann = await server.connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "join", name: "ann" });
  await nextTurn();
  assertEquals(told(ann, "status").map(({ name }) => name), ["ANN"]);
  ann.say({ type: "join", name: "admin" });
  ann.say({ type: "chat", message: "still ANN" });
  await nextTurn();
  const [error, chat] = told(ann, "error", "chat");
  assertEquals([error.code, error.message, chat.sender], ["refused", "Not you.", "ANN"]);
  const bo = await server.connect("/chat/ops");
  bo.say({ type: "join", name: "admin" });
  bo.say({ type: "chat", message: "x" });
  await nextTurn();
  assertEquals(bo.take(), [
    '{"type":"error","message":"Not you."}',
    '{"type":"error","message":"Invalid message format or not joined."}',
  ]);
});

Deno.test("onSet changes, lets be and refuses, by socket and by HTTP; a removal's value is null", async () => {
  const asked: unknown[] = [];
  const server = createServer({
    onSet({ key, value, name, via }) {
      asked.push([key, value, name, via]);
      if (value === "damn") return refuse("Be kind.");
      if (value === "darn") return { value: "d***" };
    },
  });
  const ann = await joined(server, "Ann");
  const values = ["hi", "darn", "damn", null];
  values.forEach((value, n) => ann.say({ type: "set", key: `a${n}`, value, id: `${n}` }));
  await nextTurn();
  const answers = told(ann, "ack", "error").map(({ id, rev, message }) => [id, rev ?? message]);
  assertEquals(answers.sort(), [["0", 1], ["1", 2], ["2", "Be kind."], ["3", 2]]);
  for (const [n, value] of values.entries()) {
    const init = value === null ? { method: "DELETE" } : {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(value),
    };
    const answer = await server.ask(`/rooms/ops/state/b${n}`, init);
    const { code, message } = await answer.json();
    const expected = value === "damn" ? [403, "refused", "Be kind."] : [200, undefined, undefined];
    assertEquals([answer.status, code, message], expected);
  }
  const { entries } = await (await server.ask("/rooms/ops/state")).json();
  const kept = entries.map(({ key, value }: Record<string, unknown>) => [key, value]);
  assertEquals(kept, [["a0", "hi"], ["a1", "d***"], ["b0", "hi"], ["b1", "d***"]]);
  const ways = [["a", "Ann", "socket"], ["b", "Anonymous", "http"]];
  assertEquals(
    asked,
    ways.flatMap(([key, name, via]) => values.map((value, n) => [key + n, value, name, via])),
  );
});

Deno.test("rights that went while a hook was asked are missed when it answers", async () => {
  const answer = Promise.withResolvers<void>();
  const hook = () => answer.promise;
  const server = createServer({
    onMessage: hook,
    onSet: hook,
    onJoin: ({ name }) => name === "Again" ? answer.promise : undefined,
    authorize: ({ headers }) => headers.has("authorization") ? { rooms: ["ops"], speak: [] } : {},
  });
  const [ann, bo, cho] = await Promise.all(
    ["Ann", "Bo", "Cho"].map((name) => joined(server, name)),
  );
  ann.say({ type: "chat", message: 1, id: "1" });
  bo.say({ type: "set", key: "a", value: 1, id: "2" });
  cho.say({ type: "join", name: "Again" });
  for (const socket of [ann, bo, cho]) socket.say({ type: "token", token: "narrower" });
  await nextTurn();
  answer.resolve();
  await nextTurn();
  const errors = [ann, bo, cho].map((socket) => told(socket, "error", "ack", "chat"));
  assertEquals(errors.map((all) => all.map(({ code, id }) => [code, id])), [
    [["forbidden", "1"]],
    [["forbidden", "2"]],
    [["forbidden", undefined]],
  ]);
  const { entries } = await server.app.registry.engineOf("ops").state("ops") as {
    entries: unknown[];
  };
  assertEquals(entries, []);
});

Deno.test("onLeave hears who leaves, by leave or by the end of the socket, once", async () => {
  const left: string[] = [];
  const server = createServer({ onLeave: ({ room, name }) => void left.push(`${name} ${room}`) });
  const ann = await joined(server, "Ann");
  const bo = await joined(server, "Bo");
  await server.connect("/chat/ops");
  ann.say({ type: "leave" });
  ann.say({ type: "leave" });
  bo.drop();
  ann.end();
  assertEquals(left, ["Ann ops", "Bo ops"]);
});

Deno.test("a message waits for its hook, and what its sender sends next waits behind it", async () => {
  const answers: PromiseWithResolvers<void>[] = [];
  const server = createServer({
    async onMessage({ message }) {
      if (typeof message !== "number") return;
      const answer = Promise.withResolvers<void>();
      answers.push(answer);
      await answer.promise;
    },
  });
  const ann = await joined(server, "Ann");
  const bo = await joined(server, "Bo");
  for (const message of [1, 2, "three"]) ann.say({ type: "chat", message });
  ann.say({ type: "ping" });
  bo.say({ type: "chat", message: "not behind Ann" });
  await nextTurn();
  assertEquals(told(ann, "pong", "chat").map(({ type, message }) => message ?? type).sort(), [
    "not behind Ann",
    "pong",
  ]);
  answers[0].resolve();
  await nextTurn();
  answers[1].resolve();
  await nextTurn();
  assertEquals(told(bo, "chat").map(({ message }) => message), ["not behind Ann", 1, 2, "three"]);
});

Deno.test("what waits for a hook when its socket ends is dropped; a right that went is missed", async () => {
  const answer = Promise.withResolvers<void>();
  const server = createServer({ onMessage: () => answer.promise });
  const ann = await joined(server, "Ann");
  const cho = await joined(server, "Cho");
  const bo = await joined(server, "Bo");
  ann.say({ type: "chat", message: "lost" });
  ann.end();
  cho.say({ type: "chat", message: "left" });
  leave(server.registry.room("ops"), [...server.registry.clients].at(-2)!);
  bo.take();
  answer.resolve();
  await nextTurn();
  assertEquals(told(bo, "chat"), []);
  assertEquals(told(cho, "error").map(({ code }) => code), ["not_joined"]);
});

Deno.test("at most 1,000 messages of a sender wait for a hook", async () => {
  const server = createServer({ onMessage: () => new Promise(() => {}) });
  const ann = await joined(server, "Ann");
  for (let i = 0; i < 1_002; i++) ann.say({ type: "chat", message: i });
  await nextTurn();
  assertEquals(told(ann, "error").map(({ code }) => code), ["unavailable", "unavailable"]);
});

Deno.test("with a hook on messages a binary frame is forbidden: it could not be asked", async () => {
  const server = createServer({ onMessage() {} });
  const ann = await joined(server, "Ann");
  ann.sayBytes(1, 2, 3);
  await nextTurn();
  assertEquals(told(ann, "error").map(({ code }) => code), ["forbidden"]);
});

Deno.test("a fault of a hook is one line of the log, and the room goes on", async () => {
  const server = createServer({
    onMessage({ message }) {
      if (message === "x") throw new Error("a secret of the program,\nin two lines");
    },
  });
  const ann = await joined(server, "Ann");
  ann.say({ type: "chat", message: "x" });
  ann.say({ type: "chat", message: "y" });
  await nextTurn();
  const [error, chat] = told(ann, "error", "chat");
  assertEquals([error.code, error.message, chat.message], ["refused", "Server error.", "y"]);
  const lines = server.log.of("hook");
  assertEquals(lines.map(({ level }) => level), ["error"]);
  assertMatch(lines[0].text, /^Hook onMessage failed in ops: .*a secret .*in two lines at .+$/);
});

Deno.test("notes reach all who speak parley.v1 in order, are asked of the hook, and are not kept", async () => {
  const server = createServer({
    onMessage: ({ kind, message }) =>
      kind === "note" && message === "spam" ? refuse("No.") : undefined,
  });
  const ann = await joined(server, "Ann");
  const plain = await joined(server, "Bo", "plain");
  ann.take();
  const stream = await server.ask("/rooms/ops/events");
  ann.say({ type: "chat", message: "a" });
  ann.say({ type: "note", message: { typing: true } });
  ann.say({ type: "note", message: "spam" });
  ann.say({ type: "chat", message: "b" });
  await nextTurn();
  assertEquals((await post(server, "/rooms/ops/notes", { message: 1, sender: "Cho" })).status, 202);
  await nextTurn();
  const heard = told(ann, "chat", "note", "error");
  assertEquals(heard.map(({ type, message }) => [type, message]), [
    ["error", "No."],
    ["chat", "a"],
    ["note", { typing: true }],
    ["chat", "b"],
    ["note", 1],
  ]);
  assertEquals(Object.keys(heard[2]), ["type", "room", "time", "sender", "message"]);
  assertEquals(plain.take().length, 2);
  const { messages } = await (await server.ask("/rooms/ops/messages")).json();
  assertEquals(messages.length, 2);
  const reader = stream.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes('"sender":"Cho"')) text += (await reader.read()).value;
  await reader.cancel();
  assertMatch(text, /\n\nevent: ?note\ndata: ?\{"type":"note"[^\n]*\}\n\n/);
});

Deno.test("a note needs what a message needs: to have joined, the right, and a room that is no server's", async () => {
  const server = createServer({});
  const ann = await server.connect("/chat/ops", { dialect: "v1" });
  ann.say({ type: "note", message: 1 });
  ann.say({ type: "note", room: "_stats", message: 1 });
  await nextTurn();
  assertEquals(told(ann, "error").map(({ code, room }) => [code, room]), [
    ["not_joined", undefined],
    ["forbidden", "_stats"],
  ]);
  assertEquals((await post(server, "/rooms/_stats/notes", { message: 1 })).status, 403);
});

Deno.test("chat, note, bytes, leave, listen and join wait behind a slow hook; ping and members don't", async () => {
  const answer = Promise.withResolvers<void>();
  const server = createServer({ onSet: () => answer.promise });
  const ann = await joined(server, "Ann");
  const bo = await joined(server, "Bo");
  ann.take();
  ann.say({ type: "set", key: "a", value: 1, id: "1" });
  ann.say({ type: "chat", message: "hi", id: "2" });
  ann.say({ type: "note", message: "typing" });
  ann.sayBytes(7);
  ann.say({ type: "leave" });
  ann.say({ type: "listen", room: "other" });
  ann.say({ type: "join", name: "Anna" });
  ann.say({ type: "members" });
  ann.say({ type: "ping" });
  await nextTurn();
  const early = told(ann, "pong", "members", "ack", "welcome", "chat", "error");
  assertEquals(early.map(({ type }) => type), ["members", "pong"]);
  assertEquals(bo.take(), []);
  answer.resolve();
  await nextTurn();
  const heard = bo.take().flatMap((frame) =>
    typeof frame === "string"
      ? frame.split("\n").map((line) => JSON.parse(line)).map(({ event, message }) =>
        event ?? message
      )
      : [[...frame]]
  );
  assertEquals(heard, ["hi", "typing", [7], "leave", "join"]);
  const late = told(ann, "ack", "welcome").map(({ id, room }) => id ?? room);
  assertEquals(late.sort(), ["1", "2", "ops", "other"]);
});

Deno.test("a hook may publish in its own room, before what it is asked about", async () => {
  const server = createServer({
    async onMessage({ room, message }) {
      if (message === "late") await nextTurn();
      await parley.publish(room, `before ${message}`, { sender: "bot" });
    },
    onLeave: ({ room, name }) => void parley.publish(room, `${name} left`, { sender: "bot" }),
  });
  const parley = runApp(server.app);
  const ann = await joined(server, "Ann");
  const bo = await joined(server, "Bo");
  for (const message of ["now", "late", "last"]) ann.say({ type: "chat", message });
  for (let turn = 0; turn < 3; turn++) await nextTurn();
  ann.end();
  await nextTurn();
  assertEquals(told(bo, "chat").map(({ message }) => message), [
    ...["before now", "now", "before late", "late", "before last", "last", "Ann left"],
  ]);
  await end(parley, server);
});

Deno.test("a hook may send its own sender away: what it was asked about is dropped", async () => {
  for (const hook of ["onJoin", "onMessage", "onSet"] as const) {
    for (const isLate of [false, true]) {
      const server = createServer({
        authorize: () => ({ user: "ann", name: "Ann" }),
        async [hook]() {
          if (isLate) await nextTurn();
          await parley.disconnect("ann");
        },
      });
      const parley = runApp(server.app);
      const ann = await server.connect("/chat/ops?state=1", { dialect: "v1" });
      ann.say({ type: "join" });
      if (hook === "onMessage") ann.say({ type: "chat", message: "x", id: "1" });
      if (hook === "onSet") ann.say({ type: "set", key: "a", value: 1, id: "1" });
      for (let turn = 0; turn < 3; turn++) await nextTurn();
      assertEquals(ann.closes, [{ code: 1008, reason: "not allowed" }]);
      assertEquals(told(ann, "ack", "error"), []);
      const { messages } = await parley.history("ops");
      const { entries } = await parley.state("ops");
      const { count } = await parley.members("ops");
      assertEquals([messages.length, entries.length, count, server.log.of("hook")], [0, 0, 0, []]);
      ann.end();
      await end(parley, server);
    }
  }
});

/** What a hook does with one message or join. */
type Act = "now" | "late" | "throw" | "reject" | "refuse" | "change";
const ACTS: Act[] = ["now", "late", "throw", "reject", "refuse", "change"];

/** A hook that does what it is told; `late` has the answers that are to come. */
function actor(late: (() => void)[]) {
  return <T>(act: Act, changed: T) => {
    if (act === "throw") throw new Error("thrown");
    if (act === "reject") return Promise.reject<T>(new Error("rejected"));
    if (act === "refuse") return refuse("no");
    if (act === "change") return changed;
    if (act === "late") return new Promise<void>((resolve) => late.push(resolve));
  };
}

/** Gives all late answers, one after the other, in any order that their senders' own order allows. */
async function answerAll(late: (() => void)[], pick: () => number): Promise<void> {
  await nextTurn();
  while (late.length > 0) {
    late.splice(pick() % late.length, 1)[0]();
    await nextTurn();
  }
}

Deno.test("whatever onMessage does: order holds, nobody else waits, nothing is acked that is not kept", async () => {
  const way = fc.constantFrom("Ann", "Bo", "http");
  const plan = fc.array(fc.tuple(way, fc.constantFrom(...ACTS)), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(plan, fc.boolean(), fc.nat(), async (plan, endsWithNever, seed) => {
      const late: (() => void)[] = [];
      const act = actor(late);
      const server = createServer({
        onMessage({ message }) {
          const [wanted, n] = message as [Act | "never", number];
          return wanted === "never"
            ? new Promise(() => {})
            : act(wanted, { message: ["changed", n] });
        },
      });
      const sockets = { Ann: await joined(server, "Ann"), Bo: await joined(server, "Bo") };
      const watcher = await joined(server, "Watcher");
      if (endsWithNever) sockets.Ann.say({ type: "chat", id: "never", message: ["never", -1] });
      const answers = new Map<number, Promise<Response>>();
      plan.forEach(([way, act], n) => {
        const message = [act, n];
        if (way === "http") answers.set(n, post(server, "/rooms/ops/messages", { message }));
        else sockets[way as "Ann" | "Bo"].say({ type: "chat", id: `${n}`, message });
      });
      // How many turns an answer takes is the runtime's: each that is due is waited for.
      let open = answers.size;
      for (const answer of answers.values()) answer.then(() => open--);
      const due = (name: string) =>
        name === "Ann" && endsWithNever ? 0 : plan.filter(([way]) => way === name).length;
      const isAnswered = ([name, { objects }]: [string, FakeSocket]) =>
        (objects as { type: string }[]).filter(({ type }) => type === "ack" || type === "error")
          .length === due(name);
      const answering = async () => {
        do await answerAll(late, () => seed++); while (
          open > 0 || !Object.entries(sockets).every(isAnswered)
        );
      };
      await soon(answering(), "all answers");
      const isTaken = ({ act }: { act: Act }) => !["throw", "reject", "refuse"].includes(act);
      const expected = plan.map(([way, act], n) => ({ way, act, n }))
        .filter((one) => isTaken(one) && !(endsWithNever && one.way === "Ann"));
      const chats = told(watcher, "chat");
      const heard = (name: string) =>
        chats.filter(({ sender }) => sender === name).map(({ message }) => message[1]);
      const wanted = (way: string) => expected.filter((one) => one.way === way).map(({ n }) => n);
      for (const name of ["Ann", "Bo"]) assertEquals(heard(name), wanted(name));
      // Requests are senders of their own: they have no order.
      assertEquals(new Set(heard("Anonymous")), new Set(wanted("http")));
      const kept = await (await server.ask("/rooms/ops/messages?limit=1000")).json();
      const keptAt = new Map<number, number>(
        kept.messages.map(({ seq, message }: { seq: number; message: unknown[] }) => [
          message[1],
          seq,
        ]),
      );
      const acked = [...told(sockets.Ann, "ack"), ...told(sockets.Bo, "ack")]
        .map(({ id, seq }) => [Number(id), seq]);
      for (const [n, answer] of answers) {
        const { status } = await answer;
        assertEquals(status, isTaken({ act: plan[n][1] }) ? 202 : 403);
        if (status === 202) acked.push([n, (await (await answer).json()).seq]);
      }
      const byNumber = (a: number[], b: number[]) => a[0] - b[0];
      assertEquals(acked.sort(byNumber), [...keptAt].sort(byNumber));
      assertEquals(acked.map(([n]) => n), expected.map(({ n }) => n));
      for (const { message: [word, n] } of chats) {
        assertEquals(word, plan[n][1] === "change" ? "changed" : plan[n][1]);
      }
    }),
    { numRuns: 100 },
  );
});

Deno.test("whatever onJoin does: the last name that was granted counts, and nobody else waits", async () => {
  const plan = fc.array(fc.constantFrom(...ACTS), { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(plan, fc.boolean(), async (plan, endsWithNever) => {
      const late: (() => void)[] = [];
      const act = actor(late);
      const server = createServer({
        onJoin({ name }) {
          if (name === "never") return new Promise(() => {});
          const [wanted, n] = name.split(" ");
          return n === undefined ? name : act(wanted as Act, `changed ${n}`);
        },
      });
      const bo = await joined(server, "Bo");
      const ann = await server.connect("/chat/ops", { dialect: "v1" });
      const names: string[] = [];
      plan.forEach((act, n) => {
        ann.say({ type: "join", name: `${act} ${n}` });
        // What is sent behind a join is sent under the name that it got.
        ann.say({ type: "chat", message: n, id: `${n}` });
        if (act === "now" || act === "late") names[n] = `${act} ${n}`;
        else names[n] = act === "change" ? `changed ${n}` : names[n - 1];
      });
      if (endsWithNever) ann.say({ type: "join", name: "never" });
      bo.say({ type: "chat", message: "not behind Ann" });
      await nextTurn();
      const early = told(bo, "chat", "status");
      assertEquals(early.some(({ sender }) => sender === "Bo"), true);
      await answerAll(late, () => 0);
      const heard = [...early, ...told(bo, "chat", "status")];
      const chats = heard.filter(({ type, sender }) => type === "chat" && sender !== "Bo");
      const expected = names.flatMap((name, n) => name === undefined ? [] : [[n, name]]);
      assertEquals(chats.map(({ message, sender }) => [message, sender]), expected);
      const { members } = await (await server.ask("/rooms/ops/members")).json();
      const now = expected.at(-1)?.[1];
      assertEquals(
        members.map(({ name }: { name: string }) => name).sort(),
        ["Bo", ...(now === undefined ? [] : [now])].sort(),
      );
      assertEquals(
        told(ann, "error").length,
        plan.length * 2 - plan.filter((act) =>
          act === "now" ||
          act === "late" || act === "change"
        ).length - expected.length,
      );
    }),
    { numRuns: 100 },
  );
});

Deno.test("whatever onSet does: changes keep their order, nobody else waits, none is acked that is not kept", async () => {
  const plan = fc.array(fc.constantFrom(...ACTS), { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(plan, async (plan) => {
      const late: (() => void)[] = [];
      const act = actor(late);
      const server = createServer({
        onSet({ key, value }) {
          if (key === "a") return act((value as [Act])[0], { value: ["changed", -1] });
        },
      });
      const [ann, bo] = [await joined(server, "Ann"), await joined(server, "Bo")];
      plan.forEach((act, n) => ann.say({ type: "set", key: "a", value: [act, n], id: `${n}` }));
      bo.say({ type: "set", key: "b", value: 1, id: "bo" });
      await nextTurn();
      assertEquals(told(bo, "ack").map(({ id }) => id), ["bo"]);
      await answerAll(late, () => 0);
      const taken = [...plan.entries()].filter(([, act]) =>
        ["now", "late", "change"].includes(act)
      );
      const acks = told(ann, "ack");
      assertEquals(acks.map(({ id }) => Number(id)), taken.map(([n]) => n));
      const { entries } = await (await server.ask("/rooms/ops/state")).json();
      const [{ value, rev } = { value: undefined, rev: undefined }] = entries
        .filter(({ key }: { key: string }) => key === "a");
      const [n, last] = taken.at(-1) ?? [];
      assertEquals(value, last === "change" ? ["changed", -1] : last && [last, n]);
      assertEquals(rev, acks.at(-1)?.rev);
    }),
    { numRuns: 50 },
  );
});
