/** What a Redis server is, and what it promises. */
import type { RedisClientType } from "@redis/client";

/** With these settings an answer means: on disk. */
const DURABLE = { "appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no" };

/** The server process at the other end of a connection. */
export interface RedisProcess {
  /** Identifies this run of the process. */
  runId: string;
  /** Whether a crash loses nothing acked: on disk before each answer, and no replica to take over. */
  isDurable: boolean;
  /** Identifies the connection in Redis. */
  clientId: string;
}

/** Asks a server what it is. @throws {Error} if it cannot take messages */
export async function inspect(client: RedisClientType): Promise<RedisProcess> {
  const [clientId, info, config] = await Promise.all([
    client.sendCommand<number>(["CLIENT", "ID"]),
    client.sendCommand<string>(["INFO", "server", "replication"]),
    // Where CONFIG is not allowed, nothing is promised.
    client.sendCommand<Record<string, string>>(["CONFIG", "GET", ...Object.keys(DURABLE)])
      .catch((): Record<string, string> => ({})),
  ]);
  const runId = /^run_id:(\w+)/m.exec(info)?.[1];
  if (!runId) throw new Error("it is no Redis");
  if (/^role:(?!master)/m.test(info)) throw new Error("it is a replica");
  const isAlone = /^connected_slaves:0\r?$/m.test(info) && /^master_replid2:0+\r?$/m.test(info);
  return {
    runId,
    clientId: String(clientId),
    isDurable: isAlone && Object.entries(DURABLE).every(([name, value]) => config[name] === value),
  };
}
