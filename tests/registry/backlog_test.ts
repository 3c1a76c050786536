import { assert, assertEquals } from "@std/assert";
import { Backlog } from "../../handlers/registry/backlog.ts";

Deno.test("Backlog.weigh() is the bytes alone for 2 s, then each frame weighs 1,000 more", () => {
  const backlog = new Backlog(10_000, 1_000_000);
  let waiting = 0;
  const send = (frame: string | Uint8Array, now: number) => {
    waiting += typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.length;
    return backlog.weigh(waiting, frame, now);
  };
  for (let count = 1; count <= 100; count++) {
    assertEquals(send("가".repeat(20), 11_999), count * 60);
  }
  assertEquals(send(new Uint8Array(60), 12_000), 101 * 1_060);
  assertEquals(send("x".repeat(60), 12_001), 102 * 1_060);
});

Deno.test("Backlog.weigh() tells small frames behind large ones that have gone", () => {
  const backlog = new Backlog(0, 1_000_000);
  for (let large = 0; large < 1_000; large++) backlog.weigh(60_000, "x".repeat(60_000), 1_000);
  let waiting = 60_000;
  let count = 0;
  for (let weight = 0; weight < 1_000_000; count++) {
    weight = backlog.weigh(waiting += 40, "x".repeat(40), 5_000);
  }
  // 28,000 of them would wait if bytes were all that counts.
  assert(count > 500 && count < 5_000, `${count} frames`);
});
