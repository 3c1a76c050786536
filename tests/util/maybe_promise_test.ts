import { assertEquals, assertInstanceOf } from "@std/assert";
import { chain } from "../../handlers/util/maybe_promise.ts";

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
