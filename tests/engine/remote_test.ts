import { assert, assertEquals } from "@std/assert";
import type { Engine, Host, Refusal } from "../../handlers/engine/engine.ts";
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import type { Changes } from "../../handlers/engine/journal.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import type { HistoryLimits } from "../../handlers/engine/room_rules.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { remoteEngine } from "../../handlers/engine/remote.ts";
import { shareEngine } from "../../handlers/engine/shared.ts";
import type { Head } from "../../handlers/protocol/position.ts";
import type { Members, RoomEvent } from "../../handlers/protocol/room_event.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { FakeClock } from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";
import { MemoryStore } from "../support/memory_store.ts";
import { eventually, granted, hear, people, Recorder } from "../support/recorder.ts";
import { patientClock, redisDatabases, redisTest } from "../support/redis_server.ts";
import { together } from "../support/together.ts";
import { type Cluster, draft, engineContract, ROOMY } from "./contract.ts";
import { stateContract } from "./state_contract.ts";
import { startOwner } from "./remote_thread.ts";

/** An engine as its own thread uses it, and over a port. */
async function share(engine: Engine): Promise<Required<Omit<Cluster, "pass">>> {
  const shared = shareEngine(engine);
  const { port1, port2 } = new MessageChannel();
  shared.serve(port1);
  const remote = remoteEngine(port2);
  await remote.members("any");
  return { nodes: [shared.here, remote], stop: () => shared.close() };
}

async function shareMemory(limits: HistoryLimits): Promise<Cluster> {
  const clock = new FakeClock(Date.now());
  const cluster = await share(createMemoryEngine(limits, clock));
  return { ...cluster, pass: (ms) => clock.tick(ms) };
}

/** Commits take a turn of the event loop, as those of a thread do. */
class LateStore extends MemoryStore {
  #turn: Promise<unknown> = Promise.resolve();

  override async commit(changes: Changes): Promise<void> {
    await (this.#turn = nextTurn());
    await super.commit(changes);
  }

  override async close(): Promise<void> {
    await this.#turn;
    await super.close();
  }
}

async function shareDurable(limits: HistoryLimits): Promise<Cluster> {
  const clock = new FakeClock(Date.now());
  const open = () => Promise.resolve(new LateStore());
  const cluster = await share(await createDurableEngine("memory", limits, clock, silentLog, open));
  return { ...cluster, pass: (ms) => clock.tick(ms) };
}

async function shareRedis(limits: HistoryLimits): Promise<Cluster> {
  return share(await createRedisEngine(databaseUrl(), limits, patientClock, silentLog));
}

const databaseUrl = redisDatabases();
engineContract("shared memory", shareMemory);
stateContract("shared memory", shareMemory);
engineContract("remote memory (threads)", startOwner);
stateContract("remote memory (threads)", startOwner);
engineContract("shared durable", shareDurable);
stateContract("shared durable", shareDurable);
const step = together("a Redis engine that threads share");
for (const contract of [engineContract, stateContract]) {
  contract("shared redis", shareRedis, (name, fn) => redisTest(name, fn, step));
}

/** An engine that answers `host` when it is told to, with events as they are delivered by hand. */
function makeSlowEngine() {
  const memory = createMemoryEngine(ROOMY, systemClock);
  const opened: { room: string; host: Host; answer: (head: Head | Refusal) => void }[] = [];
  const released: string[] = [];
  const engine: Engine = Object.assign(Object.create(memory), {
    host: (room: string, host: Host) =>
      new Promise<Head | Refusal>((answer) => opened.push({ room, host, answer })),
    release: (room: string) => void released.push(room),
    isReady: () => state.isReady,
    stats: () => ({ rooms: 0, historyBytes: 0, isFull: state.isFull }),
    close: () => memory.close(),
  });
  const state = { isReady: true, isFull: false };
  return { engine, opened, released, state };
}

const HEAD: Head = { epoch: "e", seq: 4, rev: 0, members: 1 };
const chatOf = (seq: number): RoomEvent => ({
  type: "chat",
  chat: { seq, time: 1, sender: "Ann", message: `${seq}` },
});
Deno.test("a room is hosted once in the engine; each thread's events begin behind its head", async () => {
  const { engine, opened, released } = makeSlowEngine();
  const { nodes: [here, remote], stop } = await share(engine);
  const recorders = [new Recorder(), new Recorder(), new Recorder()];
  const early = [here, remote].map((node, i) => node.host("r", recorders[i]));
  await eventually(() => opened, ({ length }) => length === 1);
  await remote.members("any");
  opened[0].answer(HEAD);
  opened[0].host.deliver(chatOf(5));
  opened[0].host.deliver({ type: "status", event: "join", name: "Ann", members: 2 });
  assertEquals(await Promise.all(early), [HEAD, HEAD]);
  for (const recorder of recorders.slice(0, 2)) {
    await recorder.until(({ events }) => events.length === 2);
    assertEquals(recorder.messages, ["5"]);
  }
  here.release("r");
  assertEquals(await here.host("r", recorders[2]), { epoch: "e", seq: 5, rev: 0, members: 2 });
  opened[0].host.deliver({ type: "reset", epoch: "f", seq: 0, rev: 0, members: 0 });
  here.release("r");
  assertEquals(released, []);
  remote.release("r");
  await eventually(() => released, ({ length }) => length === 1);
  assertEquals([opened.length, recorders[2].events.length], [1, 1]);
  await stop();
});

Deno.test("who asks to host goes on, however many promises later, before it hears an event", async () => {
  for (const index of [0, 1]) {
    const { engine, opened } = makeSlowEngine();
    const { nodes, stop } = await share(engine);
    const told: string[] = [];
    const recorder = new Recorder();
    const host: Host = {
      subscriberCount: 1,
      deliver(event) {
        told.push(event.type);
        recorder.deliver(event);
      },
    };
    let asked: Promise<unknown> = Promise.resolve(nodes[index].host("r", host));
    for (let hop = 0; hop < 20; hop++) asked = asked.then(() => {});
    const open = asked.then(() => told.push("open"));
    await eventually(() => opened, ({ length }) => length === 1);
    opened[0].answer(HEAD);
    for (let i = 5; i <= 7; i++) {
      opened[0].host.deliver(chatOf(i));
      for (let hop = 0; hop < 5; hop++) await Promise.resolve();
    }
    await open;
    await recorder.until(({ messages }) => messages.length === 3);
    assertEquals(told, ["open", "chat", "chat", "chat"]);
    await stop();
  }
});

Deno.test("a room that is refused, or released before the answer, is hosted anew the next time", async () => {
  const { engine, opened, released } = makeSlowEngine();
  const { nodes: [here, remote], stop } = await share(engine);
  const [first, second, third] = [new Recorder(), new Recorder(), new Recorder()];
  const refused = here.host("r", first);
  opened[0].answer({ refused: "unavailable" });
  assertEquals(await refused, { refused: "unavailable" });
  const early = remote.host("r", second);
  remote.release("r");
  const late = remote.host("r", third);
  await eventually(() => opened, ({ length }) => length === 3);
  assertEquals(released, ["r"]);
  for (const { answer } of opened.slice(1)) answer(HEAD);
  await Promise.all([early, late]);
  opened[1].host.deliver(chatOf(5));
  opened[2].host.deliver(chatOf(5));
  await third.until(({ messages }) => messages.length === 1);
  assertEquals([first.events, second.events], [[], []]);
  await stop();
});

Deno.test("a delivery that causes another reaches all threads in one order", async () => {
  const shared = shareEngine(createMemoryEngine(ROOMY, systemClock));
  const { port1, port2 } = new MessageChannel();
  shared.serve(port1);
  const remote = remoteEngine(port2);
  const { here } = shared;
  here.host("r", {
    subscriberCount: 1,
    deliver(event) {
      if (event.type === "chat" && event.chat.seq === 1) here.publish("r", draft("2"));
    },
  });
  const { recorder } = await hear(remote, "r");
  here.publish("r", draft("1"));
  await recorder.until(({ messages }) => messages.length === 2);
  assertEquals(recorder.messages, ["1", "2"]);
  await shared.close();
});

Deno.test("serve(): the end of a port takes its hosts and members along, also those just asked for", async () => {
  const memory = createMemoryEngine(ROOMY, systemClock);
  const shared = shareEngine(memory);
  const { port1, port2 } = new MessageChannel();
  const stop = shared.serve(port1);
  const remote = remoteEngine(port2);
  const { recorder } = await hear(shared.here, "r");
  await hear(remote, "r", 2);
  await hear(remote, "alone");
  await remote.join("r", "m1", "Ann");
  await remote.join("r", "m2", "Bob");
  await remote.join("r", "m1", "Anna");
  await shared.here.join("r", "m3", "Cy");
  shared.here.leave("r", "m2");
  assertEquals((await memory.members("r") as Members).count, 3);
  stop();
  assertEquals(await memory.members("r"), people("Cy"));
  assertEquals(recorder.events.length, 6);
  assertEquals(memory.rooms("", 9), [{ room: "r", members: 1, listeners: 1, seq: 0 }]);
  const refused = { refused: "unavailable" as const };
  assertEquals(await remote.publish("r", draft("late")), refused);
  await eventually(() => remote.isReady(), (isReady) => !isReady);
  await shared.close();
});

Deno.test("a join that is refused leaves no member, and a refused rename keeps the old one", async () => {
  const memory = createMemoryEngine(ROOMY, systemClock);
  const left: string[] = [];
  let refusal: Refusal | undefined = { refused: "unavailable" };
  const engine: Engine = Object.assign(Object.create(memory), {
    join: () => Promise.resolve(refusal),
    leave: (_: string, member: string) => void left.push(member),
    isReady: () => true,
    stats: () => memory.stats(),
    close: () => memory.close(),
  });
  const { here, close } = shareEngine(engine);
  await here.join("r", "m1", "Ann");
  here.leave("r", "m1");
  refusal = undefined;
  await here.join("r", "m2", "Bob");
  refusal = { refused: "unavailable" };
  await here.join("r", "m2", "Bobby");
  here.join("r", "m3", "Cy");
  await here.close();
  assertEquals(left, ["m2", "m3"]);
  await close();
});

Deno.test("a remote engine learns its owner's state, and tells its listeners, each second", async () => {
  const { engine, opened, state } = makeSlowEngine();
  const shared = shareEngine(engine);
  const { port1, port2 } = new MessageChannel();
  shared.serve(port1);
  const clock = new FakeClock();
  const remote = remoteEngine(port2, clock);
  assertEquals(remote.isReady(), false);
  await eventually(() => remote.isReady(), (isReady) => isReady);
  const host = new Recorder(2);
  const opening = remote.host("r", host);
  await eventually(() => opened, ({ length }) => length === 1);
  opened[0].answer(HEAD);
  await opening;
  assertEquals(opened[0].host.subscriberCount, 2);
  host.subscriberCount = 3;
  Object.assign(state, { isReady: false, isFull: true });
  clock.tick(1_000);
  await eventually(() => remote.isReady(), (isReady) => !isReady);
  assertEquals(opened[0].host.subscriberCount, 3);
  assertEquals(remote.stats(), { rooms: 0, historyBytes: 0, isFull: true });
  await shared.close();
});

Deno.test("a remote engine whose owner hangs is not ready, one whose owner answers stays so", async () => {
  const { port1, port2 } = new MessageChannel();
  const clock = new FakeClock();
  const remote = remoteEngine(port2, clock);
  const shared = shareEngine(createMemoryEngine(ROOMY, systemClock));
  shared.serve(port1);
  await eventually(() => remote.isReady(), (isReady) => isReady);
  for (let second = 1; second <= 5; second++) {
    clock.tick(1_000);
    // Behind the report, and so is its answer.
    await remote.members("r");
  }
  assertEquals(remote.isReady(), true);
  port1.onmessage = null;
  clock.tick(2_000);
  assertEquals(remote.isReady(), true);
  clock.tick(1_000);
  assertEquals(remote.isReady(), false);
  await remote.close();
  await shared.close();
  assertEquals(clock.timerCount, 0);
});

Deno.test("bytes cross without the buffer behind them", async () => {
  const { nodes: [here, remote], stop } = await share(createMemoryEngine(ROOMY, systemClock));
  const heard = await Promise.all([hear(here, "r"), hear(remote, "r")]);
  const bytes = () => new Uint8Array(1_000).fill(7).subarray(10, 12);
  here.relay("r", { type: "binary", bytes: bytes(), from: "m1" });
  remote.relay("r", { type: "binary", bytes: bytes(), from: "m2" });
  for (const [i, { recorder }] of heard.entries()) {
    await recorder.until(({ events }) => events.length === 2);
    // What comes from this thread itself is not copied.
    for (const event of recorder.events.slice(i === 0 ? 1 : 0)) {
      assert(event.type === "binary");
      assertEquals([[...event.bytes], event.bytes.buffer.byteLength], [[7, 7], 2]);
    }
  }
  await stop();
});

Deno.test("a host that throws costs no other thread a message", async () => {
  const shared = shareEngine(createMemoryEngine(ROOMY, systemClock));
  const { port1, port2 } = new MessageChannel();
  shared.serve(port1);
  const remote = remoteEngine(port2);
  const errors: unknown[] = [];
  const onError = (event: ErrorEvent) => {
    event.preventDefault();
    errors.push(event.error);
  };
  addEventListener("error", onError);
  const broken = new Error("broken");
  const host: Host = {
    subscriberCount: 1,
    deliver() {
      throw broken;
    },
  };
  await shared.here.host("r", host);
  await remote.host("broken", host);
  const { recorder } = await hear(remote, "r");
  const other = await hear(shared.here, "broken");
  for (const message of ["1", "2"]) {
    shared.here.publish("broken", draft(message));
    shared.here.publish("r", draft(message));
  }
  await recorder.until(({ messages }) => messages.length === 2);
  assertEquals(other.recorder.messages, ["1", "2"]);
  assertEquals(errors, [broken, broken, broken, broken]);
  removeEventListener("error", onError);
  await shared.close();
});

Deno.test("a host that is replaced while it hears an event has it in its head", async () => {
  const { here, close } = shareEngine(createMemoryEngine(ROOMY, systemClock));
  const second = new Recorder();
  let head: unknown;
  here.host("r", {
    subscriberCount: 1,
    deliver() {
      here.release("r");
      head = here.host("r", second);
    },
  });
  const { epoch } = await granted(here.publish("r", draft("1")));
  here.publish("r", draft("2"));
  assertEquals(head, { epoch, seq: 1, rev: 0, members: 0 });
  assertEquals(second.messages, ["2"]);
  await close();
});
