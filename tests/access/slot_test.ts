import { assert, assertEquals, assertRejects } from "@std/assert";
import { OPEN_RIGHTS } from "../../handlers/access/grants.ts";
import { DEFAULT_LIMITS } from "../../handlers/access/limits.ts";
import { LimitTable } from "../../handlers/access/shared_limits.ts";
import { type Slot, type SlotHandler, withSlot } from "../../handlers/access/slot.ts";
import type { Call } from "../../handlers/app.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import type { Settings } from "../../handlers/start/settings.ts";
import { createTestApp, FakeClock } from "../support/fakes.ts";

/** A handler behind {@link withSlot} that keeps its slots. */
function makeHandler(
  settings: Partial<Settings>,
  inner: SlotHandler<Call> = () => new Response("in"),
) {
  const { app, registry } = createTestApp({ settings });
  const slots: Slot[] = [];
  const handler = withSlot<Call>(app, (call, slot) => {
    slots.push(slot);
    return inner(call, slot);
  });
  const ask = async (address: string) =>
    await handler({ visitor: { address, rights: OPEN_RIGHTS } } as Call);
  return { ask, registry, slots };
}

const refused = (answer: () => Promise<Response>) => assertRejects(answer, HttpError);

Deno.test("withSlot<Call>() answers 503 with Retry-After while the server is full or drains", async () => {
  const { ask, registry, slots } = makeHandler({ MAX_CONNECTIONS: 1, DRAIN_SECONDS: 7 });
  await ask("a");
  const full = await refused(() => ask("b"));
  assertEquals([full.status, full.code, full.headers], [503, "full", { "retry-after": "5" }]);
  slots[0].release();
  registry.isDraining = true;
  const draining = await refused(() => ask("b"));
  assertEquals([draining.status, draining.code], [503, "draining"]);
  assertEquals(draining.headers, { "retry-after": "7" });
  assertEquals([slots.length, registry.heldCount], [1, 0]);
});

Deno.test("withSlot<Call>() answers 429 to an address that has MAX_CONNECTIONS_PER_IP", async () => {
  const { ask, slots } = makeHandler({ MAX_CONNECTIONS_PER_IP: 2 });
  await ask("a");
  await ask("a");
  const error = await refused(() => ask("a"));
  assertEquals([error.status, error.code], [429, "too_many_connections"]);
  assert("retry-after" in error.headers);
  await ask("b");
  slots[0].release();
  await ask("a");
});

Deno.test("withSlot<Call>() takes the slot back from a handler that throws, once", async () => {
  for (const isReleased of [false, true]) {
    const { ask, registry } = makeHandler({ MAX_CONNECTIONS: 1 }, (_, slot) => {
      if (isReleased) slot.release();
      return Promise.reject(new HttpError(426, "upgrade_required", "Upgrade."));
    });
    await refused(() => ask("a"));
    assertEquals([registry.heldCount, registry.isFull], [0, false]);
  }
});

Deno.test("LimitTable.share() counts out the clients of a thread that died, and no others", () => {
  const limits = { ...DEFAULT_LIMITS, maxConnections: 4, maxConnectionsPerIp: 3 };
  const table = new LimitTable(limits, new FakeClock());
  const thread = table.share();
  for (const address of ["a", "a", "b"]) assertEquals(thread.acquire(address), undefined);
  assertEquals(table.acquire("a"), undefined);
  assertEquals([table.isFull, thread.acquire("c")], [true, "full"]);
  thread.release("b");
  assertEquals([table.isFull, thread.acquire("a")], [false, "too_many_connections"]);
  thread.releaseAll();
  assertEquals([table.count, table.countOf("a"), table.countOf("b")], [1, 1, 0]);
  thread.releaseAll();
  assertEquals(table.count, 1);
});

Deno.test("LimitTable.share() counts users over threads, too", () => {
  const limits = { ...DEFAULT_LIMITS, maxConnectionsPerUser: 2, messageRatePerUser: 2 };
  const table = new LimitTable(limits, new FakeClock());
  const [one, two] = [table.share(), table.share()];
  assertEquals([one.acquire("a", "u"), two.acquire("b", "u")], [undefined, undefined]);
  assertEquals(table.acquire("c", "u"), "too_many_connections_of_user");
  assertEquals([table.acquire("c"), table.acquire("c", "user u")], [undefined, undefined]);
  one.releaseAll();
  assertEquals([table.acquire("a", "u"), two.acquire("a", "u")], [
    undefined,
    "too_many_connections_of_user",
  ]);
  assertEquals([one.trySend("u"), two.trySend("u"), table.trySend("u")], [0, 0, 500]);
});

Deno.test("LimitTable knows no address longer than it has clients", () => {
  const table = new LimitTable(DEFAULT_LIMITS, new FakeClock());
  for (let index = 0; index < 100; index++) table.acquire(`address ${index}`);
  table.acquire("address 0");
  for (let index = 0; index < 100; index++) table.release(`address ${index}`);
  assertEquals([table.keyCount, table.countOf("address 0"), table.count], [1, 1, 1]);
  table.release("address 0");
  assertEquals(table.keyCount, 0);
});
