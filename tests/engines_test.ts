// The engines that a program gives to Parley.
import { assertEquals, assertRejects } from "@std/assert";
import { durableEngine } from "../handlers/durable.ts";
import { createParley } from "../handlers/parley.ts";
import { redisEngine } from "../handlers/redis.ts";

Deno.test("durableEngine() keeps rooms over the end of a Parley", async () => {
  const folder = await Deno.makeTempDir();
  const limits = { drainSeconds: 0 };
  for (const seq of [1, 2]) {
    const engine = await durableEngine(`${folder}/parley.db`);
    await using parley = createParley({ engine, limits });
    assertEquals((await parley.publish("ops", seq)).seq, seq);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("redisEngine() refuses what is no address of Redis", async () => {
  await assertRejects(() => redisEngine("http://redis.example"), Error, "Cannot use REDIS_URL");
});
