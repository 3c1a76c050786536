/**
 * A Redis Cluster of a test's own: three primaries, each with a replica if wanted.
 *
 * @module
 */
import { freePort } from "./process.ts";
import { RedisServer, type RedisSettings } from "./redis_server.ts";
import { eventually } from "./recorder.ts";

const SLOTS = 16_384;
const PRIMARIES = 3;

/** A running cluster; disposing of it ends its servers. */
export class RedisCluster implements AsyncDisposable {
  private constructor(readonly servers: RedisServer[]) {}

  /** Starts three primaries, and a replica for each one if `hasReplicas`. */
  static async start(
    { hasReplicas = false, settings = {} }: { hasReplicas?: boolean; settings?: RedisSettings } =
      {},
  ): Promise<RedisCluster> {
    const count = hasReplicas ? 2 * PRIMARIES : PRIMARIES;
    const servers = await Promise.all(Array.from({ length: count }, () => {
      const port = freePort();
      return RedisServer.start({
        port: String(port),
        "cluster-enabled": "yes",
        "cluster-port": String(freePort()),
        "cluster-node-timeout": "1000",
        "cluster-replica-validity-factor": "0",
        "repl-diskless-sync-delay": "0",
        ...settings,
      });
    }));
    const cluster = new RedisCluster(servers);
    await cluster.#join(hasReplicas);
    return cluster;
  }

  /** Those that begin as primaries. */
  get primaries(): RedisServer[] {
    return this.servers.slice(0, PRIMARIES);
  }

  /** A URL that names all primaries. */
  get url(): string {
    const addresses = this.primaries.map(({ port }) => `127.0.0.1:${port}`);
    return `redis://${addresses.join()}`;
  }

  /** The server that is the primary of a key's slot, as the running ones agree. */
  async primaryOf(key: string): Promise<RedisServer> {
    for (const server of this.servers) {
      if (!server.isRunning) continue;
      const answer = await server.command("GET", key);
      if (answer.startsWith("CLUSTERDOWN")) continue;
      const port = Number(/^MOVED \d+ \S+:(\d+)/.exec(answer)?.[1] ?? server.port);
      return this.servers.find((server) => server.port === port)!;
    }
    throw new Error(`Cannot find the primary of ${key}: no server knows`);
  }

  /** Waits until every running server sees all slots served, and each primary's replica is in step. */
  async untilWhole(): Promise<void> {
    for (const server of this.servers.filter(({ isRunning }) => isRunning)) {
      await eventually(
        () => server.command("CLUSTER", "INFO"),
        (info) => /cluster_state:ok/.test(info),
      );
    }
  }

  /** Removes all keys. */
  async empty(): Promise<void> {
    await Promise.all(this.primaries.map((server) => order(server, "FLUSHALL")));
  }

  /**
   * Moves a slot to another primary, with its keys, while clients go on: step by step as `redis-cli
   * --cluster reshard` does. It begins when all servers agree on who has which slot: a slot that is
   * moved on sooner loses its keys, as a server with an older view takes it back.
   */
  async moveSlot(key: string, to: RedisServer): Promise<void> {
    await this.#untilAgreed();
    const from = await this.primaryOf(key);
    const slot = await from.command("CLUSTER", "KEYSLOT", key);
    const [fromId, toId] = await Promise.all(
      [from, to].map((server) => server.command("CLUSTER", "MYID")),
    );
    await order(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromId);
    await order(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", toId);
    const keys = `local keys = redis.call('CLUSTER', 'GETKEYSINSLOT', ${slot}, 100) ` +
      "return table.concat(keys, ' ')";
    // Keys may be added until all are gone, as the slot still is this server's.
    while (true) {
      const names = (await from.command("EVAL", keys, "0")).split(" ").filter((name) => name);
      if (names.length === 0) break;
      for (const name of names) {
        await order(from, "MIGRATE", "127.0.0.1", String(to.port), name, "0", "5000");
      }
    }
    // The new owner first: while neither of the two has the slot, the old one would take it back.
    for (const server of new Set([to, from, ...this.primaries])) {
      await order(server, "CLUSTER", "SETSLOT", slot, "NODE", toId);
    }
  }

  /** Waits until all primaries tell the same of who has which slots, and with which epoch. */
  async #untilAgreed(): Promise<void> {
    const view = async (server: RedisServer) => {
      const nodes = (await server.command("CLUSTER", "NODES")).trim().split("\n");
      return nodes.map((line) => line.split(" "))
        .map(([id, , , , , , epoch, , ...slots]) => [id, epoch, ...slots].join(" ")).sort().join();
    };
    await eventually(
      () => Promise.all(this.primaries.map(view)),
      (views) => new Set(views).size === 1,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.servers.map((server) => server[Symbol.asyncDispose]()));
  }

  async #join(hasReplicas: boolean): Promise<void> {
    const { primaries } = this;
    await Promise.all(primaries.map((server, index) => {
      const [first, last] = [index, index + 1].map((i) => Math.floor(i * SLOTS / PRIMARIES));
      return server.command("CLUSTER", "ADDSLOTSRANGE", String(first), String(last - 1));
    }));
    for (const [index, server] of this.servers.entries()) {
      await server.command("CLUSTER", "SET-CONFIG-EPOCH", String(index + 1));
      if (index === 0) continue;
      const { port, settings } = this.servers[0];
      await server.command("CLUSTER", "MEET", "127.0.0.1", `${port}`, settings["cluster-port"]);
    }
    for (const server of this.servers) {
      await eventually(
        () => server.command("CLUSTER", "INFO"),
        (info) => info.includes(`cluster_known_nodes:${this.servers.length}`),
      );
    }
    if (hasReplicas) {
      for (const [index, primary] of primaries.entries()) {
        const replica = this.servers[PRIMARIES + index];
        const id = await primary.command("CLUSTER", "MYID");
        await eventually(
          () => replica.command("CLUSTER", "REPLICATE", id),
          (answer) => answer === "OK",
        );
        await eventually(
          () => replica.command("INFO", "replication"),
          (info) => info.includes("master_link_status:up"),
        );
      }
    }
    await this.untilWhole();
  }
}

/** Runs a command that must not be refused. */
async function order(server: RedisServer, ...words: string[]): Promise<void> {
  const answer = await server.command(...words);
  if (answer !== "OK") throw new Error(`Cannot ${words.join(" ")}: ${answer}`);
}
