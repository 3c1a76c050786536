/**
 * What a Redis server tells of itself, as far as it says what an answer is worth.
 *
 * @module
 */
import type { RedisClientType } from "@redis/client";

/** The server process at the other end of a connection. */
export interface RedisProcess {
  /** Names this run of it. */
  runId: string;
  /** Whether a crash loses nothing acked: no replica to take over, and on disk before each answer. */
  isDurable: boolean;
  /** Names the connection there. */
  clientId: string;
}

/** With these settings, an answer means: on disk. */
const DURABLE = { "appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no" };

/**
 * Asks the server at the other end.
 *
 * @throws {Error} if it cannot take messages
 */
export async function inspect(client: RedisClientType): Promise<RedisProcess> {
  const [clientId, info, config] = await Promise.all([
    client.sendCommand<number>(["CLIENT", "ID"]),
    client.sendCommand<string>(["INFO", "server", "replication"]),
    // Not everybody may ask for it: then nothing is promised.
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
