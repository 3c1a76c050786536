import { assert, assertEquals } from "@std/assert";
import { CLOSE } from "../../handlers/protocol/close_codes.ts";

Deno.test("CLOSE holds the closes of the protocol and no other", () => {
  assertEquals<Record<string, { code: number; reason: string }>>(CLOSE, {
    goingAway: { code: 1001, reason: "going away" },
    rateLimited: { code: 1008, reason: "rate limited" },
    notAllowed: { code: 1008, reason: "not allowed" },
    tokenExpired: { code: 1008, reason: "token expired" },
    tooBig: { code: 1009, reason: "message too big" },
    tooSlow: { code: 1013, reason: "too slow" },
  });
});

Deno.test("CLOSE fits into Close frames", () => {
  // RFC 6455, 5.5: a control frame holds 125 bytes, two of them the code.
  for (const { code, reason } of Object.values(CLOSE)) {
    assert(code >= 1000 && code <= 1014);
    assert(new TextEncoder().encode(reason).length <= 123);
  }
});
