/**
 * A slot of a Redis Cluster that moves in the middle of traffic on two nodes.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type Engine, isRefusal } from "../../handlers/engine/engine.ts";
import type { RoomEvent } from "../../handlers/protocol/room_event.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { draft, range, ROOMY } from "../engine/contract.ts";
import { eventually, granted, hear, untilGranted } from "../support/recorder.ts";
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

/**
 * Sets keys of a room and repeats what is not acked, until it is stopped: then each key's last value of
 * the last epoch.
 */
function keepSetting(node: Engine, room: string): { stop(): Promise<Map<string, string>> } {
  const acked = new Map<string, string>();
  let isOver = false;
  const set = async () => {
    let [last, lastEpoch] = [0, ""];
    for (let i = 1; !isOver; i++) {
      const [key, value] = [`k${i % 7}`, `${i}`];
      const change = { key, value, sender: "Ann", id: { session: "a setter", id: value } };
      const { epoch, rev } = await untilGranted(() => node.set(room, change));
      if (epoch !== lastEpoch) acked.clear();
      assertEquals(rev, epoch === lastEpoch ? last + 1 : 1, "a change was lost, or made twice");
      [last, lastEpoch] = [rev, epoch];
      acked.set(key, value);
    }
  };
  const done = set();
  return { stop: () => (isOver = true, done.then(() => acked)) };
}

/**
 * Moves the slots of three rooms, in traffic, in a quiet one, and while keys are set: one order is kept,
 * and no ack lost. With replicas, which begin new epochs, none that the new epoch has not told of.
 */
export async function moveSlots(hasReplicas: boolean): Promise<void> {
  const settings = { appendfsync: "always" };
  await using cluster = await RedisCluster.start({ hasReplicas, settings });
  await using one = await startNode(cluster.url);
  await using two = await startNode(cluster.url);
  await using traffic = await Traffic.start([one, two], ROOMS);
  const { recorder: quiet } = await hear(one, "quiet");
  const { recorder: keys } = await hear(two, "keys");
  const setter = keepSetting(one, "keys");
  for (const i of range(1, sized(3, 20))) {
    await traffic.flow(100);
    for (const room of ["one", "quiet", "keys"]) {
      const from = await cluster.primaryOf(`parley:{${room}}`);
      const others = cluster.primaries.filter((server) => server !== from);
      await cluster.moveSlot(`parley:{${room}}`, others[i % others.length]);
    }
  }
  await traffic.flow(100);
  await traffic.stop();
  await traffic.check({ mayReset: hasReplicas, withinMs: 10_000 });
  const acked = await setter.stop();
  const { rev, entries } = await untilGranted(() => two.state("keys"));
  assertEquals(new Map(entries.map(({ key, value }) => [key, value])), acked);
  await keys.until(({ events }) => revOf(events.at(-1)) === rev);
  for (const [index, event] of keys.events.entries()) {
    const before = revOf(keys.events[index - 1]);
    assert(
      event.type === "reset" || revOf(event) === before + 1,
      `${revOf(event)} after ${before}`,
    );
  }
  await eventually(() => two.publish("quiet", draft("heard")), (place) => !isRefusal(place));
  await quiet.until(({ messages }) => messages.at(-1) === "heard");
  const rooms = await eventually(() => granted(one.rooms("", 10)), ({ length }) => length === 7);
  assertEquals(rooms.map(({ room }) => room), [...ROOMS, "keys", "quiet"].sort());
}

function revOf(event?: RoomEvent): number {
  if (event?.type === "set") return event.entry.rev;
  return event?.type === "reset" ? event.rev : 0;
}
