import { assertEquals, assertMatch } from "@std/assert";
import { type From, HookCaller, type Hooks, refuse } from "../../handlers/hooks/hooks.ts";
import { RecordingLog } from "../support/fakes.ts";

const ANN: From = { room: "ops", name: "Ann", via: "socket" };
const FAULT = { refused: "refused", text: "Server error." } as const;

function caller(hooks: Hooks) {
  const log = new RecordingLog();
  return { log, calls: new HookCaller(hooks, log, { maxMessageBytes: 100 }) };
}

Deno.test("without hooks everything is as it came, in the same call", () => {
  const { calls } = caller({});
  assertEquals(calls.join(ANN), "Ann");
  assertEquals(calls.message(ANN, { a: 1 }, "chat"), '{"a":1}');
  calls.leave(ANN);
});

Deno.test("a hook that answers at once is answered at once; nothing lets it be", () => {
  const { calls } = caller({
    onJoin: ({ name }) => name === "Ann" ? "Anna" : undefined,
    onMessage: ({ message }) => message === "x" ? { message: "y" } : undefined,
  });
  assertEquals(calls.join(ANN), "Anna");
  assertEquals(calls.join({ ...ANN, name: "Bo" }), "Bo");
  assertEquals([calls.message(ANN, "x", "chat"), calls.message(ANN, "z", "note")], ['"y"', '"z"']);
});

Deno.test("a hook hears who, where, what and by which way", async () => {
  const heard: unknown[] = [];
  const { calls } = caller({
    onJoin: (from) => void heard.push(from),
    onMessage: (from) => void heard.push(from),
    onLeave: (from) => void heard.push(from),
  });
  const from: From = { room: "ops", name: "Ann", user: "u1", via: "http" };
  calls.join(from);
  await calls.message(from, [1], "note");
  calls.leave(from);
  assertEquals(heard, [from, { ...from, message: [1], kind: "note" }, from]);
});

Deno.test("refuse() reaches the sender with its text, now or later", async () => {
  const now = caller({
    onJoin: () => refuse("Members only."),
    onMessage: () => refuse("Be kind."),
  });
  assertEquals(now.calls.join(ANN), { refused: "refused", text: "Members only." });
  assertEquals(now.calls.message(ANN, 1, "chat"), { refused: "refused", text: "Be kind." });
  const later = caller({ onMessage: () => Promise.resolve(refuse("Be kind.")) });
  const answer = await later.calls.message(ANN, 1, "chat");
  assertEquals(answer, { refused: "refused", text: "Be kind." });
  assertEquals([...now.log.lines, ...later.log.lines], []);
});

const cycle: unknown[] = [];
cycle.push(cycle);
const FAULTS: [string, Hooks, RegExp][] = [
  ["throws", {
    onMessage: () => {
      throw new Error("broken");
    },
  }, /Hook onMessage failed in ops: .*broken/],
  ["throws no error", {
    onMessage: () => {
      throw "broken";
    },
  }, /failed in ops: broken/],
  ["rejects", { onMessage: () => Promise.reject(new Error("broken")) }, /failed in ops: .*broken/],
  ["answers no object", { onMessage: () => "text" as never }, /no JSON value/],
  ["answers null", { onMessage: () => null as never }, /failed in ops/],
  ["answers what JSON cannot carry", { onMessage: () => ({ message: 1n }) }, /BigInt/],
  ["answers a function", { onMessage: () => ({ message: () => {} }) }, /no JSON value/],
  ["answers a circle", { onMessage: () => ({ message: cycle }) }, /nests too deep/],
  ["answers a number too large", { onMessage: () => ({ message: Infinity }) }, /too large/],
  [
    "answers too much",
    { onMessage: () => ({ message: "x".repeat(99) }) },
    /has 101 bytes, at most 100/,
  ],
];
for (const [what, hooks, line] of FAULTS) {
  Deno.test(`a hook that ${what} refuses with "Server error." and one line of the log`, async () => {
    const { calls, log } = caller(hooks);
    assertEquals(await calls.message(ANN, "x", "chat"), FAULT);
    assertEquals(log.lines.map(({ level }) => level), ["error"]);
    assertMatch(log.lines[0].text.replaceAll("\n", " "), line);
  });
}

Deno.test("a name that is none refuses a join", async () => {
  for (const name of ["", "a\nb", "x".repeat(65), 7 as never]) {
    const { calls, log } = caller({ onJoin: () => Promise.resolve(name) });
    assertEquals(await calls.join(ANN), FAULT);
    assertMatch(log.lines[0].text, /onJoin failed in ops: .*no name/);
  }
});

Deno.test("a fault of onLeave costs a line of the log and nothing else", () => {
  const { calls, log } = caller({
    onLeave() {
      throw new Error("broken");
    },
  });
  calls.leave(ANN);
  assertEquals(log.events, ["hook"]);
});

Deno.test("a promise of another make is waited for like one of the runtime", async () => {
  const later: PromiseLike<{ message: unknown }> = {
    then: (next) => Promise.resolve({ message: "y" }).then(next),
  };
  const { calls } = caller({ onMessage: () => later as Promise<{ message: unknown }> });
  assertEquals(await calls.message(ANN, "x", "chat"), '"y"');
});
