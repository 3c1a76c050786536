// What a room takes in one turn: no more than its subscribers' queues hold, the rest in the next ones.

import { assertEquals } from "@std/assert";
import { Turn } from "../../handlers/registry/flush.ts";
import { Intake } from "../../handlers/registry/intake.ts";
import { createTestApp } from "../support/fakes.ts";

const QUEUE_BYTES = 400_000;

/** Turns that end when a test says so. */
function createTurn() {
  const tasks: (() => void)[] = [];
  const turn = new Turn(undefined, (task) => void tasks.push(task));
  const endTurn = async () => {
    for (const task of tasks.splice(0)) task();
    await new Promise((resolve) => setTimeout(resolve));
  };
  return { turn, endTurn, tasks };
}

Deno.test("Intake takes a quarter of MAX_QUEUE_BYTES a turn, the rest in its order in the next ones", async () => {
  const { turn, endTurn, tasks } = createTurn();
  const intake = new Intake({ queueLimit: QUEUE_BYTES, turn });
  const entered: string[] = [];
  const take = (name: string, size: number) => {
    const later = intake.take(size);
    if (later) later.then(() => entered.push(name));
    else entered.push(name);
  };
  take("a", 40_000);
  assertEquals(tasks.length, 0, "what is little asks for no turn");
  take("b", 40_000);
  take("c", 40_000);
  take("d", 10);
  assertEquals(entered, ["a", "b"]);
  await endTurn();
  assertEquals(entered, ["a", "b", "c", "d"]);
  take("long", 300_000);
  take("e", 10);
  await endTurn();
  assertEquals(entered.slice(4), ["long"], "it is the first of its turn");
  await endTurn();
  assertEquals(entered.slice(4), ["long", "e"]);
  await endTurn();
  assertEquals(tasks.length, 0);
});

Deno.test("a burst in one turn reaches all who read, and keeps its sender's order", async () => {
  const { turn, endTurn } = createTurn();
  const settings = { MAX_QUEUE_BYTES: QUEUE_BYTES };
  const { connect, registry } = createTestApp({ turn, settings });
  const ann = await connect("/chat/a", { dialect: "v1" });
  const bo = await connect("/chat/a");
  // The runtime sends nothing before the turn ends.
  bo.isStuck = true;
  ann.say({ type: "join", name: "Ann" });
  for (let n = 0; n < 9; n++) ann.say({ type: "chat", message: `${n}`.padEnd(60_000) });
  ann.say({ type: "leave" });
  for (let turns = 0; turns < 9; turns++) {
    bo.bufferedAmount = 0;
    await endTurn();
  }
  const heard = bo.objects as { type: string; message: string }[];
  const digits = heard.map(({ type, message }) => type === "chat" ? message[0] : type);
  assertEquals(digits, ["status", ..."012345678", "status"]);
  assertEquals(registry.counters.closes.tooSlow, 0);
});

Deno.test("answers of a hook that come together reach all who read, too", async () => {
  const { turn, endTurn } = createTurn();
  const answered = Promise.withResolvers<void>();
  const { connect, registry } = createTestApp({
    turn,
    settings: { MAX_QUEUE_BYTES: QUEUE_BYTES },
    onMessage: () => answered.promise,
  });
  const bo = await connect("/chat/a");
  for (let n = 0; n < 9; n++) {
    const socket = await connect("/chat/a", { dialect: "v1" });
    socket.say({ type: "join", name: "Ann" });
    socket.say({ type: "chat", message: `${n}`.padEnd(60_000) });
    await endTurn();
  }
  bo.isStuck = true;
  answered.resolve();
  for (let turns = 0; turns < 9; turns++) {
    await endTurn();
    bo.bufferedAmount = 0;
  }
  const chats = (bo.objects as { type: string }[]).filter(({ type }) => type === "chat");
  assertEquals([chats.length, registry.counters.closes.tooSlow], [9, 0]);
});
