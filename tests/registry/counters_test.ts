import { assertEquals } from "@std/assert";
import { addUp } from "../../handlers/registry/counters.ts";

Deno.test("addUp() adds number by number, those of one thread alone too", () => {
  const sum = addUp([
    { clients: 1, refusals: { bad_json: 2 } },
    { clients: 2, refusals: { bad_json: 3, forbidden: 1 } },
    { clients: 4, refusals: {}, late: 8 },
  ]);
  assertEquals(sum, { clients: 7, refusals: { bad_json: 5, forbidden: 1 }, late: 8 });
  assertEquals(addUp([]), {});
});
