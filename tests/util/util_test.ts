import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { byteLength, cutBytes, exceedsBytes } from "../../handlers/util/bytes.ts";
import { runAt, systemClock, within } from "../../handlers/util/clock.ts";
import { guardLog } from "../../handlers/util/log.ts";
import { chain } from "../../handlers/util/maybe_promise.ts";
import { nextTurn } from "../support/inbox.ts";
import { FakeClock } from "../support/fakes.ts";
import { run } from "../support/process.ts";

/** Keeps the event loop alive while the clock's own timers do not. */
async function awake<T>(task: (resolve: (value: T) => void) => void): Promise<T> {
  const { promise, resolve } = Promise.withResolvers<T>();
  const timer = setTimeout(() => {}, 10_000);
  task(resolve);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}

Deno.test("systemClock.now() is Unix time in ms", () => {
  const [before, now, after] = [Date.now(), systemClock.now(), Date.now()];
  assert(before <= now && now <= after, `${before} ${now} ${after}`);
});

Deno.test("systemClock.elapsedMs() does not jump when the system's clock is set", () => {
  const [start, { now }] = [systemClock.elapsedMs(), Date];
  Date.now = () => now() + 3_600_000;
  try {
    const elapsedMs = systemClock.elapsedMs() - start;
    assert(elapsedMs >= 0 && elapsedMs < 3_600_000, `${elapsedMs} ms`);
  } finally {
    Date.now = now;
  }
});

Deno.test("systemClock.after() runs its task once", async () => {
  let count = 0;
  await awake<void>((resolve) => {
    systemClock.after(1, () => count++);
    systemClock.after(20, () => resolve());
  });
  assertEquals(count, 1);
});

Deno.test("systemClock.after() runs nothing once it is cancelled", async () => {
  let hasRun = false;
  await awake<void>((resolve) => {
    systemClock.after(1, () => hasRun = true)();
    systemClock.after(10, () => resolve());
  });
  assert(!hasRun);
});

Deno.test("systemClock.every() repeats its task until it is ended", async () => {
  let count = 0;
  await awake<void>((resolve) => {
    const stop = systemClock.every(1, () => {
      if (++count < 3) return;
      stop();
      systemClock.after(10, () => resolve());
    });
  });
  assertEquals(count, 3);
});

Deno.test("systemClock keeps no process alive", async () => {
  const clock = new URL("../../handlers/util/clock.ts", import.meta.url);
  const code = `import { systemClock } from "${clock}";
    systemClock.after(3_600_000, () => {});
    systemClock.every(3_600_000, () => {});`;
  await run(["eval", code]);
});

Deno.test("FakeClock.tick() runs what falls due, in order, each at its time", () => {
  const clock = new FakeClock(0);
  const seen: string[] = [];
  const note = (name: string) => () => seen.push(`${name} ${clock.now()}`);
  clock.after(30, note("late"));
  clock.after(10, () => {
    note("early")();
    clock.after(5, note("nested"));
  });
  const stop = clock.every(20, note("again"));
  clock.tick(45);
  assertEquals(seen, ["early 10", "nested 15", "again 20", "late 30", "again 40"]);
  assertEquals(clock.now(), 45);
  stop();
  clock.tick(100);
  assertEquals(seen.length, 5);
  assertEquals(clock.timerCount, 0);
});

Deno.test("runAt() runs its task at its time, however far away", () => {
  const clock = new FakeClock(0);
  const waits: number[] = [];
  const after = clock.after.bind(clock);
  clock.after = (ms, task) => {
    waits.push(ms);
    return after(ms, task);
  };
  const year = 365 * 86_400_000;
  const ranAt: number[] = [];
  runAt(clock, year, () => ranAt.push(clock.now()));
  const cancel = runAt(clock, year, () => ranAt.push(-1));
  runAt(clock, -5, () => ranAt.push(clock.now()));
  clock.tick(year / 2);
  cancel();
  clock.tick(year);
  assertEquals(ranAt, [0, year]);
  assertEquals(clock.timerCount, 0);
  // The runtime's timers hold no more.
  for (const ms of waits) assert(ms >= 0 && ms < 2 ** 31);
});

Deno.test("within() waits for a task or its time, and leaves no timer", async () => {
  const clock = new FakeClock();
  await within(clock, 1_000, Promise.resolve());
  assertEquals(clock.timerCount, 0);
  const late = within(clock, 1_000, new Promise(() => {}));
  clock.tick(1_000);
  await late;
  await assertRejects(
    () => within(clock, 1_000, Promise.reject(new Error("broken"))),
    Error,
    "broken",
  );
  assertEquals(clock.timerCount, 0);
});

const encoder = new TextEncoder();
/** Any UTF-16 text, lone surrogates included. */
const anyText = fc.array(fc.integer({ min: 0, max: 0xffff }))
  .map((units) => String.fromCharCode(...units));

Deno.test("byteLength() counts UTF-8 bytes", () => {
  assertEquals(byteLength(""), 0);
  assertEquals(byteLength("plain"), 5);
  assertEquals(byteLength("\x7f\x80"), 3);
  assertEquals(byteLength("안녕"), 6);
  assertEquals(byteLength("👋🏽"), 8);
  assertEquals(byteLength("\ud800"), 3);
});

Deno.test("byteLength() agrees with the encoder on any text", () => {
  fc.assert(fc.property(anyText, (text) => {
    assertEquals(byteLength(text), encoder.encode(text).length);
  }));
});

Deno.test("exceedsBytes() lets exactly the limit through", () => {
  for (const text of ["a".repeat(12), "é".repeat(6), "한".repeat(4), "👋".repeat(3)]) {
    assertEquals(encoder.encode(text).length, 12);
    assert(!exceedsBytes(text, 12));
    assert(exceedsBytes(text, 11));
  }
});

Deno.test("exceedsBytes() agrees with the encoder on any text and limit", () => {
  fc.assert(fc.property(anyText, fc.nat(40), (text, limit) => {
    assertEquals(exceedsBytes(text, limit), encoder.encode(text).length > limit);
  }));
});

Deno.test("cutBytes() cuts between characters, and never by halves of one", () => {
  assertEquals(cutBytes("abc", 3), "abc");
  assertEquals(cutBytes("abcd", 3), "abc");
  assertEquals(cutBytes("가나다", 8), "가나");
  assertEquals(cutBytes("a😀", 4), "a");
  assertEquals(cutBytes("x".repeat(1_000), 0), "");
});

Deno.test("chain() goes on in the same call with a value, later with a promise", async () => {
  const seen: number[] = [];
  assertEquals(chain(1, (value) => seen.push(value)), 1);
  assertEquals(seen, [1]);
  const later = chain(Promise.resolve(2), (value) => seen.push(value));
  assertEquals(seen, [1]);
  assertInstanceOf(later, Promise);
  assertEquals(await later, 2);
  assertEquals(seen, [1, 2]);
});

Deno.test("guardLog() lets no failure of a log out, now or later", async () => {
  const fail = (): never => {
    throw new Error("the log is broken");
  };
  for (const write of [fail, () => Promise.reject(new Error("the log is broken"))]) {
    const log = guardLog({ debug: write, info: write, warn: write, error: write });
    for (const level of ["debug", "info", "warn", "error"] as const) log[level]?.("text");
  }
  // A rejection that nobody took would fail the test now.
  await nextTurn();
});
