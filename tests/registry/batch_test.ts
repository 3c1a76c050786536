import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { BATCH_SIZE, DirectFanOut, MergedFanOut } from "../../handlers/registry/batch.ts";
import { Counters } from "../../handlers/registry/counters.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { MAX_FRAME_BYTES } from "../../handlers/registry/pending_frame.ts";
import type { Subscriber } from "../../handlers/registry/subscriber.ts";
import { createTestApp, type FakeSocket } from "../support/fakes.ts";

/** A subscriber that only takes, and what it took. */
function taker(hasEnded = false) {
  const taken: [string, number][] = [];
  const enqueue = (frame: string, bytes: number) => taken.push([frame, bytes]);
  const send = (frame: string) => enqueue(frame, frame.length);
  return { taken, subscriber: { hasEnded, enqueue, send } as unknown as Subscriber };
}

/** A subscriber that throws whatever it is given. */
function thrower() {
  const fail = () => {
    throw new Error("broken");
  };
  return { subscriber: { enqueue: fail, send: fail } as unknown as Subscriber };
}

function createOptions() {
  const failed: Subscriber[] = [];
  const counters = new Counters();
  const turn = new Turn(() => {});
  return { counters, turn, failed, fail: (subscriber: Subscriber) => failed.push(subscriber) };
}

function createMerged() {
  const options = createOptions();
  return { ...options, fanOut: new MergedFanOut(options) };
}

Deno.test("DirectFanOut sends each object to all of its subscribers at once", () => {
  const options = createOptions();
  const fanOut = new DirectFanOut(options);
  const [ann, bo] = [taker(), taker()];
  fanOut.add(ann.subscriber);
  fanOut.add(bo.subscriber);
  fanOut.push("1");
  fanOut.delete(bo.subscriber);
  fanOut.push("2");
  assertEquals([ann.taken, bo.taken], [[["1", 1], ["2", 1]], [["1", 1]]]);
  assertEquals([options.counters.deliveries, fanOut.size], [3, 1]);
});

Deno.test("a subscriber that throws costs the others nothing, in either fan-out", () => {
  for (const FanOut of [DirectFanOut, MergedFanOut]) {
    const options = createOptions();
    const fanOut = new FanOut(options);
    const [broken, ann] = [thrower(), taker()];
    fanOut.add(broken.subscriber);
    fanOut.add(ann.subscriber);
    fanOut.push("1");
    fanOut.flush();
    fanOut.push("2");
    fanOut.flush();
    assertEquals(ann.taken, [["1", 1], ["2", 1]]);
    assertEquals(options.failed, [broken.subscriber, broken.subscriber]);
  }
});

Deno.test("MergedFanOut gives all its listeners one text with an object a line, and its bytes", () => {
  const { fanOut, counters } = createMerged();
  const [ann, bo] = [taker(), taker()];
  fanOut.add(ann.subscriber);
  fanOut.add(bo.subscriber);
  fanOut.push('{"a":1}');
  fanOut.push('"안"');
  fanOut.flush();
  fanOut.flush();
  assertEquals(ann.taken, [['{"a":1}\n"안"', 13]]);
  assertEquals(bo.taken, ann.taken);
  assertEquals([fanOut.size, counters.deliveries], [2, 4]);
  assertEquals(counters.batchSizes.counts.reduce((sum, count) => sum + count), 1);
});

Deno.test("MergedFanOut.add() keeps from a late listener what was due before", () => {
  const { fanOut } = createMerged();
  const [ann, late, latest] = [taker(), taker(), taker()];
  fanOut.add(ann.subscriber);
  fanOut.push("1");
  fanOut.add(late.subscriber);
  fanOut.push("안");
  fanOut.add(latest.subscriber);
  fanOut.flush();
  assertEquals([ann.taken, late.taken, latest.taken], [[["1\n안", 5]], [["안", 3]], []]);
  fanOut.push("3");
  fanOut.flush();
  assertEquals(latest.taken, [["3", 1]], "late once");
});

Deno.test("MergedFanOut.delete() gives a listener that leaves its part, and an ended one nothing", () => {
  const { fanOut } = createMerged();
  const [leaving, late, ended] = [taker(), taker(), taker(true)];
  fanOut.add(leaving.subscriber);
  fanOut.add(ended.subscriber);
  fanOut.push("1");
  fanOut.add(late.subscriber);
  fanOut.push("2");
  for (const { subscriber } of [leaving, late, ended]) fanOut.delete(subscriber);
  assertEquals([leaving.taken, late.taken, ended.taken], [[["1\n2", 3]], [["2", 1]], []]);
  assertEquals(fanOut.size, 0);
});

Deno.test("MergedFanOut.flush() lets nothing overtake that an eviction in its middle brings", () => {
  const { fanOut } = createMerged();
  const news = "x".repeat(MAX_FRAME_BYTES - 1);
  const enqueue = (text: string) => {
    if (text === "chat") { for (let i = 0; i < 3; i++) fanOut.push(news); }
  };
  fanOut.add({ hasEnded: false, enqueue } as unknown as Subscriber);
  const ann = taker();
  fanOut.add(ann.subscriber);
  fanOut.push("chat");
  fanOut.flush();
  fanOut.flush();
  assertEquals(ann.taken[0], ["chat", 4]);
});

Deno.test("MergedFanOut.push() begins another frame before one would be too long", () => {
  const { fanOut } = createMerged();
  const ann = taker();
  fanOut.add(ann.subscriber);
  const long = "x".repeat(MAX_FRAME_BYTES - 2);
  fanOut.push(long);
  fanOut.push("y");
  assertEquals(ann.taken, [], "with the line break they are just one frame");
  fanOut.push("z");
  fanOut.flush();
  assertEquals(ann.taken, [[`${long}\ny`, MAX_FRAME_BYTES], ["z", 1]]);
});

Deno.test("MergedFanOut.flushSome() goes on for those who came in its middle", () => {
  const { fanOut } = createMerged();
  for (let i = 0; i < BATCH_SIZE; i++) fanOut.add(taker().subscriber);
  const late = taker();
  const last = {
    hasEnded: false,
    enqueue() {
      fanOut.delete(last);
      fanOut.add(late.subscriber);
      fanOut.push("2");
    },
  } as unknown as Subscriber;
  fanOut.add(last);
  fanOut.push("1");
  while (fanOut.flushSome());
  assertEquals(late.taken, [["2", 1]]);
});

/** A fan-out whose turns come when a test says so. */
function createTurns() {
  const tasks: (() => void)[] = [];
  const schedule = (task: () => void) => void tasks.push(task);
  const fanOut = new MergedFanOut({ ...createOptions(), turn: new Turn(schedule, schedule) });
  return { fanOut, endTurn: () => tasks.shift()?.(), isPending: () => tasks.length > 0 };
}

Deno.test("MergedFanOut.push() fills no large room's queues in one turn: full frames wait for theirs", () => {
  const { fanOut, endTurn } = createTurns();
  const crowd = Array.from({ length: 2 * BATCH_SIZE }, () => taker());
  for (const { subscriber } of crowd) fanOut.add(subscriber);
  const taken = () => crowd.flatMap(({ taken }) => taken).length;
  const long = "x".repeat(MAX_FRAME_BYTES);
  for (let pushed = 1; pushed <= 4; pushed++) fanOut.push(long);
  assertEquals(taken(), 0);
  endTurn();
  assertEquals(taken(), BATCH_SIZE, "one frame for one batch");
  for (let turn = 2; turn <= 8; turn++) endTurn();
  assertEquals(taken(), 4 * crowd.length);
  for (let pushed = 1; pushed <= 100; pushed++) fanOut.push(long);
  assertEquals(taken(), 99 * crowd.length, "what waits has an end");
});

Deno.test("MergedFanOut gives each of a crowd all from when it came until it went, in order", () => {
  const step = fc.record({
    do: fc.constantFrom("push", "push", "push", "push", "come", "go", "turn", "flush"),
    who: fc.nat(),
    size: fc.constantFrom(1, 100, MAX_FRAME_BYTES / 2, MAX_FRAME_BYTES),
  });
  const check = (steps: { do: string; who: number; size: number }[]) => {
    const { fanOut, endTurn, isPending } = createTurns();
    const members: ReturnType<typeof come>[] = [];
    let count = 0;
    function come() {
      const member = { ...taker(), from: count, to: Infinity };
      fanOut.add(member.subscriber);
      return member;
    }
    for (let index = 0; index < 2 * BATCH_SIZE; index++) members.push(come());
    for (const { do: what, who, size } of steps) {
      const member = members[who % members.length];
      if (what === "push") fanOut.push(`${count++}`.padEnd(size));
      else if (what === "come") members.push(come());
      else if (what === "turn") endTurn();
      else if (what === "flush") fanOut.flush();
      else if (member.to === Infinity) {
        member.to = count;
        fanOut.delete(member.subscriber);
      }
    }
    while (isPending()) endTurn();
    for (const { taken, from, to } of members) {
      const numbers = taken.flatMap(([text]) => text.split("\n").map(Number));
      const length = Math.min(to, count) - from;
      assertEquals(numbers, Array.from({ length }, (_, index) => from + index));
      for (const [text, bytes] of taken) assertEquals(text.length, bytes);
      assert(taken.every(([, bytes]) => bytes <= MAX_FRAME_BYTES));
    }
  };
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), check), { numRuns: 60 });
});

// One order for all listeners of a room, whatever happens to some of them in the middle.

const NO_RATES = { MESSAGE_RATE: 0, BYTE_RATE: 0, JOIN_RATE: 0 };
const MAX_QUEUE_BYTES = 5_000;

/** What the sockets of a room of all kinds do, in any order. */
const steps = fc.array(
  fc.record({
    do: fc.constantFrom(
      ...["chat", "chat", "chat", "chat", "binary", "plain", "v1", "join", "other"],
      ...["stick", "end", "drop", "turn", "turn"],
    ),
    who: fc.nat(),
    size: fc.nat(400),
  }),
  { minLength: 20, maxLength: 80 },
);

interface Peer {
  socket: FakeSocket;
  name: string;
  dialect: "plain" | "v1";
  /** Rooms that it hears, with how many events each had before. */
  since: Map<string, number>;
  isStuck: boolean;
  hasEnded: boolean;
  hasJoined: boolean;
}

/** What a socket got, as items of the plain dialect and bytes, by room. */
function itemsOf({ socket, dialect }: Peer): Map<string, string[]> {
  const items = new Map<string, string[]>([["a", []], ["b", []]]);
  for (const frame of socket.frames) {
    if (typeof frame !== "string") {
      items.get("a")!.push(`bytes ${frame}`);
      continue;
    }
    for (const line of frame.split("\n")) {
      const { type, room = "a", sender, message } = JSON.parse(line);
      if (type === "chat") items.get(room)!.push(`${sender}: ${message}`);
      else if (type === "status") items.get(room)!.push(message);
      else assert(dialect === "v1" && (type === "welcome" || type === "ack"), line);
    }
  }
  return items;
}

Deno.test("Room: all listeners see one order without gaps, whoever is evicted in the middle", async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (steps) => {
      const turn = new Turn(() => {});
      const { connect, registry } = createTestApp({
        turn,
        settings: { ...NO_RATES, MAX_QUEUE_BYTES },
      });
      const peers: Peer[] = [];
      const senders = new Map<string, Peer>();
      const witnesses = {
        a: await connect("/chat/a"),
        b: await connect("/chat/b"),
      };
      let count = 0;
      async function open(dialect: "plain" | "v1"): Promise<Peer> {
        const socket = await connect("/chat/a", { dialect });
        const since = new Map([["a", witnesses.a.frames.length]]);
        const name = `P${peers.length}`;
        const peer = { socket, name, dialect, since };
        return { ...peer, isStuck: false, hasEnded: false, hasJoined: false };
      }
      for (const dialect of ["plain", "v1", "v1"] as const) peers.push(await open(dialect));
      for (const step of steps) {
        const peer = peers[step.who % peers.length];
        const { socket } = peer;
        const isIn = !peer.hasEnded && socket.closes.length === 0;
        if (step.do === "plain" || step.do === "v1") peers.push(await open(step.do));
        else if (step.do === "turn") turn.flush();
        else if (!isIn) continue;
        else if (step.do === "stick") socket.isStuck = peer.isStuck = true;
        else if (step.do === "end" || step.do === "drop") {
          socket[step.do]();
          peer.hasEnded = true;
        } else if (step.do === "other") {
          if (peer.dialect === "plain" || peer.since.has("b")) continue;
          peer.since.set("b", witnesses.b.frames.length);
          socket.say({ type: "join", name: peer.name, room: "b" });
        } else {
          if (!peer.hasJoined) socket.say({ type: "join", name: peer.name });
          peer.hasJoined = true;
          if (step.do === "join" || socket.closes.length > 0) continue;
          const message = `${count++} ${"가".repeat(step.size)}`;
          const room = peer.since.has("b") && step.size % 2 === 0 ? "b" : undefined;
          if (step.do === "chat") socket.say({ type: "chat", message, room, id: `${count}` });
          else {
            socket.sayBytes(count >> 8, count & 255);
            senders.set(`bytes ${[count >> 8, count & 255]}`, peer);
          }
        }
      }
      // Each turn may evict somebody, which is news for the next.
      for (let turns = 0; turns <= peers.length; turns++) turn.flush();
      // The witnesses are plain: they heard everything at its own moment.
      const truth = {
        a: itemsOf({ socket: witnesses.a, dialect: "plain" } as Peer).get("a")!,
        b: itemsOf({ socket: witnesses.b, dialect: "plain" } as Peer).get("a")!,
      };
      for (const peer of peers) {
        const heard = itemsOf(peer);
        for (const room of ["a", "b"] as const) {
          const items = heard.get(room)!;
          const since = peer.since.get(room) ?? truth[room].length;
          const due = truth[room].slice(since).filter((item) => senders.get(item) !== peer);
          const isWhole = !peer.hasEnded && peer.socket.closes.length === 0;
          assertEquals(items, isWhole ? due : due.slice(0, items.length));
        }
        if (peer.isStuck) {
          assertLessOrEqual(peer.socket.bufferedAmount, MAX_QUEUE_BYTES + MAX_FRAME_BYTES);
        }
        const seqs = (peer.socket.objects as Record<string, unknown>[]).filter(({ type, room }) =>
          room === "a" && (type === "chat" || type === "welcome")
        ).map(({ seq }) => Number(seq));
        seqs.forEach((seq, index) => assertEquals(seq, seqs[0] + index));
      }
      for (const { socket } of peers) socket.end();
      for (const witness of [witnesses.a, witnesses.b]) witness.end();
      assertEquals([registry.rooms.size, registry.clients.size, registry.heldCount], [0, 0, 0]);
    }),
    { numRuns: 150 },
  );
});
