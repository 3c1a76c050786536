import { assert, assertEquals, assertLessOrEqual, assertThrows } from "@std/assert";
import { denoUpgrade } from "../../handlers/access/handshake.ts";
import { OPEN_RIGHTS } from "../../handlers/access/grants.ts";
import { CLOSE } from "../../handlers/protocol/close_codes.ts";
import { type Dialect, plain, v1 } from "../../handlers/protocol/encode.ts";
import { Connection } from "../../handlers/registry/connection.ts";
import { Turn } from "../../handlers/registry/flush.ts";
import { subscribe } from "../../handlers/registry/membership.ts";
import { MAX_FRAME_BYTES } from "../../handlers/registry/pending_frame.ts";
import type { End } from "../../handlers/registry/subscriber.ts";
import { RawClient } from "../support/clients.ts";
import { createTestApp, FakeSocket } from "../support/fakes.ts";
import { soon } from "../support/inbox.ts";

const encoder = new TextEncoder();

/** A connection over a fake socket; the test ends its turns by `turn.flush()`. */
function connect({ dialect = plain, maxQueueBytes = 1_000_000, maxMessageBytes = 65_536 } = {}) {
  const socket = new FakeSocket();
  const turn = new Turn(() => {});
  const settings = { MAX_QUEUE_BYTES: maxQueueBytes, MAX_MESSAGE_BYTES: maxMessageBytes };
  const { registry, clock } = createTestApp({ turn, settings });
  const calls: string[] = [];
  const ends: End[] = [];
  registry.remove = (_client, end) => {
    calls.push("end");
    ends.push(end);
  };
  const visitor = { remote: "192.0.2.1:5", address: "192.0.2.1", rights: OPEN_RIGHTS };
  let held = 1;
  const slot = { release: () => held-- };
  class Route extends Connection {
    protected override ready = () => void calls.push("open");
    protected text = (text: string) => void calls.push(`text ${text}`);
    protected binary = (bytes: ArrayBuffer) => void calls.push(`binary ${new Uint8Array(bytes)}`);
  }
  const connection = new Route(socket, registry, { ...visitor, slot, dialect });
  /** Makes it hear so many rooms. */
  const subscribeTo = (count: number) => {
    for (let n = 0; n < count; n++) subscribe(registry.room(`r${n}`), connection, {});
    turn.flush();
    socket.take();
  };
  const { counters } = registry;
  return { socket, turn, counters, clock, connection, calls, ends, held: () => held, subscribeTo };
}

/** A JSON object of so many UTF-8 bytes: its text is Korean, three bytes a character. */
function korean(bytes: number): string {
  const object = JSON.stringify("가".repeat(Math.floor((bytes - 2) / 3)));
  return object + " ".repeat(bytes - encoder.encode(object).length);
}

Deno.test("Connection tells its opening and what comes in", () => {
  const { socket, calls } = connect();
  assertEquals(socket.binaryType, "arraybuffer");
  socket.open();
  socket.say("hi");
  socket.sayBytes(1, 2);
  socket.say("");
  assertEquals(calls, ["open", "text hi", "binary 1,2", "text "]);
});

Deno.test("Connection ends once, on whichever comes first, and says why", () => {
  const close = (code: number, reason: string, wasClean: boolean) => (socket: FakeSocket) =>
    socket.end(code, reason, wasClean);
  const cases: [string, (socket: FakeSocket, connection: Connection) => void, End][] = [
    ["a close", close(1000, "bye", true), { by: "peer", code: 1000, reason: "bye" }],
    ["a close without code", close(1005, "", true), { by: "peer", code: 1005, reason: "closed" }],
    ["a broken close", close(1006, "", false), { by: "error", code: 1006, reason: "closed" }],
    ["an error", (socket) => socket.fail("Unexpected EOF"), {
      by: "error",
      code: 1006,
      reason: "Unexpected EOF",
    }],
    ["our close", (_, connection) => connection.close("goingAway"), {
      by: "server",
      ...CLOSE.goingAway,
    }],
    ["an eviction", (socket, connection) => {
      socket.bufferedAmount = 1_000_001;
      connection.send("x");
    }, { by: "server", ...CLOSE.tooSlow }],
    ["a message too big", (socket) => socket.say("x".repeat(65_537)), {
      by: "server",
      ...CLOSE.tooBig,
    }],
    ["a send that fails", (socket, connection) => {
      socket.sendError = new Error("not open");
      connection.send("x");
    }, { by: "error", code: 1006, reason: "Error: not open" }],
  ];
  for (const [how, end, expected] of cases) {
    const { socket, connection, ends, calls, held } = connect();
    socket.open();
    end(socket, connection);
    assert(connection.hasEnded, how);
    assertEquals(ends, [expected], how);
    const closes = socket.closes.length;
    // Whatever comes behind it says nothing new.
    socket.sendError = undefined;
    connection.close("notAllowed");
    connection.send("more");
    connection.notify("{}");
    socket.say("late words");
    socket.drop();
    socket.end(1000);
    assertEquals(ends, [expected], how);
    assertEquals(calls.filter((call) => call !== "end"), ["open"], how);
    assertEquals(held(), 0, how);
    assertEquals(socket.closes.length, closes, how);
  }
});

Deno.test("Connection.close() tells the peer code and reason, and counts it", () => {
  for (const why of Object.keys(CLOSE) as (keyof typeof CLOSE)[]) {
    const { socket, connection, counters } = connect();
    socket.open();
    connection.close(why);
    connection.close(why);
    assertEquals(socket.closes, [CLOSE[why]]);
    assertEquals(counters.closes[why], 1);
  }
});

Deno.test("Connection keeps its slot until the runtime lets the socket go", () => {
  const { socket, connection, calls, held } = connect();
  socket.open();
  connection.close("tooSlow");
  socket.fail("Unexpected EOF");
  assertEquals([calls, held()], [["open", "end"], 1]);
  socket.end(0, "", false);
  socket.end(1006, "", false);
  assertEquals([calls, held()], [["open", "end"], 0]);
});

Deno.test("Connection gives its slot back at an error before it opened: no close follows", () => {
  const { socket, calls, held } = connect();
  socket.fail("Cannot upgrade");
  socket.end(0, "", false);
  assertEquals([calls, held()], [[], 0]);
});

Deno.test("Connection takes a message of exactly MAX_MESSAGE_BYTES in UTF-8, not one more", () => {
  for (const text of ["123456789", "가나다", "ab\u00e9\u00e9가"]) {
    assertEquals(encoder.encode(text).length, 9);
    const { socket, calls } = connect({ maxMessageBytes: 9 });
    socket.open();
    socket.say(text);
    socket.say(`${text}!`);
    assertEquals(calls, ["open", `text ${text}`, "end"]);
    assertEquals(socket.closes, [CLOSE.tooBig]);
  }
  const { socket, calls } = connect({ maxMessageBytes: 2 });
  socket.open();
  socket.sayBytes(1, 2);
  socket.sayBytes(1, 2, 3);
  assertEquals(calls, ["open", "binary 1,2", "end"]);
});

Deno.test("Connection holds at most MAX_QUEUE_BYTES and one frame for a peer that never reads", () => {
  const { socket, connection, ends } = connect({ maxQueueBytes: 10_000 });
  socket.open();
  socket.isStuck = true;
  for (let sent = 0; sent < 1_000; sent++) connection.send("가".repeat(100));
  assertEquals(socket.bufferedAmount, 10_200);
  assertEquals(socket.closes, [CLOSE.tooSlow]);
  assertEquals(ends, [{ by: "server", ...CLOSE.tooSlow }]);
});

Deno.test("Connection counts the small frames of a peer that stays behind, not those of a burst", () => {
  const { socket, connection, clock, ends } = connect({ maxQueueBytes: 1_000_000 });
  socket.isStuck = true;
  const send = (count: number) => {
    for (let sent = 0; sent < count; sent++) connection.send("x".repeat(60));
  };
  for (let burst = 0; burst < 3; burst++) {
    send(5_000);
    clock.tick(1_000);
    socket.bufferedAmount = 0;
  }
  send(3_000);
  assertEquals(ends, []);
  clock.tick(2_000);
  send(1);
  assertEquals(socket.closes, [CLOSE.tooSlow]);
});

Deno.test("Connection spares a peer whose bytes go out in time", () => {
  const { socket, connection, ends } = connect({ maxQueueBytes: 10_000 });
  socket.isStuck = true;
  for (let sent = 0; sent < 1_000; sent++) {
    connection.send(new Uint8Array(10_000));
    socket.bufferedAmount = 0;
  }
  assertEquals([ends, socket.frames.length], [[], 1_000]);
});

Deno.test("Connection of parley.v1 is evicted by merged frames just so", () => {
  const { socket, connection, turn } = connect({ dialect: v1, maxQueueBytes: 200_000 });
  socket.isStuck = true;
  let told = 0;
  while (!connection.hasEnded && told < 1_000) {
    connection.notify(korean(1_000));
    if (++told % 10 === 0) turn.flush();
  }
  assertEquals(socket.closes, [CLOSE.tooSlow]);
  assertLessOrEqual(socket.bufferedAmount, 200_000 + MAX_FRAME_BYTES);
  assertEquals(connection.unsentBytes, socket.bufferedAmount);
});

Deno.test("Connection that its last words evict is closed once", () => {
  const { socket, connection, counters } = connect({ dialect: v1, maxQueueBytes: 100 });
  socket.isStuck = true;
  connection.send(korean(90));
  connection.notify(korean(90));
  connection.close("goingAway");
  assertEquals(socket.closes, [CLOSE.tooSlow]);
  assertEquals([counters.closes.goingAway, counters.closes.tooSlow], [0, 1]);
});

Deno.test("Connection of a peer that reads takes a frame that fits no queue; behind it the queue has its limit", () => {
  const { socket, connection } = connect({ maxQueueBytes: 10_000 });
  socket.isStuck = true;
  connection.send(korean(50_000));
  connection.send(korean(9_000));
  assertEquals(socket.closes, []);
  connection.send(korean(9_000));
  assertEquals(socket.closes, [CLOSE.tooSlow]);
});

Deno.test("Connection of a peer that reads takes a burst of frames that fit no queue, and no stream of them", () => {
  const { socket, connection, clock } = connect({ maxQueueBytes: 10_000 });
  socket.isStuck = true;
  for (const size of [20_000, 9_000, 40_000]) connection.send(korean(size));
  assertEquals(socket.closes, []);
  clock.tick(2_001);
  connection.send(korean(20_000));
  assertEquals(socket.closes, [CLOSE.tooSlow]);
});

Deno.test("Connection.close() sends what was due before it", () => {
  const { socket, connection } = connect({ dialect: v1 });
  connection.notify("1");
  connection.notify("2");
  connection.close("tokenExpired");
  assertEquals(socket.frames, ["1\n2"]);
});

Deno.test("Connection sends nothing more to a peer that is too slow, not even what was due", () => {
  const { socket, connection } = connect({ dialect: v1 });
  connection.notify("1");
  connection.close("tooSlow");
  assertEquals([socket.frames, socket.closes], [[], [CLOSE.tooSlow]]);
});

Deno.test("Connection.notify() sends at once in the plain dialect, merged in parley.v1", () => {
  const plain = connect();
  plain.connection.notify("1");
  plain.connection.notify("2");
  assertEquals(plain.socket.take(), ["1", "2"]);
  const merged = connect({ dialect: v1 });
  merged.connection.notify("1");
  merged.connection.notify("가");
  assertEquals([merged.socket.take(), merged.connection.unsentBytes], [[], 5]);
  merged.turn.flush();
  assertEquals([merged.socket.take(), merged.connection.unsentBytes], [["1\n가"], 0]);
  merged.turn.flush();
  merged.connection.notify("3");
  merged.turn.flush();
  assertEquals(merged.socket.take(), ["3"]);
});

Deno.test("Connection merges frames of at most 64 kB in UTF-8 bytes, as full as can be", () => {
  const { socket, connection, turn } = connect({ dialect: v1 });
  const sizes = [30_000, 35_535, 30_000, 35_536, 1, 65_535, 65_536, 1, 2];
  const objects = sizes.map((size) => size < 3 ? "1".repeat(size) : korean(size));
  for (const object of objects) connection.notify(object);
  turn.flush();
  const frames = socket.take() as string[];
  assertEquals(frames.join("\n"), objects.join("\n"));
  assertEquals(frames.map((frame) => encoder.encode(frame).length), [
    65_536,
    30_000,
    35_538,
    65_535,
    65_536,
    4,
  ]);
});

Deno.test("Connection sends an object that is longer than 64 kB in a frame of its own", () => {
  const { socket, connection, turn } = connect({ dialect: v1 });
  const long = korean(65_537);
  for (const object of ["1", long, "2", "3"]) connection.notify(object);
  turn.flush();
  assertEquals(socket.take(), ["1", long, "2\n3"]);
});

Deno.test("Connection.enqueue() hands a room's frame on as it is where nothing else is due", () => {
  const { socket, connection, turn, subscribeTo } = connect({ dialect: v1 });
  subscribeTo(1);
  connection.enqueue("1\n2", 3);
  assertEquals(socket.take(), ["1\n2"]);
  connection.notify("own");
  connection.enqueue("3", 1);
  assertEquals(socket.take(), []);
  turn.flush();
  assertEquals(socket.take(), ["own\n3"]);
  subscribeTo(2);
  connection.enqueue("4", 1);
  connection.enqueue("5\n6", 3);
  assertEquals(socket.take(), []);
  turn.flush();
  assertEquals(socket.take(), ["4\n5\n6"]);
});

Deno.test("Connection.enqueue() keeps the 64 kB bound where own words are due", () => {
  const { socket, connection, turn, subscribeTo } = connect({ dialect: v1 });
  subscribeTo(1);
  connection.notify("own");
  connection.enqueue(korean(65_534), 65_534);
  turn.flush();
  assertEquals(socket.take(), ["own", korean(65_534)]);
});

Deno.test("Connection.bye() says bye in parley.v1; the plain dialect has no word for it", () => {
  const plain = connect();
  plain.connection.bye(250);
  assertEquals(plain.socket.take(), []);
  const merged = connect({ dialect: v1 });
  merged.connection.bye(250);
  merged.turn.flush();
  assertEquals(merged.socket.objects, [{ type: "bye", retry: 250 }]);
});

Deno.test("Connection counts frames and bytes both ways", () => {
  const { socket, connection, counters } = connect();
  socket.say("12345");
  socket.sayBytes(1, 2);
  connection.send("123");
  connection.send(new Uint8Array(4));
  assertEquals([counters.bytesIn, counters.framesOut, counters.bytesOut], [7, 2, 7]);
});

/** Serves `denoUpgrade` on a free port; tells how each socket ended. */
function serveUpgrade(dialect: Dialect, idleTimeoutSeconds: number) {
  const end = Promise.withResolvers<string>();
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    (request) => {
      const { socket, response } = denoUpgrade(request, { dialect, idleTimeoutSeconds });
      socket.addEventListener("error", (event) => end.resolve((event as ErrorEvent).message));
      socket.addEventListener("close", (event) => end.resolve(String((event as CloseEvent).code)));
      return response;
    },
  );
  return {
    url: `ws://127.0.0.1:${server.addr.port}/`,
    end: end.promise,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

Deno.test("denoUpgrade() throws where there is no handshake", () => {
  const request = new Request("http://parley.test/");
  assertThrows(() => denoUpgrade(request, { dialect: plain, idleTimeoutSeconds: 0 }), TypeError);
});

Deno.test("denoUpgrade() agrees on parley.v1 from any list, and on nothing else", async () => {
  for (
    const [dialect, offer, agreed] of [
      [v1, "parley.v1", "parley.v1"],
      [v1, "soap,parley.v1,token.x", "parley.v1"],
      [v1, "soap, parley.v1", "parley.v1"],
      [plain, "soap", undefined],
    ] as const
  ) {
    await using server = serveUpgrade(dialect, 0);
    using client = await RawClient.open(server.url, { "sec-websocket-protocol": offer });
    assertEquals(client.status, 101);
    const line = /^sec-websocket-protocol: (.*)\r$/im.exec(client.head);
    assertEquals(line?.[1], agreed, offer);
    client.drop();
    await soon(server.end, "the socket's end");
  }
});
