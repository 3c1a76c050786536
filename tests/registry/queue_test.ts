// What may be unsent to one client, where the nodes of one Redis have limits of their own.

import { assertEquals } from "@std/assert";
import { Client } from "../support/clients.ts";
import { EventReader } from "../support/event_source.ts";
import { redisDatabases, redisTest } from "../support/redis_server.ts";
import { post, startServer } from "../support/servers.ts";

const databaseUrl = redisDatabases();

redisTest(
  "a message that fits no queue of another node reaches its listeners, and closes none",
  async () => {
    const REDIS_URL = databaseUrl();
    await using large = await startServer({ REDIS_URL, MAX_MESSAGE_BYTES: 500_000 });
    const limits = { MAX_MESSAGE_BYTES: 1_000, MAX_QUEUE_BYTES: 100_000 };
    await using small = await startServer({ REDIS_URL, ...limits });
    await using plain = await Client.open(`${small.ws}/chat/a`);
    await using v1 = await Client.open(`${small.ws}/chat/a`, "parley.v1");
    assertEquals((await v1.nextObject()).type, "welcome");
    await using events = new EventReader(await fetch(`${small.url}/rooms/a/events`));
    assertEquals((await events.next()).event, "welcome");
    const texts = [200_000, 90_000, 400_000].map((size) => "x".repeat(size));
    // All in one turn of the other node.
    const messages = texts.map((message) => ({ room: "a", message }));
    assertEquals((await post(large, "/rooms/messages", { messages })).status, 200);
    for (const message of texts) {
      assertEquals((await plain.nextObject()).message, message);
      assertEquals((await v1.nextObject()).message, message);
      assertEquals(JSON.parse((await events.next()).data!).message, message);
    }
    assertEquals(small.registry.counters.closes.tooSlow, 0);
    const refused = await post(small, "/rooms/a/messages", { message: "x".repeat(2_000) });
    assertEquals(refused.status, 413);
  },
);
