import { createMemoryEngine } from "../../handlers/engine/memory.ts";
import { createRedisEngine } from "../../handlers/engine/redis/engine.ts";
import { remoteEngine, shareEngine } from "../../handlers/engine/remote.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";
import { type Cluster, engineContract } from "./contract.ts";
import { startOwner } from "./remote_thread.ts";
import type { Engine } from "../../handlers/engine/engine.ts";

/** An engine as its own thread uses it, and over a port. */
async function share(engine: Engine): Promise<Required<Cluster>> {
  const shared = shareEngine(engine);
  const { port1, port2 } = new MessageChannel();
  shared.serve(port1);
  const remote = remoteEngine(port2);
  await remote.members("any");
  return { nodes: [shared.here, remote], stop: () => shared.close() };
}

engineContract(
  "shared memory",
  (limits) => share(createMemoryEngine(limits, systemClock)),
);
engineContract("remote memory (threads)", (limits) => startOwner({ limits }));

engineContract("shared redis", async (limits) => {
  const server = await RedisServer.start();
  const redis = await createRedisEngine(server.url, limits, systemClock, silentLog);
  const { nodes, stop } = await share(redis);
  return {
    nodes,
    async stop() {
      await stop();
      await server[Symbol.asyncDispose]();
    },
  };
}, redisTest);

engineContract("remote redis (threads)", async (limits) => {
  const server = await RedisServer.start();
  const { nodes, stop } = await startOwner({ limits, redisUrl: server.url });
  return {
    nodes,
    async stop() {
      await stop();
      await server[Symbol.asyncDispose]();
    },
  };
}, redisTest);
