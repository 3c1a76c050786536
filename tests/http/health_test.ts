import { assertEquals } from "@std/assert";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { createTestApp, FakeClock, type TestApp } from "../support/fakes.ts";

async function ready({ ask }: TestApp): Promise<string> {
  const response = await ask("/readyz");
  assertEquals(response.headers.get("cache-control"), "no-store");
  return `${response.status} ${await response.text()}`;
}

Deno.test("/healthz is 200 while the process lives, whatever else is", async () => {
  const test = createTestApp({ settings: { MAX_CONNECTIONS: 0 } });
  test.registry.isDraining = true;
  test.registry.isOverMemory = true;
  const response = await test.ask("/healthz");
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("content-type"), "text/plain; charset=utf-8");
  assertEquals(await response.text(), "ok\n");
});

Deno.test("/readyz is 200 on an idle server", async () => {
  assertEquals(await ready(createTestApp()), "200 ready\n");
});

Deno.test("/readyz is 503 from the first moment of the drain", async () => {
  const test = createTestApp();
  await test.connect("/chat");
  const drained = test.registry.drain();
  assertEquals(await ready(test), "503 draining\n");
  test.clock.tick(4_000);
  await drained;
  assertEquals(await ready(test), "503 draining\n");
});

Deno.test("/readyz is 503 while MAX_CONNECTIONS are in, evicted ones included", async () => {
  const test = createTestApp({ settings: { MAX_CONNECTIONS: 1, MAX_QUEUE_BYTES: 10 } });
  const socket = await test.connect("/echo");
  assertEquals(await ready(test), "503 full\n");
  socket.isStuck = true;
  socket.say("too much for it");
  assertEquals(test.registry.clients.size, 0);
  assertEquals(await ready(test), "503 full\n");
  socket.end(1013, "too slow");
  assertEquals(await ready(test), "200 ready\n");
});

Deno.test("/readyz is 503 while the process uses too much memory", async () => {
  const test = createTestApp();
  test.registry.isOverMemory = true;
  assertEquals(await ready(test), "503 overloaded\n");
});

Deno.test("/readyz is 503 while MAX_ROOMS are in use", async () => {
  const test = createTestApp({ settings: { MAX_ROOMS: 1 } });
  assertEquals(await ready(test), "200 ready\n");
  const socket = await test.connect("/chat/one");
  assertEquals(await ready(test), "503 rooms full\n");
  socket.end();
  assertEquals(await ready(test), "200 ready\n");
});

Deno.test("/readyz is 503 while the engine is unreachable", async () => {
  const keeps = { historySize: 1, historySeconds: 1, historyMb: 1, maxRooms: 1 };
  const engine = createMemoryEngine(keeps, new FakeClock());
  let isReady = false;
  engine.isReady = () => isReady;
  const test = createTestApp({ engine });
  assertEquals(await ready(test), "503 engine unreachable\n");
  isReady = true;
  assertEquals(await ready(test), "200 ready\n");
});
