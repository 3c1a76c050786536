/**
 * What every engine must do with a room's state.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Change, Engine } from "../../handlers/engine/engine.ts";
import { granted, hear, type Recorder } from "../support/recorder.ts";
import { draft, range, suite, type System } from "./contract.ts";

/** Registers the suite for an engine. */
export function stateContract(...system: System): void {
  const stated = suite("engine's state", system);
  const contract = (
    statement: string,
    fn: (one: Engine, two: Engine, pass?: (ms: number) => void) => Promise<void>,
  ) => stated(statement, (nodes, pass) => fn(nodes[0], nodes.at(-1)!, pass));

  contract("changes have numbers of their own, and one order with messages", async (one, two) => {
    const { recorder, head } = await hear(two, "r");
    assertEquals([head.seq, head.rev], [0, 0]);
    const calls = [
      put(one, "a/1", { "é😀": 1 }),
      one.publish("r", draft("x")),
      put(one, "b", null),
    ];
    const places = await Promise.all(calls.map((call) => granted(call as ReturnType<typeof put>)));
    assertEquals(places.map(({ rev }) => rev), [1, undefined, 1]);
    await granted(put(one, "b", 2));
    await granted(put(one, "b", null));
    await recorder.until(({ events }) => events.length >= 4);
    assertEquals(recorder.events.map(({ type }) => type), ["set", "chat", "set", "set"]);
    assertEquals(setsOf(recorder), ['1 a/1={"é😀":1}', "2 b=2", "3 b=null"]);
    two.release("r");
    const again = await hear(two, "r");
    assertEquals([again.head.epoch, again.head.seq, again.head.rev], [head.epoch, 1, 3]);
  });

  contract("it is all keys by key, or what changed behind a rev", async (one, two) => {
    let epoch = "";
    for (const [key, value] of [["b", 1], ["a", 2], ["b", 3], ["c", 4], ["a", null]] as const) {
      epoch = (await granted(put(one, key, value))).epoch;
    }
    assertEquals(await stateOf(two), "5 b=3 c=4");
    const since = async (rev: number, of = epoch) => {
      const { since, entries } = await granted(two.state("r", { epoch: of, rev }));
      return [since, ...entries.map(({ key, rev }) => `${key}@${rev}`)];
    };
    assertEquals(await since(2), [2, "b@3", "c@4", "a@5"]);
    assertEquals(await since(5), [5]);
    assertEquals(await since(6), [undefined, "b@3", "c@4"]);
    assertEquals(await since(2, "another"), [undefined, "b@3", "c@4"]);
  });

  contract("`if` lets a change through only from this rev", async (one, two) => {
    assertEquals((await granted(put(one, "k", 1, { if: 0 }))).rev, 1);
    assertEquals(await put(two, "k", 2, { if: 0 }), { refused: "rev_conflict", rev: 1 });
    assertEquals((await granted(put(two, "k", null, { if: 1 }))).rev, 2);
    assertEquals(await put(one, "k", 2, { if: 1 }), { refused: "rev_conflict", rev: 0 });
  });

  contract("an id counts once in a session, beside a message's", async (one, two) => {
    const id = { session: "s", id: "1" };
    const first = await granted(put(one, "k", 1, { id }));
    await granted(put(one, "k", 2));
    assertEquals(await put(two, "k", 1, { id, if: 0 }), first);
    assertEquals(await stateOf(one), "2 k=2");
    assertEquals((await granted(two.publish("r", draft("x", id)))).seq, 1);
    const pinned = { ...id, id: "2", digest: "d" };
    await granted(put(one, "k", 3, { id: pinned }));
    const other = put(two, "k", 4, { id: { ...pinned, digest: "e" } });
    assertEquals(await other, { refused: "conflict" });
  });

  contract("a room has at most MAX_KEYS keys", async (one) => {
    await Promise.all(range(1, 1_000).map((i) => put(one, `k${i}`, i)));
    assertEquals(await put(one, "more", 1), { refused: "too_many_keys" });
    await granted(put(one, "k1", "again"));
    await granted(put(one, "k1", null));
    await granted(put(one, "more", 1));
  });

  contract("a key with a ttl is removed by itself", async (one, two, pass) => {
    const { recorder } = await hear(two, "r");
    await granted(put(one, "gone", 1, { ttlSeconds: 1, sender: "Eve" }));
    await granted(put(one, "stays", 1, { ttlSeconds: 1 }));
    await granted(put(one, "stays", 2));
    pass?.(1_100);
    await recorder.until(({ events }) => events.length >= 4);
    assertEquals(setsOf(recorder), ["1 gone=1", "2 stays=1", "3 stays=2", "4 gone=null"]);
    const last = recorder.events.at(-1);
    assertEquals(last?.type === "set" && last.entry.sender, "Eve");
    assertEquals(await stateOf(one), "4 stays=2");
  });

  contract("a bound key goes behind its member; another set releases it", async (one, two) => {
    const { recorder } = await hear(two, "r");
    await one.join("r", "m", "Ann");
    await one.join("r", "n", "Bob");
    for (const key of ["a", "b", "c"]) await granted(put(one, key, 1, { member: "m" }));
    await granted(put(two, "b", 2));
    await granted(put(one, "c", 3, { member: "n" }));
    one.leave("r", "m");
    await recorder.until(({ events }) => events.length >= 9);
    assertEquals(recorder.events.slice(7).map(({ type }) => type), ["status", "set"]);
    assertEquals(setsOf(recorder).at(-1), "6 a=null");
    assertEquals(await stateOf(two), "6 b=2 c=3");
  });

  contract("a room with state only is kept", async (one, two) => {
    const { head } = await hear(one, "r");
    await granted(put(one, "k", 1));
    one.release("r");
    assertEquals((await granted(two.state("r"))).epoch, head.epoch);
    assertEquals(await stateOf(two), "1 k=1");
  });
}

/** Sets a key of the room "r". */
export function put(engine: Engine, key: string, value: unknown, more: Partial<Change> = {}) {
  return engine.set("r", { key, value: JSON.stringify(value), sender: "Ann", ...more });
}

/** The changes that were heard, as `rev key=value`. */
export function setsOf({ events }: Recorder): string[] {
  return events.filter((event) => event.type === "set")
    .map(({ entry: { rev, key, value } }) => `${rev} ${key}=${value}`);
}

/** The state of the room "r": its rev, and `key=value` of each key. */
export async function stateOf(engine: Engine): Promise<string> {
  const { rev, entries } = await granted(engine.state("r"));
  return [rev, ...entries.map(({ key, value }) => `${key}=${value}`)].join(" ");
}
