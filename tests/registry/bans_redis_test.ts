import { assertEquals } from "@std/assert";
import { createParley } from "../../handlers/parley.ts";
import { redisEngine } from "../../handlers/redis.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";

redisTest(
  "A ban on one Redis node ends the user's stream on another, also on one that starts later",
  async () => {
    await using redis = await RedisServer.start();
    const authorize = () => ({ user: "ann" });
    const start = async () => createParley({ authorize, engine: await redisEngine(redis.url) });
    const one = await start();
    const two = await start();
    const ask = (parley: typeof one, path: string) =>
      parley.fetch(new Request(`http://parley.test${path}`));
    const statusOf = async (parley: typeof one) => {
      const { status, body } = await ask(parley, "/rooms");
      await body?.cancel();
      return status;
    };
    const stream = await ask(two, "/rooms/ops/events");
    assertEquals(stream.status, 200);
    await one.disconnect("ann", { seconds: 60 });
    await stream.text();
    assertEquals(await statusOf(two), 403);
    const three = await start();
    while (await statusOf(three) !== 403) await new Promise((resolve) => setTimeout(resolve, 10));
    for (const parley of [one, two, three]) await parley[Symbol.asyncDispose]();
  },
);
