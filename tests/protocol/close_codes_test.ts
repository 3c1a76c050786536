import { assert } from "@std/assert";
import { CLOSE } from "../../handlers/protocol/close_codes.ts";

Deno.test("CLOSE fits into Close frames", () => {
  // RFC 6455, 5.5: a control frame holds 125 bytes, two of them the code.
  for (const { code, reason } of Object.values(CLOSE)) {
    assert(code >= 1000 && code <= 1014);
    assert(new TextEncoder().encode(reason).length <= 123);
  }
});
