import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { HistoryLimits } from "../../handlers/engine/memory.ts";
import {
  createMesh,
  createWorkersEngine,
  type Ports,
  type WorkersEngine,
} from "../../handlers/engine/workers.ts";
import { homeOf } from "../../handlers/engine/workers_home.ts";
import type { RoomEvent } from "../../handlers/protocol/room_event.ts";
import { type Clock, systemClock } from "../../handlers/util/clock.ts";
import { type Log, silentLog } from "../../handlers/util/log.ts";
import { draft, engineContract, range, ROOMY } from "./contract.ts";
import { FakeClock, RecordingLog } from "../support/fakes.ts";
import { granted, hear } from "../support/recorder.ts";
import { startEngineThread } from "./workers_thread.ts";

const UNAVAILABLE = { refused: "unavailable" as const };

function makeEngine(
  ports: Ports,
  { limits = ROOMY, clock = systemClock, log = silentLog }: {
    limits?: HistoryLimits;
    clock?: Clock;
    log?: Log;
  } = {},
): WorkersEngine {
  return createWorkersEngine({ ports, limits, clock, log });
}

for (const count of [2, 4]) {
  engineContract(`workers (${count} in one thread)`, (limits) => ({
    nodes: createMesh(count).map((ports) => makeEngine(ports, { limits })),
  }));
}

engineContract("workers (2 threads)", (limits) => {
  const [ports, [port]] = createMesh(2);
  const { engine, worker } = startEngineThread(limits, port!);
  return {
    nodes: [makeEngine(ports, { limits }), engine],
    stop: () => Promise.resolve(worker.terminate()),
  };
});

/** A room that is at home in worker `home` of `count`. */
function roomAt(home: number, count: number, prefix = "room"): string {
  const workers = [...Array(count).keys()];
  return range(1, 1_000).map((i) => `${prefix}-${i}`).find((room) =>
    homeOf(room, workers) === home
  )!;
}

/** All that was posted before has arrived: a message that is posted now overtakes none. */
async function settled(...nodes: WorkersEngine[]): Promise<void> {
  for (let round = 0; round < 2; round++) {
    for (const node of nodes) await node.rooms("", 1);
  }
}

async function closeAll(...nodes: WorkersEngine[]): Promise<void> {
  for (const node of nodes) await node.close();
}

const statusesOf = (events: RoomEvent[]) => events.filter((event) => event.type === "status");
const resetsOf = (events: RoomEvent[]) => events.filter((event) => event.type === "reset");

Deno.test("homeOf() spreads rooms evenly, and moves only the rooms of a worker that goes", () => {
  const rooms = range(1, 10_000).map((i) => `room-${i}`);
  const homes = rooms.map((room) => homeOf(room, [0, 1, 2, 3]));
  for (const worker of [0, 1, 2, 3]) {
    const share = homes.filter((home) => home === worker).length;
    assert(Math.abs(share - 2_500) < 200, `worker ${worker} has ${share} of 10,000`);
  }
  for (const [i, room] of rooms.entries()) {
    const home = homeOf(room, [0, 1, 3]);
    if (homes[i] === 2) assertNotEquals(home, 2);
    else assertEquals(home, homes[i]);
  }
});

Deno.test("what a silent home is asked is unavailable within 1 s, and the log says so once", async () => {
  const clock = new FakeClock();
  const log = new RecordingLog();
  const [ports, [far]] = createMesh(2);
  const node = makeEngine(ports, { clock, log });
  const room = roomAt(1, 2);
  const { recorder } = await hear(node, roomAt(0, 2));
  const ask = () =>
    Promise.all([
      node.publish(room, draft("1")),
      node.host(room, recorder),
      node.join(room, "m1", "Ann"),
      node.members(room),
      node.read(room),
      node.rooms("", 10),
    ]);
  for (let round = 0; round < 2; round++) {
    const asked = ask();
    clock.tick(1_000);
    const [rooms, ...refused] = (await asked).toReversed();
    assertEquals(refused, Array(5).fill(UNAVAILABLE));
    assertEquals(rooms, [{ room: roomAt(0, 2), members: 0, listeners: 1, seq: 0 }]);
  }
  assertEquals(log.of("worker_silent").map(({ level, fields }) => [level, fields.peer]), [[
    "warn",
    1,
  ]]);
  await node.close();
  far!.close();
  assertEquals(clock.timerCount, 0);
});

Deno.test("a home that answers late undoes what it was not believed to have done", async () => {
  const clock = new FakeClock();
  const [ports, farPorts] = createMesh(2);
  const here = makeEngine(ports, { clock });
  const room = roomAt(1, 2);
  const { recorder } = await hear(here, roomAt(0, 2));
  const asked = [here.host(room, recorder), here.join(room, "m1", "Ann")];
  clock.tick(1_000);
  assertEquals(await Promise.all(asked), [UNAVAILABLE, UNAVAILABLE]);
  const late = makeEngine(farPorts, { clock });
  await settled(here, late);
  assertEquals(await late.members(room), { names: [], count: 0 });
  assertEquals((await late.rooms("", 10)).map(({ room }) => room), [roomAt(0, 2)]);
  await granted(late.publish(room, draft("nobody hears this")));
  await settled(here, late);
  assertEquals(recorder.events, []);
  await closeAll(here, late);
});

Deno.test("a rename that a home did not confirm in time is taken back", async () => {
  const clock = new FakeClock();
  const [[, port], farPorts] = createMesh(2);
  const gate = new Gate(port!);
  const here = makeEngine([undefined, gate.port], { clock });
  const far = makeEngine(farPorts, { clock });
  const room = roomAt(1, 2);
  assertEquals(await here.join(room, "m1", "Ann"), undefined);
  gate.shut();
  const renamed = here.join(room, "m1", "Anna");
  clock.tick(1_000);
  assertEquals(await renamed, UNAVAILABLE);
  gate.open();
  await settled(here, far);
  assertEquals(await here.members(room), { names: ["Ann"], count: 1 });
  await closeAll(here, far);
  gate.close();
});

Deno.test("who asks to host goes on, however many promises later, before it hears an event", async () => {
  const nodes = createMesh(2).map((ports) => makeEngine(ports));
  const room = roomAt(1, 2);
  const told: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const host = {
    listenerCount: 1,
    deliver(event: RoomEvent) {
      told.push(event.type);
      if (event.type === "chat" && event.chat.seq === 3) resolve();
    },
  };
  let opened: Promise<unknown> = Promise.resolve(nodes[0].host(room, host));
  for (let hop = 0; hop < 20; hop++) opened = opened.then(() => {});
  const asked = opened.then(() => told.push("open"));
  for (let i = 1; i <= 3; i++) {
    nodes[0].publish(room, draft(`${i}`));
    for (let hop = 0; hop < 5; hop++) await Promise.resolve();
  }
  await Promise.all([asked, promise]);
  assertEquals(told, ["open", "chat", "chat", "chat"]);
  await closeAll(...nodes);
});

Deno.test("who hosts and joins in one turn joins once", async () => {
  const nodes = createMesh(2).map((ports) => makeEngine(ports));
  const room = roomAt(1, 2);
  const opened = hear(nodes[0], room);
  const joined = nodes[0].join(room, "m1", "Ann");
  const { recorder, head } = await opened;
  await joined;
  assertEquals(head.members, 0);
  await recorder.until(({ events }) => events.length > 0);
  assertEquals(recorder.events, [
    { type: "status", event: "join", name: "Ann", was: undefined, members: 1 },
  ]);
  await closeAll(...nodes);
});

Deno.test("relay() copies the bytes that it is given, not the buffer behind them", async () => {
  const nodes = createMesh(2).map((ports) => makeEngine(ports));
  const room = roomAt(1, 2);
  const { recorder } = await hear(nodes[0], room);
  nodes[1].relay(room, new Uint8Array(1_000).fill(7).subarray(10, 12), "m1");
  await recorder.until(({ events }) => events.length === 1);
  const [event] = recorder.events;
  assert(event.type === "binary");
  assertEquals([[...event.bytes], event.bytes.buffer.byteLength], [[7, 7], 2]);
  await closeAll(...nodes);
});

Deno.test("each worker keeps its share of HISTORY_MB", async () => {
  const nodes = createMesh(2).map((ports) =>
    makeEngine(ports, { limits: { ...ROOMY, historyMb: 2 } })
  );
  const message = JSON.stringify("x".repeat(10_000));
  for (let i = 0; i < 200; i++) {
    await granted(nodes[0].publish(roomAt(i % 2, 2), draft(message)));
  }
  for (const node of nodes) {
    const { historyBytes } = node.stats();
    assert(historyBytes > 900_000 && historyBytes <= 1_000_000, `${historyBytes} bytes`);
  }
  await closeAll(...nodes);
});

Deno.test("replacePeer(): rooms of a worker that died begin anew, the others live on", async () => {
  const mesh = createMesh(3);
  const [ann, dead, cy] = mesh.map((ports) => makeEngine(ports));
  const lostRoom = roomAt(1, 3);
  const keptRoom = roomAt(0, 3);
  const heard = await Promise.all([ann, cy].map((node) => hear(node, lostRoom, 2)));
  const kept = await hear(ann, keptRoom);
  await hear(dead, keptRoom);
  await hear(dead, roomAt(0, 3, "alone"));
  await ann.join(lostRoom, "m1", "Ann");
  await dead.join(lostRoom, "m2", "Bob");
  await cy.join(lostRoom, "m3", "Cy");
  await dead.join(keptRoom, "m2", "Bob");
  const before = await granted(ann.publish(lostRoom, draft("before")));
  await Promise.all(heard.map(({ recorder }) => recorder.until(({ chats }) => chats.length === 1)));

  for (const port of mesh[1]) port?.close();
  const pending = ann.publish(lostRoom, draft("pending"));
  const [toAnn, toCy] = [new MessageChannel(), new MessageChannel()];
  ann.replacePeer(1, toAnn.port1);
  cy.replacePeer(1, toCy.port1);
  const next = makeEngine([toAnn.port2, undefined, toCy.port2]);

  assertEquals(await pending, UNAVAILABLE);
  for (const { recorder } of heard) {
    await recorder.until(({ events }) => resetsOf(events).length === 1);
    const reset = recorder.events.at(-1)!;
    assert(reset.type === "reset");
    assertEquals(reset.seq, 0);
    assertNotEquals(reset.epoch, before.epoch);
  }
  assertEquals(await next.members(lostRoom), { names: ["Ann", "Cy"], count: 2 });
  assertEquals((await granted(cy.publish(lostRoom, draft("after")))).seq, 1);
  for (const { recorder } of heard) {
    await recorder.until(({ messages }) => messages.includes("after"));
    assertEquals(recorder.events.at(-2)!.type, "reset");
  }
  assertEquals(statusesOf(kept.recorder.events).map(({ event, name }) => [event, name]), [
    ["join", "Bob"],
    ["leave", "Bob"],
  ]);
  assertEquals(
    await next.rooms("", 10),
    [
      { room: keptRoom, members: 0, listeners: 1, seq: 0 },
      { room: lostRoom, members: 2, listeners: 4, seq: 1 },
    ].toSorted((a, b) => a.room < b.room ? -1 : 1),
  );
  await closeAll(ann, next, cy, dead);
});

Deno.test("replacePeer(): rooms wait for a worker that is slow to start, and hear one reset", async () => {
  const clock = new FakeClock();
  const mesh = createMesh(2);
  const [here, dead] = mesh.map((ports) => makeEngine(ports, { clock }));
  const room = roomAt(1, 2);
  const { recorder } = await hear(here, room);
  await here.join(room, "m1", "Ann");
  mesh[1][0]!.close();
  const { port1, port2 } = new MessageChannel();
  here.replacePeer(1, port1);
  for (let second = 0; second < 3; second++) {
    const asked = here.publish(room, draft("too early"));
    clock.tick(1_000);
    assertEquals(await asked, UNAVAILABLE);
  }
  const next = makeEngine([port2, undefined], { clock });
  await recorder.until(({ events }) => resetsOf(events).length === 1);
  clock.tick(1_000);
  await settled(here, next);
  assertEquals(resetsOf(recorder.events).length, 1);
  assertEquals(statusesOf(recorder.events).length, 1);
  assertEquals(await here.members(room), { names: ["Ann"], count: 1 });
  await closeAll(here, next, dead);
});

Deno.test("replacePeer(): a room that was released meanwhile is not hosted again", async () => {
  const mesh = createMesh(2);
  const [here, dead] = mesh.map((ports) => makeEngine(ports));
  const room = roomAt(1, 2);
  const { recorder } = await hear(here, room);
  mesh[1][0]!.close();
  const { port1, port2 } = new MessageChannel();
  here.replacePeer(1, port1);
  here.release(room);
  const next = makeEngine([port2, undefined]);
  await settled(here, next);
  assertEquals(await next.rooms("", 10), []);
  assertEquals(recorder.events, []);
  await closeAll(here, next, dead);
});

Deno.test("the rooms of a worker that ended go to one home that the others agree on", async () => {
  const mesh = createMesh(4);
  const [ended, ...others] = mesh.map((ports) => makeEngine(ports));
  const room = roomAt(0, 4);
  const heard = await Promise.all(others.map((node) => hear(node, room)));
  for (const [i, node] of others.entries()) await node.join(room, `m${i}`, `Name ${i}`);
  await ended.close();
  for (const { recorder } of heard) {
    await recorder.until(({ events }) => resetsOf(events).length === 1);
  }
  await granted(others[0].publish(room, draft("one")));
  await granted(others[2].publish(room, draft("two")));
  for (const { recorder } of heard) {
    await recorder.until(({ messages }) => messages.length === 2);
    assertEquals(recorder.chats.map(({ seq }) => seq), [1, 2]);
    assertEquals(recorder.messages, ["one", "two"]);
  }
  for (const node of others) {
    assertEquals(await node.members(room), { names: ["Name 0", "Name 1", "Name 2"], count: 3 });
  }
  await closeAll(...others);
});

/** Something between a port and who uses it, that holds back what is sent while it is shut. */
class Gate {
  readonly port: MessagePort;
  readonly #channel = new MessageChannel();
  #held: unknown[] | undefined;

  constructor(readonly far: MessagePort) {
    const { port1, port2 } = this.#channel;
    this.port = port1;
    port2.onmessage = ({ data }) => this.#held ? this.#held.push(data) : far.postMessage(data);
    far.onmessage = ({ data }) => port2.postMessage(data);
  }

  shut(): void {
    this.#held = [];
  }

  open(): void {
    for (const data of this.#held ?? []) this.far.postMessage(data);
    this.#held = undefined;
  }

  close(): void {
    this.#channel.port2.close();
    this.far.close();
  }
}
