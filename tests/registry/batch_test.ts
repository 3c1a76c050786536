import { assertEquals } from "@std/assert";
import { ListenerGroup } from "../../handlers/registry/batch.ts";
import { type Connection, MAX_FRAME_BYTES } from "../../handlers/registry/connection.ts";
import { Counters } from "../../handlers/registry/counters.ts";

/** A connection that only takes, and what it took. */
function taker(hasEnded = false) {
  const taken: [string, number][] = [];
  const take = (frame: string, bytes: number) => taken.push([frame, bytes]);
  return { taken, connection: { hasEnded, take } as unknown as Connection };
}

function createGroup() {
  const counters = new Counters();
  return { counters, group: new ListenerGroup(counters) };
}

Deno.test("ListenerGroup gives all its listeners one text with an object a line, and its bytes", () => {
  const { group, counters } = createGroup();
  const [ann, bo] = [taker(), taker()];
  group.add(ann.connection);
  group.add(bo.connection);
  group.push('{"a":1}', 7);
  group.push('"안"', 5);
  assertEquals(group.isDue, true);
  group.flush();
  group.flush();
  assertEquals(ann.taken, [['{"a":1}\n"안"', 13]]);
  assertEquals(bo.taken, ann.taken);
  assertEquals([group.isDue, group.size, counters.deliveries], [false, 2, 4]);
  assertEquals(counters.batchSizes.total, 1);
});

Deno.test("ListenerGroup.add() keeps from a late listener what was due before", () => {
  const { group } = createGroup();
  const [ann, late, latest] = [taker(), taker(), taker()];
  group.add(ann.connection);
  group.push("1", 1);
  group.add(late.connection);
  group.push("안", 3);
  group.add(latest.connection);
  group.flush();
  assertEquals([ann.taken, late.taken, latest.taken], [[["1\n안", 5]], [["안", 3]], []]);
  group.push("3", 1);
  group.flush();
  assertEquals(latest.taken, [["3", 1]], "late once");
});

Deno.test("ListenerGroup.delete() gives a listener that leaves its part, and an ended one nothing", () => {
  const { group } = createGroup();
  const [leaving, late, ended] = [taker(), taker(), taker(true)];
  group.add(leaving.connection);
  group.add(ended.connection);
  group.push("1", 1);
  group.add(late.connection);
  group.push("2", 1);
  for (const { connection } of [leaving, late, ended]) group.delete(connection);
  assertEquals([leaving.taken, late.taken, ended.taken], [[["1\n2", 3]], [["2", 1]], []]);
  assertEquals(group.size, 0);
});

Deno.test("ListenerGroup.flush() lets nothing overtake that an eviction in its middle brings", () => {
  const { group } = createGroup();
  const news = "x".repeat(MAX_FRAME_BYTES - 1);
  const take = (text: string) => {
    if (text === "chat") { for (let i = 0; i < 3; i++) group.push(news, news.length); }
  };
  group.add({ hasEnded: false, take } as unknown as Connection);
  const ann = taker();
  group.add(ann.connection);
  group.push("chat", 4);
  group.flush();
  group.flush();
  assertEquals(ann.taken[0], ["chat", 4]);
});

Deno.test("ListenerGroup.push() begins another frame before one would be too long", () => {
  const { group } = createGroup();
  const ann = taker();
  group.add(ann.connection);
  const long = "x".repeat(MAX_FRAME_BYTES - 2);
  group.push(long, long.length);
  group.push("y", 1);
  assertEquals(ann.taken, [], "with the line break they are just one frame");
  group.push("z", 1);
  group.flush();
  assertEquals(ann.taken, [[`${long}\ny`, MAX_FRAME_BYTES], ["z", 1]]);
});
