import { assertEquals } from "@std/assert";
import { Line, type LineOptions } from "../../handlers/engine/channel.ts";
import type { Refusal } from "../../handlers/engine/engine.ts";
import { FakeClock } from "../support/fakes.ts";

/** What the far end answers. */
interface Far {
  double(value: number): number;
  later(value: number): Promise<number>;
  note(value: number): void;
}

/** What the near end answers. */
interface Near {
  hear(value: number): void;
}

const ANSWER_MS = 900;
const UNAVAILABLE: Refusal = { refused: "unavailable" };

/** The near end of a line; `far` is the port of the other. */
function makeNear(hear: Near["hear"] = () => {}, onSilence?: () => void) {
  const clock = new FakeClock();
  const { port1, port2: far } = new MessageChannel();
  const options: LineOptions<Near> = { calls: { hear }, answerMs: ANSWER_MS, clock, onSilence };
  const line = new Line<Near, Far>(port1, options);
  const close = () => {
    line.close();
    far.close();
  };
  return { line, far, clock, [Symbol.dispose]: close };
}

/** A far end, and what was noted there. */
function makeFar(port: MessagePort) {
  const noted: number[] = [];
  const line: Line<Far, Near> = new Line<Far, Near>(port, {
    calls: {
      double(value) {
        queueMicrotask(() => line.tell("hear", value));
        return value * 2;
      },
      later: (value) => Promise.resolve(value + 1),
      note: (value) => void noted.push(value),
    },
    answerMs: ANSWER_MS,
    clock: new FakeClock(),
  });
  return { line, noted };
}

/** The next messages of a port, raw. */
function messages(port: MessagePort, count: number): Promise<unknown[][]> {
  const all: unknown[][] = [];
  return new Promise((resolve) => {
    port.onmessage = ({ data }) => {
      if (all.push(data) === count) resolve(all);
    };
  });
}

Deno.test("ask() is answered by value or by promise; calls arrive in their order", async () => {
  using near = makeNear();
  const far = makeFar(near.far);
  near.line.tell("note", 1);
  const doubled = near.line.ask("double", 21);
  near.line.tell("note", 2);
  assertEquals(await doubled, 42);
  assertEquals(far.noted, [1, 2]);
  assertEquals(await near.line.ask("later", 1), 2);
});

Deno.test("a turn's calls travel in one message", async () => {
  using near = makeNear();
  const arrived = messages(near.far, 2);
  for (let value = 0; value < 5; value++) near.line.tell("note", value);
  await new Promise((resolve) => setTimeout(resolve));
  near.line.tell("note", 5);
  assertEquals((await arrived).map((message) => message.length), [5, 1]);
});

Deno.test("call() goes on before anything that was sent behind the answer is taken", async () => {
  const heard: (number | string)[] = [];
  using near = makeNear((value) => heard.push(value));
  makeFar(near.far);
  for (const value of [1, 2]) near.line.call(() => heard.push(`answer ${value}`), "double", value);
  await near.line.ask("later", 3);
  assertEquals(heard, ["answer 1", "answer 2", 1, 2]);
});

Deno.test("ask() is unavailable when the answer is overdue; the silence is told once", async () => {
  let silences = 0;
  using near = makeNear(undefined, () => silences++);
  const { line, clock } = near;
  const first = line.ask("double", 1);
  clock.tick(500);
  const second = line.ask("double", 2);
  clock.tick(400);
  assertEquals(await first, UNAVAILABLE);
  assertEquals(await Promise.race([second, Promise.resolve("waits")]), "waits");
  clock.tick(500);
  assertEquals(await second, UNAVAILABLE);
  assertEquals(silences, 1);

  makeFar(near.far);
  assertEquals(await line.ask("double", 3), 6);
  near.far.onmessage = null;
  const third = line.ask("double", 4);
  clock.tick(900);
  assertEquals(await third, UNAVAILABLE);
  assertEquals(silences, 2);
});

Deno.test("close() sends what waits, and leaves nobody without an answer", async () => {
  using near = makeNear();
  const { line, clock } = near;
  const arrived = messages(near.far, 1);
  const asked = line.ask("double", 1);
  line.tell("note", 2);
  line.close();
  assertEquals(await asked, UNAVAILABLE);
  assertEquals((await arrived)[0].length, 2);
  assertEquals(await line.ask("double", 1), UNAVAILABLE);
  line.tell("note", 3);
  assertEquals(clock.timerCount, 0);
});
