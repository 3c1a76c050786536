import { assertEquals } from "@std/assert";
import { DirectFanOut, MergedFanOut } from "../../handlers/registry/batch.ts";
import { Counters } from "../../handlers/registry/counters.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { MAX_FRAME_BYTES } from "../../handlers/registry/pending_frame.ts";
import type { Subscriber } from "../../handlers/registry/subscriber.ts";

/** A subscriber that only takes, and what it took. */
function taker(hasEnded = false) {
  const taken: [string, number][] = [];
  const enqueue = (frame: string, bytes: number) => taken.push([frame, bytes]);
  const send = (frame: string) => enqueue(frame, frame.length);
  return { taken, subscriber: { hasEnded, enqueue, send } as unknown as Subscriber };
}

/** A subscriber that throws whatever it is given. */
function thrower() {
  const fail = () => {
    throw new Error("broken");
  };
  return { subscriber: { enqueue: fail, send: fail } as unknown as Subscriber };
}

function createOptions() {
  const failed: Subscriber[] = [];
  const counters = new Counters();
  const turn = new Turn(() => {});
  return { counters, turn, failed, fail: (subscriber: Subscriber) => failed.push(subscriber) };
}

function createMerged() {
  const options = createOptions();
  return { ...options, fanOut: new MergedFanOut(options) };
}

Deno.test("DirectFanOut sends each object to all of its subscribers at once", () => {
  const options = createOptions();
  const fanOut = new DirectFanOut(options);
  const [ann, bo] = [taker(), taker()];
  fanOut.add(ann.subscriber);
  fanOut.add(bo.subscriber);
  fanOut.push("1");
  fanOut.delete(bo.subscriber);
  fanOut.push("2");
  assertEquals([ann.taken, bo.taken], [[["1", 1], ["2", 1]], [["1", 1]]]);
  assertEquals([options.counters.deliveries, fanOut.size], [3, 1]);
});

Deno.test("a subscriber that throws costs the others nothing, in either fan-out", () => {
  for (const FanOut of [DirectFanOut, MergedFanOut]) {
    const options = createOptions();
    const fanOut = new FanOut(options);
    const [broken, ann] = [thrower(), taker()];
    fanOut.add(broken.subscriber);
    fanOut.add(ann.subscriber);
    fanOut.push("1");
    fanOut.flush();
    fanOut.push("2");
    fanOut.flush();
    assertEquals(ann.taken, [["1", 1], ["2", 1]]);
    assertEquals(options.failed, [broken.subscriber, broken.subscriber]);
  }
});

Deno.test("MergedFanOut gives all its listeners one text with an object a line, and its bytes", () => {
  const { fanOut, counters } = createMerged();
  const [ann, bo] = [taker(), taker()];
  fanOut.add(ann.subscriber);
  fanOut.add(bo.subscriber);
  fanOut.push('{"a":1}');
  fanOut.push('"안"');
  fanOut.flush();
  fanOut.flush();
  assertEquals(ann.taken, [['{"a":1}\n"안"', 13]]);
  assertEquals(bo.taken, ann.taken);
  assertEquals([fanOut.size, counters.deliveries], [2, 4]);
  assertEquals(counters.batchSizes.total, 1);
});

Deno.test("MergedFanOut.add() keeps from a late listener what was due before", () => {
  const { fanOut } = createMerged();
  const [ann, late, latest] = [taker(), taker(), taker()];
  fanOut.add(ann.subscriber);
  fanOut.push("1");
  fanOut.add(late.subscriber);
  fanOut.push("안");
  fanOut.add(latest.subscriber);
  fanOut.flush();
  assertEquals([ann.taken, late.taken, latest.taken], [[["1\n안", 5]], [["안", 3]], []]);
  fanOut.push("3");
  fanOut.flush();
  assertEquals(latest.taken, [["3", 1]], "late once");
});

Deno.test("MergedFanOut.delete() gives a listener that leaves its part, and an ended one nothing", () => {
  const { fanOut } = createMerged();
  const [leaving, late, ended] = [taker(), taker(), taker(true)];
  fanOut.add(leaving.subscriber);
  fanOut.add(ended.subscriber);
  fanOut.push("1");
  fanOut.add(late.subscriber);
  fanOut.push("2");
  for (const { subscriber } of [leaving, late, ended]) fanOut.delete(subscriber);
  assertEquals([leaving.taken, late.taken, ended.taken], [[["1\n2", 3]], [["2", 1]], []]);
  assertEquals(fanOut.size, 0);
});

Deno.test("MergedFanOut.flush() lets nothing overtake that an eviction in its middle brings", () => {
  const { fanOut } = createMerged();
  const news = "x".repeat(MAX_FRAME_BYTES - 1);
  const enqueue = (text: string) => {
    if (text === "chat") { for (let i = 0; i < 3; i++) fanOut.push(news); }
  };
  fanOut.add({ hasEnded: false, enqueue } as unknown as Subscriber);
  const ann = taker();
  fanOut.add(ann.subscriber);
  fanOut.push("chat");
  fanOut.flush();
  fanOut.flush();
  assertEquals(ann.taken[0], ["chat", 4]);
});

Deno.test("MergedFanOut.push() begins another frame before one would be too long", () => {
  const { fanOut } = createMerged();
  const ann = taker();
  fanOut.add(ann.subscriber);
  const long = "x".repeat(MAX_FRAME_BYTES - 2);
  fanOut.push(long);
  fanOut.push("y");
  assertEquals(ann.taken, [], "with the line break they are just one frame");
  fanOut.push("z");
  fanOut.flush();
  assertEquals(ann.taken, [[`${long}\ny`, MAX_FRAME_BYTES], ["z", 1]]);
});
