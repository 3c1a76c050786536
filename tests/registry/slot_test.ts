// A slot goes back on whichever comes first: an event, the abort of the request, a time limit.
import { assertEquals } from "@std/assert";
import { LimitTable } from "../../handlers/access/shared_limits.ts";
import type { Engine } from "../../handlers/engine/engine.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { auditSlots, findDifference } from "../../handlers/registry/audit.ts";
import { SLOT_MS } from "../../handlers/registry/subscriber.ts";
import { createTestApp, FakeClock, FakeSocket, handshakeHeaders } from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";
import { TestSubscriber } from "../support/subscriber.ts";

const KEEPS = { historySize: 10, historySeconds: 60, historyMb: 1, maxRooms: 10 };
const PATHS = ["/chat/ops", "/echo"];

/** A handshake whose client gives up by `abort()`. */
async function knock(path: string) {
  const sockets: FakeSocket[] = [];
  const test = createTestApp({
    upgrade(request) {
      sockets.push(new FakeSocket(request));
      return { socket: sockets[0], response: new Response(null, { status: 101 }) };
    },
  });
  const client = new AbortController();
  await test.ask(path, { headers: handshakeHeaders(), signal: client.signal });
  return { ...test, socket: sockets[0], abort: () => client.abort() };
}

Deno.test("an aborted handshake gives its slot back, though no event tells of it", async () => {
  for (const path of PATHS) {
    const { registry, clock, abort } = await knock(path);
    assertEquals([registry.heldCount, registry.holders.size], [1, 1]);
    const timers = clock.timerCount;
    abort();
    clock.tick(1_000);
    assertEquals([registry.heldCount, registry.holders.size], [0, 0]);
    assertEquals(clock.timerCount, timers - 1);
  }
});

Deno.test("a socket that is not open after 10 s gives its slot back; opened later it is closed", async () => {
  for (const path of PATHS) {
    const { registry, clock, socket } = await knock(path);
    clock.tick(SLOT_MS - 1);
    assertEquals(registry.heldCount, 1);
    clock.tick(1);
    assertEquals(registry.heldCount, 0);
    socket.open();
    assertEquals(socket.closes, [{ code: 1001, reason: "going away" }]);
    assertEquals([registry.clients.size, registry.heldCount, registry.rooms.size], [0, 0, 0]);
  }
});

Deno.test("an abort that comes with success, as in Deno's older behaviour, ends no socket", async () => {
  const { registry, clock, socket, abort } = await knock("/chat/ops");
  abort();
  socket.open();
  clock.tick(SLOT_MS);
  assertEquals([socket.closes, registry.clients.size, registry.heldCount], [[], 1, 1]);
});

Deno.test("in any order of events a slot is counted out once", async () => {
  const steps: Record<string, (made: Awaited<ReturnType<typeof knock>>) => void> = {
    abort: ({ abort }) => abort(),
    open: ({ socket }) => socket.open(),
    time: ({ clock }) => clock.tick(SLOT_MS),
    fail: ({ socket }) => socket.fail(),
    end: ({ socket }) => socket.end(),
  };
  const names = Object.keys(steps);
  for (const first of names) {
    for (const second of names) {
      for (const third of names) {
        const made = await knock("/chat/ops");
        for (const name of [first, second, third, "end"]) steps[name](made);
        const { registry } = made;
        const sums = [registry.heldCount, registry.holders.size, registry.clients.size];
        assertEquals(sums, [0, 0, 0], `${first}, ${second}, ${third}`);
        assertEquals(findDifference(registry), undefined);
      }
    }
  }
});

Deno.test("a peer that never answers a close gives its slot back after 10 s, one with unsent bytes keeps it", async () => {
  const { registry, clock, connect } = createTestApp({ settings: { MAX_QUEUE_BYTES: 100 } });
  const [quiet, stuck] = [await connect("/echo"), await connect("/echo")];
  quiet.say("x".repeat(70_000));
  stuck.isStuck = true;
  for (let said = 0; said < 2; said++) stuck.say("x".repeat(90));
  assertEquals([quiet.closes[0].code, stuck.closes[0].code, registry.heldCount], [1009, 1013, 2]);
  clock.tick(SLOT_MS);
  assertEquals(registry.heldCount, 1);
  stuck.bufferedAmount = 0;
  clock.tick(SLOT_MS);
  assertEquals([registry.heldCount, findDifference(registry)], [0, undefined]);
});

/** An engine that never says whether it hosts a room. */
function createSilentEngine(): Engine {
  const engine = createMemoryEngine(KEEPS, new FakeClock());
  engine.host = () => new Promise(() => {});
  return engine;
}

Deno.test("an event stream that waits for the engine sees the abort of its request, before and behind the answer", async () => {
  for (const isAborted of [true, false]) {
    const { registry, clock, ask } = createTestApp({ engine: createSilentEngine() });
    const client = new AbortController();
    const answer = ask("/rooms/ops/events", { signal: client.signal });
    await nextTurn();
    assertEquals([registry.heldCount, registry.rooms.size], [1, 1]);
    if (isAborted) client.abort();
    else clock.tick(1_000);
    assertEquals((await answer).status, isAborted ? 503 : 200);
    clock.tick(SLOT_MS);
    assertEquals(registry.heldCount, isAborted ? 0 : 1);
    client.abort();
    assertEquals([registry.heldCount, registry.rooms.size, registry.holders.size], [0, 0, 0]);
  }
});

Deno.test("a refused event stream keeps no slot, and counts as no client and no close", async () => {
  const { registry, ask, log } = createTestApp({ settings: { MAX_ROOMS: 0 } });
  const answer = await ask("/rooms/ops/events");
  assertEquals([answer.status, (await answer.json()).code], [503, "too_many_rooms"]);
  assertEquals([registry.heldCount, registry.holders.size, registry.clients.size], [0, 0, 0]);
  assertEquals([registry.counters.closes.goingAway, log.lines], [0, []]);
});

Deno.test("auditSlots() writes a line at error where the sums differ, and none where they agree", async () => {
  const { registry, clock, connect, log } = createTestApp();
  const stop = auditSlots(registry);
  const socket = await connect("/chat/ops");
  socket.say({ type: "join", name: "Ann" });
  clock.tick(60_000);
  assertEquals(log.of("audit"), []);
  await registry.acquire("192.0.2.9");
  registry.counters.members++;
  clock.tick(60_000);
  const [{ level, text }] = log.of("audit");
  const problem = "2 slots counted, 1 there; 2 members counted, 1 there; " +
    "1 clients of 192.0.2.9 counted, 0 there";
  assertEquals([level, text], ["error", `Totals differ: ${problem}`]);
  stop();
  clock.tick(60_000);
  assertEquals(log.of("audit").length, 1);
});

Deno.test("findDifference() sees an address or a user that is counted out or in too often, not what other threads hold", async () => {
  const { registry, connect, app } = createTestApp();
  const limits = app.sharedLimits as LimitTable;
  await connect("/chat/ops");
  const thread = new LimitTable(limits.limits, limits.clock, limits);
  for (const address of ["unknown", "192.0.2.9"]) thread.acquire(address, "ann");
  assertEquals(findDifference(registry), undefined);
  limits.acquire("192.0.2.9", "ann");
  assertEquals(
    findDifference(registry),
    "1 clients of 192.0.2.9 counted, 0 there; 1 clients of user ann counted, 0 there",
  );
  limits.release("192.0.2.9", "ann");
  const [{ address }] = registry.holders;
  limits.release(address);
  assertEquals(findDifference(registry), `0 clients of ${address} counted, 1 there`);
});

Deno.test("a subscriber ends when its rights expire, and not before fresher ones do", () => {
  const { registry, clock } = createTestApp();
  const subscriber = new TestSubscriber(registry);
  const expiresAt = clock.now() + 60_000;
  subscriber.rights = { ...subscriber.rights, expiresAt };
  subscriber.rights = { ...subscriber.rights, expiresAt: expiresAt + 60_000 };
  clock.tick(60_000);
  assertEquals(subscriber.hasEnded, false);
  clock.tick(60_000);
  assertEquals([subscriber.hasEnded, registry.counters.closes.tokenExpired], [true, 1]);
});
