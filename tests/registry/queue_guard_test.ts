import { assertEquals } from "@std/assert";
import { guardQueues } from "../../handlers/registry/queue_guard.ts";
import { createTestApp, type FakeSocket } from "../support/fakes.ts";

Deno.test("guardQueues() lets each client have less as all together near QUEUE_MB", async () => {
  const settings = { QUEUE_MB: 1, MAX_QUEUE_BYTES: 400_000 };
  const { registry, clock, connect } = createTestApp({ settings });
  const stop = guardQueues(registry);
  const sockets: FakeSocket[] = [];
  while (sockets.length < 4) sockets.push(await connect("/echo"));
  const [first, second, third, honest] = sockets;
  first.bufferedAmount = 300_000;
  clock.tick(500);
  assertEquals([registry.queueLimit, first.closes], [400_000, []]);
  second.bufferedAmount = third.bufferedAmount = 250_000;
  honest.bufferedAmount = 50_000;
  clock.tick(500);
  assertEquals(registry.queueLimit, 120_000);
  const tooSlow = [{ code: 1013, reason: "too slow" }];
  assertEquals(sockets.map(({ closes }) => closes), [tooSlow, tooSlow, tooSlow, []]);
  clock.tick(500);
  assertEquals(registry.queueLimit, 120_000, "the runtime still holds what they did not read");
  for (const socket of [first, second, third]) {
    socket.bufferedAmount = 0;
    socket.end();
  }
  clock.tick(500);
  assertEquals([registry.queueLimit, registry.clients.size], [400_000, 1]);
  stop();
});

Deno.test("guardQueues() leaves each client 64 kB, however much is unsent", async () => {
  const { registry, clock, connect } = createTestApp({ settings: { QUEUE_MB: 1 } });
  const stop = guardQueues(registry);
  const [stuck, honest] = [await connect("/echo"), await connect("/echo")];
  stuck.bufferedAmount = 10_000_000;
  honest.bufferedAmount = 60_000;
  clock.tick(500);
  assertEquals([registry.queueLimit, stuck.closes.length, honest.closes.length], [65_536, 1, 0]);
  stop();
});
