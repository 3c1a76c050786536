import { assertEquals, assertMatch } from "@std/assert";
import { HookCaller } from "../../handlers/hooks/caller.ts";
import { type From, type Hooks, HookUnavailable, refuse } from "../../handlers/hooks/hooks.ts";
import { Counters } from "../../handlers/registry/counters.ts";
import { FakeClock, RecordingLog } from "../support/fakes.ts";

const ANN: From = { room: "ops", name: "Ann", via: "socket" };
const FAULT = { refused: "refused", text: "Server error." } as const;
const UNAVAILABLE = { refused: "unavailable" } as const;

function caller(hooks: Hooks) {
  const log = new RecordingLog();
  const clock = new FakeClock();
  const counters = new Counters();
  const context = { log, clock, counters, limits: { maxMessageBytes: 100 } };
  return { log, clock, counters, calls: new HookCaller(hooks, context) };
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
  ["throws what has no text", {
    onMessage: () => {
      throw Object.create(null);
    },
  }, /failed in ops: an error that cannot be shown/],
  ["throws what cannot even be looked at", {
    onMessage: () => {
      const { proxy, revoke } = Proxy.revocable({}, {});
      revoke();
      throw proxy;
    },
  }, /failed in ops: an error that cannot be shown/],
  ["throws its refusal", {
    onMessage: () => {
      throw refuse("Be kind.");
    },
  }, /failed in ops: refuse\("Be kind\."\) is to be returned, not thrown/],
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

Deno.test("the name that a hook was told of is the one that it lets be, whatever it did to its argument", () => {
  const { calls } = caller({
    onJoin(from) {
      from.name = "An\nna";
    },
  });
  assertEquals(calls.join({ ...ANN }), "Ann");
});

Deno.test("hooks may be methods of a class", () => {
  class Rules implements Hooks {
    readonly left: string[] = [];
    readonly prefix = "~";
    onJoin({ name }: From) {
      return this.prefix + name;
    }
    onMessage({ message }: { message: unknown }) {
      return { message: this.prefix + message };
    }
    onSet({ value }: { value: unknown }) {
      return { value: this.prefix + value };
    }
    onLeave({ name }: From) {
      this.left.push(name);
    }
  }
  const rules = new Rules();
  const { calls } = caller(rules);
  const answers = [calls.join(ANN), calls.message(ANN, "x", "chat"), calls.set(ANN, "key", "x")];
  calls.leave(ANN);
  assertEquals([...answers, ...rules.left], ["~Ann", '"~x"', '"~x"', "Ann"]);
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

Deno.test("a hook that never answers is given up: unavailable, one line, and its figures", async () => {
  const { calls, clock, log, counters } = caller({ onMessage: () => new Promise(() => {}) });
  const answer = calls.message(ANN, "x", "chat");
  assertEquals(counters.hookWaiting, 1);
  clock.tick(30_000);
  assertEquals(await answer, UNAVAILABLE);
  assertEquals(log.lines.map(({ text }) => text), ["Hook onMessage did not answer in ops"]);
  const { hookWaiting, hookSeconds, hookCalls } = counters;
  assertEquals([hookWaiting, hookSeconds, clock.timerCount], [0, 30, 0]);
  assertEquals(hookCalls, { passed: 0, refused: 0, unavailable: 1, failed: 0 });
});

Deno.test("of HTTP requests at most 1,000 wait for hooks; sockets are bounded themselves", async () => {
  const open = Promise.withResolvers<void>();
  let count = 0;
  const { calls, counters } = caller({ onMessage: () => (count++, open.promise) });
  const from = { ...ANN, via: "http" } as const;
  const all = Array.from({ length: 1_001 }, () => calls.message(from, "x", "chat"));
  assertEquals([count, all[1_000]], [1_000, UNAVAILABLE]);
  all.push(calls.message(ANN, "x", "chat"));
  open.resolve();
  assertEquals((await Promise.all(all)).filter((answer) => answer === '"x"').length, 1_001);
  assertEquals([await calls.message(from, "x", "chat"), counters.hookWaiting], ['"x"', 0]);
});

Deno.test("close() answers all that wait and all that come, but members still leave", async () => {
  const left: string[] = [];
  const { calls, clock } = caller({
    onMessage: () => new Promise(() => {}),
    onLeave: ({ name }) => void left.push(name),
  });
  const waiting = calls.message(ANN, "x", "chat");
  calls.close();
  assertEquals([await waiting, calls.message(ANN, "x", "chat")], [UNAVAILABLE, UNAVAILABLE]);
  calls.leave(ANN);
  assertEquals([left, clock.timerCount], [["Ann"], 0]);
});

Deno.test("what hooks that answer later decide is counted; what answers at once costs nothing", async () => {
  const { calls, counters } = caller({
    onMessage: async ({ message }) => {
      await 0;
      if (message === "no") return refuse("No.");
      if (message === "bad") throw new Error("broken");
      if (message === "down") throw new HookUnavailable();
    },
    onJoin: () => refuse("No."),
  });
  calls.join(ANN);
  for (const message of ["a", "no", "bad", "down"]) await calls.message(ANN, message, "chat");
  assertEquals(counters.hookCalls, { passed: 1, refused: 1, unavailable: 1, failed: 1 });
});
