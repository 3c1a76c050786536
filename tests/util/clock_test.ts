import { assert, assertEquals, assertLess } from "@std/assert";
import { runAt, systemClock } from "../../handlers/util/clock.ts";
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
  assertLess(Math.abs(systemClock.now() - Date.now()), 1_000);
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
