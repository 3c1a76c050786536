/**
 * Publishes a second of each engine, and what an ack waits for: two nodes in one process, so that
 * they share a core; Redis has another. Each message has an id, is kept, and is heard on both nodes.
 *
 *     deno run -A tests/bench/engines.ts
 *
 * @module
 */
import { type Engine, isRefusal } from "../../handlers/engine/engine.ts";
import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { RedisServer, type RedisSettings } from "../support/redis_server.ts";

const LIMITS = { historySize: 100, historySeconds: 3_600, historyMb: 10_000, maxRooms: 1_000 };
const ROOMS = Array.from({ length: 20 }, (_, i) => `room-${i}`);
const MESSAGE = JSON.stringify("x".repeat(100));
const WARM_UP_MS = 1_000;
const MEASURE_MS = 4_000;

/** Has so many callers publish one message after the other on each node. */
async function measure(label: string, nodes: Engine[], callers: number): Promise<void> {
  let heard = 0;
  const host = { listenerCount: 1, deliver: () => heard++ };
  const distinct = [...new Set(nodes)];
  for (const node of distinct) {
    for (const room of ROOMS) await node.host(room, host);
  }
  let isOver = false;
  let acked = 0;
  let waits: number[] = [];
  const publish = async (node: Engine, caller: number) => {
    const session = `session of caller ${caller}`;
    for (let i = 0; !isOver; i++) {
      const start = performance.now();
      const key = { session, id: String(i) };
      const room = ROOMS[(caller + i) % ROOMS.length];
      const place = await node.publish(room, { sender: "Ann", message: MESSAGE, key });
      if (isRefusal(place)) throw new Error(`${label} refused: ${place.refused}`);
      acked++;
      waits.push(performance.now() - start);
      // An engine that answers at once must let the clock go on.
      if (acked % 1_000 === 0) await new Promise((resolve) => setTimeout(resolve));
    }
  };
  const all = nodes.flatMap((node, n) =>
    Array.from({ length: callers }, (_, i) => publish(node, n * callers + i))
  );
  await new Promise((resolve) => setTimeout(resolve, WARM_UP_MS));
  const start = performance.now();
  [acked, heard, waits] = [0, 0, []];
  await new Promise((resolve) => setTimeout(resolve, MEASURE_MS));
  const seconds = (performance.now() - start) / 1_000;
  const [acks, events] = [acked / seconds, heard / seconds].map(Math.round);
  const sorted = waits.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))].toFixed(2);
  console.log(
    `${label}, ${all.length} callers: ${acks} acks/s, ${events} events/s on ${distinct.length} ` +
      `nodes; an ack waits ${at(0.5)} ms (median), ${at(0.99)} ms (99 %)`,
  );
  isOver = true;
  await Promise.all(all);
  await Promise.all(distinct.map((node) => node.close()));
}

for (const callers of [1, 500]) {
  const memory = createMemoryEngine(LIMITS, systemClock);
  await measure("memory", [memory, memory], callers);
  const settings: RedisSettings[] = [{ appendonly: "no" }, { appendfsync: "everysec" }, {
    appendfsync: "always",
  }];
  for (const setting of settings) {
    await using server = await RedisServer.start(setting);
    const make = () => createRedisEngine(server.url, LIMITS, systemClock, silentLog);
    const [name] = Object.entries(setting);
    await measure(`redis (${name.join(" ")})`, [await make(), await make()], callers);
  }
}
