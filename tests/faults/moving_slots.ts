/**
 * A slot of a Redis Cluster that moves in the middle of traffic on two nodes.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Engine, isRefusal } from "../../handlers/engine/engine.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { draft, range, ROOMY } from "../engine/contract.ts";
import { eventually, granted, hear } from "../support/recorder.ts";
import { RedisCluster } from "../support/redis_cluster.ts";
import { sized } from "../support/run.ts";
import { Traffic } from "./traffic.ts";

/** On different shards, as their slots are 3 times a third of all. */
export const ROOMS = ["one", "two", "three", "four", "five"];

/** A node that a test need not close. It keeps every message. */
export async function startNode(url: string): Promise<Engine & AsyncDisposable> {
  const limits = { ...ROOMY, historySize: 1_000_000 };
  const engine = await createRedisEngine(url, limits, systemClock, silentLog);
  return Object.assign(engine, { [Symbol.asyncDispose]: () => engine.close() });
}

/** Moves the slots of two rooms, in traffic and in a quiet one: no ack is lost, and one order kept. */
export async function moveSlots(): Promise<void> {
  await using cluster = await RedisCluster.start();
  await using one = await startNode(cluster.url);
  await using two = await startNode(cluster.url);
  await using traffic = await Traffic.start([one, two], ROOMS);
  const { recorder: quiet } = await hear(one, "quiet");
  for (const i of range(1, sized(3, 20))) {
    await traffic.flow(100);
    for (const room of ["one", "quiet"]) {
      const from = await cluster.primaryOf(`parley:{${room}}`);
      const others = cluster.servers.filter((server) => server !== from);
      await cluster.moveSlot(`parley:{${room}}`, others[i % others.length]);
    }
  }
  await traffic.flow(100);
  await traffic.stop();
  await traffic.check({ mayReset: true, withinMs: 10_000 });
  for (const room of ROOMS) {
    const { chats } = await granted(one.read(room));
    const messages = new Map(chats.map(({ seq, message }) => [seq, message]));
    for (const ack of traffic.acks.filter((ack) => ack.room === room)) {
      assertEquals(messages.get(ack.seq), ack.message, "an ack without its message");
    }
  }
  await eventually(() => two.publish("quiet", draft("heard")), (place) => !isRefusal(place));
  await quiet.until(({ messages }) => messages.at(-1) === "heard");
  const rooms = await eventually(() => one.rooms("", 10), ({ length }) => length === 6);
  assertEquals(rooms.map(({ room }) => room), ["five", "four", "one", "quiet", "three", "two"]);
}
