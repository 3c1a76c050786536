// What is taken in one turn: no more than a subscriber's queue holds, the rest in the next ones.

import { assertEquals } from "@std/assert";
import { isRefusal } from "../../handlers/engine/engine.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { Intake } from "../../handlers/registry/intake.ts";
import { Line, type Rejection, type Sender } from "../../handlers/registry/sender.ts";
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
  const { registry: { limits } } = createTestApp();
  const intake = new Intake({ limits, queueLimit: QUEUE_BYTES, turn });
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

Deno.test("a burst over many rooms reaches who hears all of them", async () => {
  const { turn, endTurn } = createTurn();
  const settings = { MAX_QUEUE_BYTES: QUEUE_BYTES };
  const { connect, registry } = createTestApp({ turn, settings });
  const rooms = Array.from("abcdefghi");
  const all = await connect("/chat/a", { dialect: "v1" });
  const speakers = await Promise.all(rooms.map((room) => connect(`/chat/${room}`)));
  for (const room of rooms) all.say({ type: "listen", room });
  await endTurn();
  all.isStuck = true;
  for (const speaker of speakers) {
    speaker.say({ type: "join", name: "x" });
    speaker.say({ type: "chat", message: "x".repeat(60_000) });
  }
  for (let turns = 0; turns < rooms.length; turns++) {
    await endTurn();
    all.bufferedAmount = 0;
  }
  const heard = all.objects as { type: string; room: string }[];
  const said = heard.filter(({ type }) => type === "chat");
  assertEquals(said.map(({ room }) => room), rooms);
  assertEquals(registry.counters.closes.tooSlow, 0);
});

Deno.test("of one sender no more waits than its burst, and less where all of QUEUE_MB waits", async () => {
  const { turn, endTurn } = createTurn();
  const settings = { MAX_QUEUE_BYTES: QUEUE_BYTES, BYTE_RATE: 0, QUEUE_MB: 1 };
  const { connect, registry } = createTestApp({ turn, settings });
  const limits = { ...registry.limits, byteRate: 500_000 };
  const intake = new Intake({ limits, queueLimit: QUEUE_BYTES, turn });
  const sender = (via: "socket" | "http") => ({ via, line: new Line() }) as unknown as Sender;
  const refused: Rejection = { refused: "rate_limited", retry: 1_000 };
  const send = (from: Sender, size = 60_000) => intake.enter(from, size, () => intake.take(size));
  const flooder = sender("socket");
  /** How many messages of a sender are let in before one is refused. */
  const fill = (from: Sender) => {
    let count = 0;
    while (!isRefusal(send(from))) count++;
    return count;
  };
  assertEquals(fill(flooder), 9, "one is taken, 480,000 bytes wait");
  assertEquals(flooder.line.waitingBytes, 480_000);
  assertEquals(isRefusal(send(flooder, 10)), false, "a small one still fits");
  const others = [fill(sender("socket")), fill(sender("socket")), fill(sender("socket"))];
  assertEquals(others, [4, 2, 1], "each half of what the others leave");
  assertEquals(isRefusal(send(sender("socket"))), false, "who waits for nothing is never refused");
  const request = sender("http");
  for (let n = 0; n < 9; n++) assertEquals(isRefusal(send(request)), false);
  assertEquals(await send(flooder), refused);
  for (let turns = 0; turns < 40; turns++) await endTurn();
  assertEquals([flooder.line.waitingBytes, request.line.waitingBytes], [0, 0]);
  assertEquals(fill(flooder), 9, "all is counted out");
  for (let turns = 0; turns < 40; turns++) await endTurn();
  const bo = await connect("/chat/a");
  bo.say({ type: "join", name: "Bo" });
  for (let n = 0; n < 15; n++) bo.say({ type: "chat", message: "x".repeat(40_000) });
  const error = { type: "error", message: "Too many messages." };
  const heard = (type: string) =>
    bo.objects.filter((object) => (object as typeof error).type === type);
  assertEquals(heard("error"), [error], "two are taken, twelve wait");
  for (let turns = 0; turns < 15; turns++) await endTurn();
  assertEquals(heard("chat").length, 14);
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

Deno.test("whatever a socket may send in one turn is taken: who waits for a turn does not wait for the engine", async () => {
  const { turn, endTurn, tasks } = createTurn();
  const settings = { MESSAGE_RATE: 0, BYTE_RATE: 0 };
  const { connect, registry } = createTestApp({ turn, settings });
  const ann = await connect("/chat/a", { dialect: "v1" });
  ann.say({ type: "join", name: "Ann" });
  for (let n = 1; n <= 5_000; n++) ann.say({ type: "chat", message: n });
  while (tasks.length > 0) await endTurn();
  assertEquals(registry.counters.refusals, {});
  assertEquals(registry.rooms.get("a")?.head.seq, 5_000);
});
