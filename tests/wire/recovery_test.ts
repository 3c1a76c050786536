/**
 * Coming back: what a listener that says where it was gets of what it missed. `handlers/README.md`.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Turn } from "../../handlers/registry/flush.ts";
import { Client, type Fields, RawClient } from "../support/clients.ts";
import { createTestApp, type FakeSocket, infoOf, type TestAppOptions } from "../support/fakes.ts";
import { startServer } from "../support/servers.ts";
import { joinAs, messagesOf, range, sayAll, settled, take } from "../support/v1.ts";
import fc from "npm:fast-check@4.10.2";
import type { Cursor } from "../../handlers/protocol/position.ts";
import { subscribe } from "../../handlers/registry/membership.ts";
import { sized } from "../support/run.ts";
import { Order, PlainViewer, Viewer } from "./recovery_model.ts";

/** A server of fakes, where rooms are filled and listeners come at once. */
function quietServer(settings: TestAppOptions["settings"] = {}) {
  const turn = new Turn(() => {});
  const made = createTestApp({
    turn,
    settings: { MESSAGE_RATE: 0, BYTE_RATE: 0, JOIN_RATE: 0, POST_RATE: 0, ...settings },
  });
  /** Publishes messages; answers the room's epoch. */
  const post = async (room: string, ...messages: unknown[]): Promise<string> => {
    let epoch = "";
    for (const message of messages) {
      const response = await made.ask(`/rooms/${room}/messages`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ message }),
      });
      ({ epoch } = await response.json());
    }
    return epoch;
  };
  /** What a new listener hears first: `welcome`, and the messages behind it. */
  const listen = async (path: string) => {
    const socket = await made.connect(path, { dialect: "v1" });
    const heard = read(socket);
    socket.end();
    return heard;
  };
  const read = (socket: FakeSocket) => {
    turn.flush();
    const [welcome, ...chats] = socket.objects as Fields[];
    socket.take();
    assertEquals(welcome?.type, "welcome");
    const seqs = chats.map(({ seq }) => seq);
    assertEquals(seqs, range(Number(welcome.seq) + 1, Number(welcome.seq) + seqs.length));
    const { seq, recovered, epoch } = welcome;
    return { seq, recovered, epoch, messages: messagesOf(chats) };
  };
  return { ...made, turn, post, listen, read };
}

Deno.test("a client that comes back gets every message it missed, once, in order", async () => {
  await using server = await startServer();
  const url = `${server.ws}/chat/ops`;
  await using ann = await joinAs("Ann", url);
  const bob = await Client.open(url, "parley.v1");
  const { epoch } = await bob.nextObject();
  sayAll(ann, [{ type: "chat", message: 1 }, { type: "chat", message: 2 }]);
  const [, last] = await take(bob, 2);
  assertEquals(last.seq, 2);
  await bob.close();
  sayAll(ann, range(3, 7).map((message) => ({ type: "chat", message })));
  await settled(ann);
  await using back = await Client.open(`${url}?after=${epoch}:2`, "parley.v1");
  ann.send({ type: "chat", message: 8 });
  const [welcome, ...chats] = await take(back, 7);
  const { limits: _, ...rest } = welcome;
  assertEquals(rest, { type: "welcome", room: "ops", epoch, seq: 2, members: 1, recovered: true });
  assertEquals(chats.map(({ seq, message }) => [seq, message]), range(3, 8).map((n) => [n, n]));
});

Deno.test("a client that missed nothing is told so", async () => {
  const { post, listen } = quietServer();
  const epoch = await post("ops", "a", "b");
  const heard = await listen(`/chat/ops?after=${epoch}:2`);
  assertEquals(heard, { seq: 2, recovered: true, epoch, messages: [] });
});

Deno.test("after counts in join and listen, where the socket does not hear that room yet", async () => {
  const { post, connect, turn, read } = quietServer();
  const epochs = [await post("a", 1, 2), await post("b", 1, 2, 3), await post("c", 1, 2)];
  const socket = await connect("/chat/home", { dialect: "v1" });
  assertEquals(read(socket).seq, 0);
  socket.say({ type: "listen", room: "a", after: `${epochs[0]}:1` });
  assertEquals(read(socket), { seq: 1, recovered: true, epoch: epochs[0], messages: [2] });
  socket.say({ type: "listen", room: "a", after: `${epochs[0]}:0` });
  turn.flush();
  assertEquals(socket.objects, []);
  socket.say({ type: "join", room: "a", name: "Ann", after: `${epochs[0]}:0` });
  turn.flush();
  assertEquals((socket.objects as Fields[]).map(({ type }) => type), ["status"]);
  socket.take();
  socket.say({ type: "leave", room: "a" });
  socket.say({ type: "listen", room: "a", after: `${epochs[0]}:0` });
  assertEquals(read(socket), { seq: 0, recovered: true, epoch: epochs[0], messages: [1, 2] });
  socket.say({ type: "leave" });
  socket.say({ type: "listen", room: "home", after: "x:1" });
  assertEquals(read(socket).recovered, false);
  socket.say({ type: "join", room: "b", name: "Ann", after: `${epochs[1]}:2` });
  turn.flush();
  const types = (socket.objects as Fields[]).map(({ type, seq }) => [type, seq]);
  assertEquals(types, [["welcome", 2], ["chat", 3], ["status", undefined]]);
});

Deno.test("a cursor that cannot be followed gets recovered:false and the newest, never an error", async () => {
  const { post, listen, connect, read } = quietServer({ HISTORY_SIZE: 3 });
  const epoch = await post("ops", ..."abcde");
  const newest = { seq: 2, recovered: false, epoch, messages: ["c", "d", "e"] };
  const cursors = {
    "of another epoch": `${"0".repeat(8)}:4`,
    "from the future": `${epoch}:6`,
    "from far away": `${epoch}:999999999999999`,
    "too old": `${epoch}:1`,
    "malformed": "nonsense",
    "empty": "",
    "without a number": `${epoch}:`,
    "negative": `${epoch}:-1`,
    "with a fraction": `${epoch}:4.5`,
    "with a blank": `${epoch}: 4`,
    "too long": `${epoch}:${"4".repeat(40)}`,
  };
  for (const [what, after] of Object.entries(cursors)) {
    const path = `/chat/ops?after=${encodeURIComponent(after)}`;
    assertEquals(await listen(path), newest, `a cursor ${what}`);
  }
  for (const after of [4, null, {}, [], true]) {
    const socket = await connect("/chat/home", { dialect: "v1" });
    read(socket);
    socket.say({ type: "listen", room: "ops", after });
    assertEquals(read(socket), newest, `a cursor ${JSON.stringify(after)}`);
  }
  const edge = await listen(`/chat/ops?after=${epoch}:2`);
  assertEquals(edge, { ...newest, recovered: true }, "the oldest that can be followed");
});

Deno.test("?history=n gives the last n messages at first sight", async () => {
  const { post, listen } = quietServer({ HISTORY_SIZE: 4 });
  const epoch = await post("ops", ..."abcde");
  const last = (count: number) => ({
    seq: 5 - count,
    recovered: undefined,
    epoch,
    messages: [..."abcde"].slice(5 - count),
  });
  const cases = { "2": 2, "4": 4, "99": 4, "0": 0, "-1": 0, "1.5": 0, "x": 0, "": 0 };
  for (const [history, count] of Object.entries(cases)) {
    assertEquals(await listen(`/chat/ops?history=${history}`), last(count), `history=${history}`);
  }
  const resumed = await listen(`/chat/ops?history=4&after=${epoch}:4`);
  assertEquals(resumed, { ...last(1), recovered: true }, "a cursor says more");
});

Deno.test("the plain dialect has no past: after and history are ignored", async () => {
  const { post, connect } = quietServer();
  const epoch = await post("ops", "a", "b");
  for (const query of [`after=${epoch}:0`, "history=5", "after=x"]) {
    const socket = await connect(`/chat/ops?${query}`);
    assertEquals(socket.frames, [], query);
    socket.end();
  }
});

Deno.test("messages are kept for HISTORY_SECONDS", async () => {
  const { post, listen, clock, connect } = quietServer({ HISTORY_SECONDS: 60 });
  await connect("/chat/ops");
  const epoch = await post("ops", "old");
  clock.tick(40_000);
  await post("ops", "new");
  clock.tick(20_000);
  const both = { seq: 0, recovered: true, epoch, messages: ["old", "new"] };
  assertEquals(await listen(`/chat/ops?after=${epoch}:0`), both);
  clock.tick(1);
  const one = { seq: 1, recovered: false, epoch, messages: ["new"] };
  assertEquals(await listen(`/chat/ops?after=${epoch}:0`), one);
  assertEquals(await listen(`/chat/ops?after=${epoch}:1`), { ...one, recovered: true });
  clock.tick(40_000);
  assertEquals((await listen(`/chat/ops?after=${epoch}:2`)).recovered, true);
  assertEquals((await listen(`/chat/ops?after=${epoch}:1`)).recovered, false);
});

Deno.test("an empty room keeps its history and epoch for HISTORY_SECONDS, then begins anew", async () => {
  const { post, listen, clock, connect, engine } = quietServer({ HISTORY_SECONDS: 60 });
  const ann = await connect("/chat/ops", { dialect: "v1" });
  const epoch = await post("ops", "a");
  ann.end();
  clock.tick(59_000);
  const kept = { seq: 0, recovered: true, epoch, messages: ["a"] };
  assertEquals(await listen(`/chat/ops?after=${epoch}:0`), kept);
  clock.tick(61_000);
  const anew = await listen(`/chat/ops?after=${epoch}:1`);
  assertEquals({ ...anew, epoch: "" }, { seq: 0, recovered: false, epoch: "", messages: [] });
  assertNotEquals(anew.epoch, epoch);
  clock.tick(120_000);
  assertEquals(engine.stats(), { rooms: 0, historyBytes: 0, isFull: false });
});

Deno.test("HISTORY_MB bounds the process: the largest room loses its oldest messages", async () => {
  const { post, listen, engine, connect } = quietServer({ HISTORY_MB: 1, HISTORY_SIZE: 1_000 });
  const big = "x".repeat(10_000);
  const first = await post("a", big);
  const second = await post("b", big);
  await connect("/chat/c");
  const epoch = await post("c", ...range(1, 60).map((n) => n + big));
  assert(engine.stats().historyBytes <= 1_000_000);
  assertEquals((await listen(`/chat/a?after=${first}:0`)).recovered, true);
  assertEquals((await listen(`/chat/b?after=${second}:0`)).recovered, true);
  const { recovered, messages } = await listen(`/chat/c?after=${epoch}:0`);
  assertEquals([recovered, messages.length > 40, messages.at(-1)], [false, true, 60 + big]);
});

Deno.test("a replay over half of MAX_QUEUE_BYTES is cut to its newest part, and says so", async () => {
  const { post, listen } = quietServer({ MAX_QUEUE_BYTES: 100_000 });
  const big = "x".repeat(9_000);
  const epoch = await post("ops", ...range(1, 10).map((n) => n + big));
  const cut = await listen(`/chat/ops?after=${epoch}:0`);
  assertEquals([cut.recovered, cut.seq, cut.messages.length], [false, 5, 5]);
  const whole = await listen(`/chat/ops?after=${epoch}:5`);
  assertEquals([whole.recovered, whole.messages.length], [true, 5]);
  const asked = await listen("/chat/ops?history=100");
  assertEquals([asked.recovered, asked.messages.length], [undefined, 5]);
  await post("ops", "x".repeat(60_000));
  const none = await listen(`/chat/ops?after=${epoch}:10`);
  assertEquals(none, { seq: 11, recovered: false, epoch, messages: [] });
});

Deno.test("a client that comes back to many full rooms and reads late is not evicted", async () => {
  await using server = await startServer({
    MAX_QUEUE_BYTES: 400_000,
    MESSAGE_RATE: 0,
    BYTE_RATE: 0,
    JOIN_RATE: 0,
  });
  const rooms = range(1, 60).map((n) => `r${n}`);
  const { registry } = server;
  const epochs = new Map<string, string>();
  for (const room of rooms) {
    for (let count = 0; count < 9; count++) {
      const draft = { sender: "Ann", message: JSON.stringify("x".repeat(20_000)) };
      const place = await registry.engineOf(room).publish(room, draft);
      assert("epoch" in place);
      epochs.set(room, place.epoch);
    }
  }
  using late = await RawClient.open(`${server.ws}/chat/home`, {
    "sec-websocket-protocol": "parley.v1",
  });
  const lines = rooms.map((room) =>
    JSON.stringify({ type: "listen", room, after: `${epochs.get(room)}:0` })
  );
  await late.send([...lines, '{"type":"ping"}'].join("\n"));
  await using other = await Client.open(`${server.ws}/chat/home`, "parley.v1");
  await settled(other);
  assertEquals(registry.clients.size, 2);
  const welcomes = new Map<unknown, Fields>();
  const counts = new Map<unknown, number>();
  for (let isDone = false; !isDone;) {
    for (const line of (await late.readText()).split("\n")) {
      const object: Fields = JSON.parse(line);
      if (object.type === "pong") isDone = true;
      else if (object.type === "welcome") welcomes.set(object.room, object);
      else counts.set(object.room, (counts.get(object.room) ?? 0) + 1);
    }
  }
  for (const room of rooms) {
    const { seq, recovered } = welcomes.get(room)!;
    const count = counts.get(room) ?? 0;
    assertEquals(Number(seq) + count, 9, `${room} is complete from its welcome on`);
    assertEquals(recovered, count === 9, room);
  }
  assertEquals(welcomes.get("r1")?.recovered, true);
});

Deno.test("the room that was empty longest goes at MAX_ROOMS; one that is heard stays", async () => {
  const { post, listen, connect, ask, read } = quietServer({ MAX_ROOMS: 2 });
  const infos = [infoOf("192.0.2.1"), infoOf("192.0.2.2")];
  const socket = await connect("/chat/a", { dialect: "v1", info: infos[0] });
  read(socket);
  const epoch = await post("b", 1);
  await post("c", 1);
  assertNotEquals((await listen(`/chat/b?after=${epoch}:1`)).epoch, epoch);
  const other = await connect("/chat/d", { dialect: "v1", info: infos[1] });
  assertEquals(read(other).seq, 0);
  const full = await ask("/rooms/e/messages", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  assertEquals([full.status, (await full.json()).code], [503, "too_many_rooms"]);
  socket.say({ type: "join", room: "e", name: "Ann" });
  await connect("/chat/e").then((plain) => {
    const message = "Server error: the message may not have been delivered.";
    assertEquals(plain.objects, [{ type: "error", message }]);
  });
});

// * Whatever clients do and whenever their connections break: each sees a piece of the one order, without gap and repeat, or is told.

const RUNS = sized(500, 2_000);
const HISTORY_SIZE = 8;
const HISTORY_SECONDS = 20;
const MAX_QUEUE_BYTES = 3_000;

/** The last one reads events, the others speak `parley.v1`. */
const who = fc.nat({ max: 3 });
const room = fc.constantFrom("a", "b");
const count = fc.nat({ max: 4 });
const sizes = fc.array(fc.constantFrom(1, 100, 1_500), { minLength: 1, maxLength: 4 });
const isResuming = fc.constantFrom(true, true, true, false);
const isLost = fc.constantFrom(false, false, true);

/** What may happen, and how often. */
const step = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(fc.constant("connect" as const), who, room, isResuming) },
  { weight: 3, arbitrary: fc.tuple(fc.constant("hear" as const), who, room, isResuming) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("leave" as const), who, room) },
  { weight: 8, arbitrary: fc.tuple(fc.constant("say" as const), who, room, sizes, isLost) },
  { weight: 3, arbitrary: fc.tuple(fc.constant("post" as const), room, count) },
  { weight: 5, arbitrary: fc.tuple(fc.constant("read" as const), who, count) },
  { weight: 3, arbitrary: fc.tuple(fc.constant("drop" as const), who, count) },
  { weight: 2, arbitrary: fc.tuple(fc.constant("stick" as const), who) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("plain" as const), room) },
  { weight: 6, arbitrary: fc.tuple(fc.constant("end turn" as const)) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("wait" as const), fc.constantFrom(9, 60)) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** A server of fakes, and its clients. */
class World {
  readonly turn = new Turn(() => {});
  readonly app = createTestApp({
    turn: this.turn,
    settings: {
      HISTORY_SIZE,
      HISTORY_SECONDS,
      MAX_QUEUE_BYTES,
      MESSAGE_RATE: 0,
      BYTE_RATE: 0,
      JOIN_RATE: 0,
    },
  });
  readonly order = new Order(this.app.engine, () => this.app.clock.now());
  readonly viewers = Array.from({ length: 4 }, (_, index) => {
    return new Viewer(this.order, `the secret of client ${index}`);
  });
  plain?: PlainViewer;
  #lastText = 0;

  async connect(viewer: Viewer, room: string, isResuming: boolean): Promise<void> {
    this.drop(viewer, 0);
    const after = viewer.ask(room, isResuming, (view) => this.isComplete(room, view));
    if (viewer === this.viewers[3]) {
      subscribe(this.app.registry.room(room), viewer.openStream(this.app.registry), { after });
      return;
    }
    const query = after === undefined ? "" : `?after=${after}`;
    viewer.socket = await this.app.connect(`/chat/${room}${query}`, { dialect: "v1" });
    viewer.socket.say({ type: "join", name: "n", session: viewer.session });
  }

  hear(viewer: Viewer, room: string, isResuming: boolean): void {
    if (!viewer.socket || viewer.rooms.has(room)) return;
    // With other rooms' messages on the way, less fits.
    const after = viewer.ask(room, isResuming, () => false);
    viewer.socket.say({ type: "join", name: "n", room, after, session: viewer.session });
  }

  leave(viewer: Viewer, room: string): void {
    if (viewer.rooms.delete(room)) viewer.socket?.say({ type: "leave", room });
  }

  /** Says messages in one frame. A lost one never arrives: the connection breaks before. */
  say(viewer: Viewer, room: string, sizes: number[], isLost: boolean): void {
    if (!viewer.socket || !viewer.rooms.has(room) || !viewer.pieces.has(room)) return;
    const lines = sizes.map((size) => viewer.say(room, this.text(size)));
    if (isLost) this.drop(viewer, 1);
    else sayAll(viewer.socket, lines);
  }

  post(room: string, count: number): void {
    for (let index = 0; index <= count; index++) {
      const message = JSON.stringify(this.text(200));
      this.app.engine.publish(room, { sender: "cron", message });
    }
  }

  read(viewer: Viewer, count: number): void {
    const lines = viewer.read(count);
    if (viewer.socket && lines.length > 0) sayAll(viewer.socket, lines);
  }

  /** Breaks a connection: of what is on its way, `count` frames arrive. */
  drop(viewer: Viewer, count: number): void {
    const { socket, stream } = viewer;
    viewer.read(count);
    stream?.drop();
    viewer.forget();
    socket?.drop();
  }

  stick({ socket }: Viewer): void {
    if (socket) socket.isStuck = true;
  }

  async connectPlain(room: string): Promise<void> {
    this.plain?.finish();
    this.plain?.socket.end();
    this.plain = new PlainViewer(this.order, room, await this.app.connect(`/chat/${room}`));
  }

  /** Whether all behind a place is kept and fits a replay. */
  isComplete(room: string, view: Cursor): boolean {
    const missed = this.order.since(room, view);
    const keptSince = this.app.clock.now() - HISTORY_SECONDS * 1_000;
    return missed !== undefined && missed.times.length <= HISTORY_SIZE &&
      missed.times.every((time) => time >= keptSince) && missed.bytes <= MAX_QUEUE_BYTES / 2;
  }

  text(size: number): string {
    return String(++this.#lastText).padEnd(size, ".");
  }

  /** Lets go of the connections that the server closed. */
  dropEvicted(): void {
    for (const viewer of this.viewers) {
      if (viewer.socket?.closes.length) this.drop(viewer, 1);
    }
  }

  /** Everybody reads to the end: nothing is missing. */
  finish(): void {
    this.plain?.finish();
    for (let round = 0; round < 3; round++) {
      this.turn.flush();
      this.dropEvicted();
      for (const viewer of this.viewers) this.read(viewer, Infinity);
    }
    for (const { rooms, views, unacked } of this.viewers) {
      for (const room of rooms) assertEquals(views.get(room), this.order.head(room));
      const open = unacked.values().filter(({ room }) => rooms.has(room)).toArray();
      assertEquals(open, [], "every message that was sent is acked");
    }
  }
}

async function run(world: World, step: Step): Promise<void> {
  switch (step[0]) {
    case "connect":
      return await world.connect(world.viewers[step[1]], step[2], step[3]);
    case "hear":
      return world.hear(world.viewers[step[1]], step[2], step[3]);
    case "leave":
      return world.leave(world.viewers[step[1]], step[2]);
    case "say":
      return world.say(world.viewers[step[1]], step[2], step[3], step[4]);
    case "post":
      return world.post(step[1], step[2]);
    case "read":
      return world.read(world.viewers[step[1]], step[2]);
    case "drop":
      return world.drop(world.viewers[step[1]], step[2]);
    case "stick":
      return world.stick(world.viewers[step[1]]);
    case "plain":
      return await world.connectPlain(step[1]);
    case "end turn":
      return world.turn.flush();
    case "wait":
      return world.app.clock.tick(step[1] * 1_000);
  }
}

Deno.test("every client's view is a gap-free, repeat-free piece of the one order, or it is told", async () => {
  const seen = { recovered: 0, gaps: 0, evictions: 0, repeats: 0 };
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 120, size: "max" }),
      async (steps) => {
        const world = new World();
        for (const step of steps) {
          await run(world, step);
          world.dropEvicted();
        }
        world.finish();
        const { recoveries, closes } = world.app.registry.counters;
        seen.recovered += recoveries.complete;
        seen.gaps += recoveries.partial;
        seen.evictions += closes.tooSlow;
        seen.repeats += world.order.repeatCount;
      },
    ),
    { numRuns: RUNS },
  );
  // Schedules in which nothing of this happens would prove nothing.
  for (const [what, times] of Object.entries(seen)) assert(times > RUNS / 100, `${times} ${what}`);
});
