import { assertEquals } from "@std/assert";
import { type Connection, MAX_FRAME_BYTES } from "../handlers/registry/connection.ts";
import { MergedFrame } from "../handlers/registry/merged_frame.ts";

/** A connection that only takes, and what it took. */
function taker(hasEnded = false) {
  const taken: [string, number][] = [];
  const take = (frame: string, bytes: number) => taken.push([frame, bytes]);
  return { taken, connection: { hasEnded, take } as unknown as Connection };
}

Deno.test("MergedFrame gives everybody one text with an object a line, and its bytes", () => {
  const frame = new MergedFrame();
  frame.add('{"a":1}', 7);
  frame.add('"안"', 5);
  assertEquals(frame.count, 2);
  const [ann, bo] = [taker(), taker()];
  frame.giveTo(new Set([ann.connection, bo.connection]));
  assertEquals(ann.taken, [['{"a":1}\n"안"', 13]]);
  assertEquals(bo.taken, ann.taken);
  assertEquals([frame.count, frame.isEmpty], [0, true]);
});

Deno.test("MergedFrame.admit() keeps from a late listener what was due before", () => {
  const frame = new MergedFrame();
  const [ann, late, latest] = [taker(), taker(), taker()];
  frame.add("1", 1);
  frame.admit(late.connection);
  frame.add("안", 3);
  frame.admit(latest.connection);
  frame.giveTo(new Set([ann.connection, late.connection, latest.connection]));
  assertEquals(ann.taken, [["1\n안", 5]]);
  assertEquals(late.taken, [["안", 3]]);
  assertEquals(latest.taken, []);
  frame.add("3", 1);
  frame.giveTo(new Set([latest.connection]));
  assertEquals(latest.taken, [["3", 1]], "late once");
});

Deno.test("MergedFrame.dismiss() gives a listener that leaves its part, and an ended one nothing", () => {
  const frame = new MergedFrame();
  const [leaving, late, ended] = [taker(), taker(), taker(true)];
  frame.add("1", 1);
  frame.admit(late.connection);
  frame.add("2", 1);
  for (const { connection } of [leaving, late, ended]) frame.dismiss(connection);
  assertEquals([leaving.taken, late.taken, ended.taken], [[["1\n2", 3]], [["2", 1]], []]);
});

Deno.test("MergedFrame.hasSpace() counts the line break, and takes any first object", () => {
  const frame = new MergedFrame();
  assertEquals(frame.hasSpace(MAX_FRAME_BYTES + 1), true);
  frame.add("x".repeat(100), 100);
  assertEquals(frame.hasSpace(MAX_FRAME_BYTES - 101), true);
  assertEquals(frame.hasSpace(MAX_FRAME_BYTES - 100), false);
});
