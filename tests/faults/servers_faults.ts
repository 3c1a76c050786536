/**
 * Two whole servers on a Redis of their own. Whatever is killed, paused, cut off or drained: every
 * client hears one order without gap or repeat, and no ack is lost.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { Client, type Fields } from "../support/clients.ts";
import { ROOMY } from "../engine/contract.ts";
import { eventually, hear, within } from "../support/recorder.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";
import { hear as hearRaw, joinAs, nextOf, settled } from "../support/v1.ts";
import { Proxy } from "../support/proxy.ts";
import { IS_FULL, sized } from "../support/run.ts";
import { ServerNode } from "./server_node.ts";
import { StateTraffic } from "./state_traffic.ts";
import { Traffic } from "./traffic.ts";
import { addFault } from "./add_fault.ts";

/** How often Redis is killed, and a server; servers are drained half as often. */
const ROUNDS = sized(1, 20);
const ROOMS = ["one", "two"];
/** Who set keys of a room: two on each server. */
const SETTERS = 4;

/** A durable Redis, and two servers on it, of which the first reaches it through a proxy. */
class System implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  redis!: RedisServer;
  /** The first server's way to Redis. */
  way!: Proxy;
  nodes: ServerNode[] = [];

  static async start(): Promise<System> {
    const system = new System();
    const stack = system.#stack;
    const redis = system.redis = stack.use(await RedisServer.start({ appendfsync: "always" }));
    const way = system.way = stack.use(new Proxy(redis.port));
    const log = await createRedisEngine(redis.url, ROOMY, systemClock, silentLog);
    stack.defer(() => log.close());
    const urls = [`redis://127.0.0.1:${way.port}`, redis.url];
    system.nodes = await Promise.all(urls.map((url) => ServerNode.start({ REDIS_URL: url }, log)));
    for (const node of system.nodes) stack.use(node);
    return system;
  }

  /** Waits until the servers are ready, or are not. */
  async until(status: 200 | 503, ...nodes: ServerNode[]): Promise<void> {
    for (const node of nodes.length > 0 ? nodes : this.nodes) {
      await eventually(() => node.readiness(), (now) => now === status);
    }
  }

  /** Starts the servers again that have ended. */
  async restart(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.restart()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

/** One part of a test, named when it fails. */
async function phase(name: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`, { cause: error });
  }
}

redisTest(
  "whatever becomes of Redis and the way to it, two servers lose no ack and repeat nothing",
  async () => {
    await using system = await System.start();
    const { nodes: [one, other], redis, way } = system;
    await phase(
      "a restart that lost its tail is told to all, with a new epoch",
      () => loseTail(system),
    );
    for (const fault of ["killed", "swallowed"] as const) {
      const name = `senders know within a second that Redis is ${fault}, and listeners stay`;
      await phase(name, () => missRedis(system, fault));
    }
    await using traffic = await Traffic.start(system.nodes, ROOMS);

    await phase("Redis is killed and started again", async () => {
      for (let round = 0; round < ROUNDS; round++) {
        await system.until(200);
        await traffic.flow(100);
        await redis.stop("SIGKILL");
        await redis.start();
      }
      await system.until(200);
    });

    await phase("Redis pauses", async () => {
      if (!IS_FULL) return;
      const paused = redis.command("CLIENT", "PAUSE", "1500", "ALL");
      await within(1_000, () => system.until(503));
      await paused;
      await system.until(200);
    });

    for (const fault of ["cut", "swallow"] as const) {
      await phase(`the way to Redis: ${fault}`, async () => {
        await traffic.flow(100);
        way[fault]();
        await within(1_000, () => system.until(503, one));
        await traffic.flow(100);
        assertEquals(await other.readiness(), 200);
        way.heal();
        await system.until(200);
      });
    }
    assert(traffic.refusals > 0, "Redis was never missed");
    assertEquals(system.nodes.map(({ reconnects }) => reconnects), [0, 0]);
    await traffic.stop();
    await traffic.check({ mayReset: false });
  },
  addFault,
);

redisTest(
  "whichever server ends, its clients go on at the other, and no ack is lost or repeated",
  async () => {
    await using system = await System.start();
    const { nodes: [one, other], way } = system;
    await system.until(200);
    await using traffic = await Traffic.start(system.nodes, ROOMS);

    await phase(
      "clients go on at a server that has heard less and cannot reach Redis",
      async () => {
        way.cut();
        await system.until(503, one);
        await traffic.flow(100);
        await other.end("SIGKILL", one);
        const { refusals } = traffic;
        await eventually(() => traffic.refusals, (count) => count > refusals + sized(4, 20));
        way.heal();
        await traffic.flow(100);
      },
    );

    for (
      const [first, signal, rounds] of [[0, "SIGKILL", ROUNDS], [1, "SIGTERM", ROUNDS / 2]] as const
    ) {
      await phase(`clients of a server that ends by ${signal} go on at the other`, async () => {
        await using state = new StateTraffic(system.nodes, ROOMS[first]);
        const gone: Promise<number>[] = [];
        for (let round = 0; round < rounds; round++) {
          // One stays long enough to find out that the other's lease has ended.
          if (round === rounds / 2) await Promise.all(gone);
          await system.restart();
          const [ends, stays] = (round < rounds / 2) === (first === 0)
            ? [one, other]
            : [other, one];
          await traffic.flow(100);
          if (IS_FULL) await eventually(() => state.boundCount, (count) => count === SETTERS);
          const { code } = await ends.end(signal, stays);
          assertEquals(code, signal === "SIGKILL" ? 137 : 0);
          await traffic.flow(100);
          await state.read(stays);
          if (IS_FULL) gone.push(within(30_000, () => state.untilDeadAreGone(stays)));
        }
        const counts = await Promise.all(gone);
        if (signal === "SIGKILL") assert(counts.every((count) => count > 0), `${counts} keys died`);
        if (IS_FULL) await system.restart();
        if (IS_FULL || signal === "SIGTERM") await state.stop();
      });
    }
    await traffic.flow(100);
    await traffic.stop();
    await traffic.check({ mayReset: false });
  },
  addFault,
);

/** Redis ends, and comes back without its last messages. */
async function loseTail(system: System): Promise<void> {
  const [one, other] = system.nodes;
  const ann = await joinAs("Ann", one.urlOf("r"));
  const listeners: Client[] = [];
  for (const node of system.nodes) listeners.push((await hearRaw(node.urlOf("r"))).client);
  const { recorder, head: { epoch } } = await hear(other, "r");
  const say = (message: string, id: string) => ackOf(ann, { type: "chat", message, id });
  for (let i = 1; i <= 10; i++) await say(`text ${i}`, `${i}`);
  for (const listener of listeners) await nextWhere(listener, ({ seq }) => seq === 10);
  await recorder.until(({ chats }) => chats.length === 10);
  await system.redis.stop("SIGKILL");
  await system.redis.loseTail("text 7");
  await system.redis.start();
  await system.until(200);
  const ack = await say("again", "11");
  assertNotEquals(ack.epoch, epoch);
  assertEquals(ack.seq, 7);
  for (const listener of listeners) {
    const welcome = await nextOf(listener, "welcome");
    assertEquals([welcome.epoch, welcome.seq, welcome.recovered], [ack.epoch, 6, false]);
    const chat = await nextOf(listener, "chat");
    assertEquals([chat.seq, chat.message], [7, "again"]);
  }
  await recorder.until(({ messages }) => messages.at(-1) === '"again"');
  const reset = { type: "reset", epoch: `${ack.epoch}`, seq: 6, rev: 0, members: 0 } as const;
  assertEquals(recorder.events.slice(10, -1), [reset]);
  const { client: late, welcome } = await hearRaw(`${one.urlOf("r")}?after=${epoch}:10`);
  assertEquals([welcome.epoch, welcome.seq, welcome.recovered], [ack.epoch, 0, false]);
  for (const client of [ann, ...listeners, late]) await client.close();
}

/** What senders and listeners are told while Redis is away, and what becomes of the messages. */
async function missRedis(system: System, fault: "killed" | "swallowed"): Promise<void> {
  const { nodes: [one], redis, way } = system;
  await using v1 = await joinAs("Ann", one.urlOf(fault), { session: "a secret of sixteen" });
  await using plain = await Client.join(one.urlOf(fault), "Bob");
  const chat = { type: "chat", message: "hi", id: "1" };
  const messagesUrl = `http://127.0.0.1:${one.port}/rooms/${fault}/messages`;
  const post = () =>
    fetch(messagesUrl, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": "2" },
      body: '{"message":"hi"}',
    });
  await (fault === "killed" ? redis.stop("SIGKILL") : way.swallow());
  await within(1_000, async () => {
    v1.send(chat);
    plain.send({ type: "chat", message: "lost" });
    const { status, body } = await post();
    await body?.cancel();
    assertEquals(status, 503);
    assertEquals((await nextOf(v1, "error")).code, "unavailable");
    const text = "Server error: the message may not have been delivered.";
    assertEquals((await nextOf(plain, "error")).message, text);
    await system.until(503, one);
  });
  await (fault === "killed" ? redis.start() : way.heal());
  await system.until(200);
  const untilGiven = (ask: () => Promise<Response>) =>
    eventually(async () => await (await ask()).json(), ({ seq }) => seq !== undefined);
  const places = [await ackOf(v1, chat), await untilGiven(post)];
  // What hung on the way may have arrived: once all the same.
  const { messages } = await untilGiven(() => fetch(messagesUrl));
  const placesOf = (name: string) => messages.filter(({ sender }: Fields) => sender === name);
  for (const [index, name] of ["Ann", "Anonymous"].entries()) {
    assertEquals(placesOf(name).map(({ seq }: Fields) => seq), [places[index].seq]);
  }
  for (const { sender } of messages) {
    assertEquals((await nextOf(plain, "chat")).sender, sender);
  }
  await settled(v1);
}

/** Sends a message until it is acked, as a busy machine may make Redis answer too late; the ack. */
function ackOf(client: Client, message: Fields): Promise<Fields> {
  return eventually(() => {
    client.send(message);
    return nextWhere(client, ({ id }) => id === message.id);
  }, ({ type }) => type === "ack");
}

/** The next object that is so; others before it are skipped. */
async function nextWhere(client: Client, isIt: (object: Fields) => boolean): Promise<Fields> {
  for (;;) {
    const object = await client.nextObject();
    if (isIt(object)) return object;
  }
}
