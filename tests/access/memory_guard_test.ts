import { assertEquals } from "@std/assert";
import { guardMemory, processMemory } from "../../handlers/access/memory_guard.ts";
import { createTestApp } from "../support/fakes.ts";

/** A guard over a process that has `mb` megabytes, of which a collection leaves `kept`. */
function watch(maxMb: number) {
  const { registry, clock, log, connect } = createTestApp();
  const process = { mb: 60, kept: 60, collections: 0 };
  const memory = {
    rss: () => process.mb * 1_000_000,
    collect() {
      process.collections++;
      process.mb = process.kept;
      return Promise.resolve();
    },
  };
  const stop = guardMemory({ registry, maxMb, clock, log, memory });
  const look = async () => {
    clock.tick(500);
    await new Promise(setImmediate);
  };
  return { registry, clock, connect, process, look, stop };
}

Deno.test("guardMemory() gives a crowd's garbage back when all have gone", async () => {
  const { connect, process, look } = watch(0);
  const socket = await connect("/chat");
  process.mb = 110;
  await look();
  assertEquals(process.collections, 0, "not while somebody is here");
  socket.end();
  await look();
  await look();
  assertEquals(process, { mb: 60, kept: 60, collections: 1 });
});

Deno.test("guardMemory() leaves an empty server alone that has not grown by a fifth", async () => {
  const { process, look } = watch(0);
  process.mb = 71;
  await look();
  assertEquals(process.collections, 0);
});

Deno.test("guardMemory() measures growth from what the last collection left", async () => {
  const { process, look } = watch(0);
  Object.assign(process, { mb: 110, kept: 100 });
  await look();
  process.mb = 119;
  await look();
  assertEquals(process.collections, 1);
});

Deno.test("guardMemory() shuts the door over MAX_RSS_MB and opens it when memory falls", async () => {
  const { registry, clock, connect, process, look, stop } = watch(100);
  await connect("/chat");
  Object.assign(process, { mb: 150, kept: 150 });
  await look();
  assertEquals([registry.isOverMemory, process.collections], [true, 1]);
  await look();
  assertEquals(process.collections, 1, "again only after ten seconds");
  process.kept = 90;
  clock.tick(9_500);
  await look();
  await look();
  assertEquals([registry.isOverMemory, process.collections], [false, 2]);
  const { timerCount } = clock;
  stop();
  assertEquals(clock.timerCount, timerCount - 1);
});

Deno.test("processMemory.collect() frees what nobody holds", async () => {
  await processMemory.collect();
  const before = Deno.memoryUsage().heapUsed;
  Array.from({ length: 300_000 }, (_, index) => ({ index }));
  await processMemory.collect();
  assertEquals(Deno.memoryUsage().heapUsed < before + 5_000_000, true);
});
