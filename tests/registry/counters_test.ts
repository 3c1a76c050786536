import { assertEquals } from "@std/assert";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { drain } from "../../handlers/registry/drain.ts";
import { createTestApp, FakeClock } from "../support/fakes.ts";

/** Waits until all that has no timer is done. */
const settled = () => new Promise((resolve) => setTimeout(resolve));

Deno.test("members are counted out again, whoever leaves, renames or vanishes", async () => {
  const { connect, registry: { counters } } = createTestApp();
  const sockets = await Promise.all(["a", "b", "c"].map(() => connect("/chat", { dialect: "v1" })));
  for (const socket of sockets) socket.say({ type: "join", name: "Ann" });
  sockets[0].say({ type: "join", name: "Anna" });
  sockets[0].say({ type: "join", name: "Ann", room: "ops" });
  assertEquals(counters.members, 4);
  sockets[0].say({ type: "leave", room: "ops" });
  assertEquals(counters.members, 3);
  sockets[0].say({ type: "leave" });
  sockets[1].drop();
  sockets[2].end();
  assertEquals(counters.members, 0);
});

Deno.test("a post counts as a message with its bytes, refused or not", async () => {
  const { ask, registry: { counters } } = createTestApp({ settings: { POST_RATE: 1 } });
  const body = JSON.stringify({ message: "12345", sender: "Ann" });
  const headers = { "content-type": "application/json" };
  const post = async () => {
    const answer = await ask("/rooms/ops/messages", { method: "POST", headers, body }, {
      remoteAddr: { transport: "tcp", hostname: "192.0.2.1", port: 1 },
    });
    return answer.status;
  };
  assertEquals([await post(), await post()], [202, 429]);
  assertEquals([counters.messagesIn, counters.bytesIn], [2, 2 * body.length]);
});

Deno.test("a batch of posts counts its bytes once, and each of its messages", async () => {
  const { ask, registry: { counters } } = createTestApp();
  const messages = ["a", "b"].map((room) => ({ room, message: "12345", sender: "Ann" }));
  const body = JSON.stringify({ messages });
  const headers = { "content-type": "application/json" };
  const answer = await ask("/rooms/messages", { method: "POST", headers, body });
  await answer.body?.cancel();
  assertEquals(answer.status, 200);
  assertEquals([counters.messagesIn, counters.bytesIn], [2, body.length]);
});

Deno.test("a message that came while a replay was awaited is a delivery, like those before", async () => {
  const engine = createMemoryEngine(
    { historySize: 10, historySeconds: 60, historyMb: 1, maxRooms: 10 },
    new FakeClock(),
  );
  const { connect, registry: { counters } } = createTestApp({ engine });
  const say = (message: string) => engine.publish("ops", { sender: "Ann", message });
  say("1");
  const read = engine.read.bind(engine);
  const late = Promise.withResolvers<void>();
  engine.read = async (...args) => {
    const span = await read(...args);
    await late.promise;
    return span;
  };
  const socket = await connect("/chat/ops?history=1", { dialect: "v1" });
  say("2");
  assertEquals(counters.deliveries, 0);
  late.resolve();
  await settled();
  assertEquals(socket.objects.length, 3);
  assertEquals(counters.deliveries, 2);
});

Deno.test("a drain is not longer because the clock is set back", async () => {
  const { connect, clock, registry } = createTestApp({ settings: { DRAIN_SECONDS: 1 } });
  const sockets = [await connect("/chat"), await connect("/echo")];
  let setBackMs = 0;
  const { clients, limits, turn } = registry;
  const wall = {
    now: () => clock.now() - setBackMs,
    after: clock.after.bind(clock),
    every: clock.every.bind(clock),
  };
  drain({ clients, turn, clock: wall } as typeof registry, limits.drainSeconds);
  setBackMs = 3_600_000;
  clock.tick(1_100);
  assertEquals(sockets.map(({ closes }) => closes.length), [1, 1]);
});
