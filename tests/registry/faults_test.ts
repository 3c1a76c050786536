// Nothing that one subscriber, a log or a room does costs another its message.
import { assertEquals } from "@std/assert";
import { Turn } from "../../handlers/registry/flush.ts";
import { createTestApp, RecordingLog } from "../support/fakes.ts";
import { TestSubscriber } from "../support/subscriber.ts";

const NO_RATES = { MESSAGE_RATE: 0, BYTE_RATE: 0, JOIN_RATE: 0, POST_RATE: 0 };

/** A log that throws at each line of an event. */
function createBrokenLog(event: string) {
  const log = new RecordingLog();
  const { info } = log;
  return Object.assign(log, {
    info(text: string, fields: Record<string, unknown> = {}) {
      if (fields.event === event) throw new Error("disk full");
      info(text, fields);
    },
  });
}

Deno.test("a log that throws mutes no room, whatever it is told of", async () => {
  for (const event of ["evicted", "left", "joined", "connected", "disconnected"]) {
    const settings = { ...NO_RATES, MAX_QUEUE_BYTES: 1_000 };
    const { connect, ask } = createTestApp({ log: createBrokenLog(event), settings });
    const [slow, bob] = [await connect("/chat/ops"), await connect("/chat/ops")];
    slow.say({ type: "join", name: "Slow" });
    bob.take();
    slow.isStuck = true;
    const statuses = [];
    for (const message of ["x".repeat(900), "x".repeat(900), "three"]) {
      const init = {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ message }),
      };
      statuses.push((await ask("/rooms/ops/messages", init)).status);
    }
    assertEquals(statuses, [202, 202, 202], event);
    const types = bob.objects.map((object) => (object as { type: string }).type);
    assertEquals(types, ["chat", "chat", "status", "chat"], event);
  }
});

Deno.test("a subscriber that throws is ended, and the others hear all", async () => {
  const { registry, engine, log } = createTestApp();
  const [broken, good] = [new TestSubscriber(registry), new TestSubscriber(registry)];
  for (const one of [broken, good]) registry.room("ops").subscribe(one, {});
  broken.send = () => {
    throw new Error("broken");
  };
  for (const message of ["1", "2"]) await engine.publish("ops", { sender: "Ann", message });
  assertEquals(good.events.slice(1).map(([{ message }]) => message), [1, 2]);
  assertEquals([broken.hasEnded, registry.rooms.get("ops")?.listenerCount], [true, 1]);
  assertEquals(log.of("error").length, 1);
});

Deno.test("a binary frame flushes its own room alone", async () => {
  const turn = new Turn(() => {});
  const { connect } = createTestApp({ turn, settings: NO_RATES });
  const gamer = await connect("/chat/game");
  gamer.say({ type: "join", name: "Gamer" });
  const talker = await connect("/chat/talk", { dialect: "v1" });
  const reader = await connect("/chat/talk", { dialect: "v1" });
  talker.say({ type: "join", name: "Talker" });
  turn.flush();
  reader.take();
  for (let n = 0; n < 10; n++) {
    talker.say({ type: "chat", message: n });
    gamer.sayBytes(n);
  }
  turn.flush();
  assertEquals([reader.frames.length, reader.objects.length], [1, 10]);
});

Deno.test("an eviction drops what was pending: nothing more is sent to a peer that is full", async () => {
  const turn = new Turn(() => {});
  const { connect } = createTestApp({ turn, settings: { ...NO_RATES, MAX_QUEUE_BYTES: 1_000 } });
  const slow = await connect("/chat/ops", { dialect: "v1" });
  turn.flush();
  slow.take();
  slow.say({ type: "ping" });
  slow.isStuck = true;
  slow.bufferedAmount = 1_001;
  const ann = await connect("/chat/ops");
  ann.say({ type: "join", name: "Ann" });
  ann.sayBytes(1);
  assertEquals(slow.closes, [{ code: 1013, reason: "too slow" }]);
  const sent = slow.frames.length;
  turn.flush();
  assertEquals(slow.frames.length, sent);
});
