/**
 * The Redis servers behind a URL: one, the one that Sentinel names, or the primaries of a cluster.
 * Each has one connection: the library's cluster client would open a second one for channels, so that
 * events and answers had no common order, and it repeats commands, which breaks the order of commands.
 */
import type { RemoteStats } from "../engine.ts";
import { type ConnectionOptions, RedisConnection } from "./connection.ts";
import type { RedisUrl } from "./url.ts";

/** How long a seed may take to answer, in ms. */
const DISCOVER_MS = 1_500;
const LOOK_TICKS = 25;
const SLOTS = 16_384;

/** What the shards need. */
export interface ShardOptions extends Omit<ConnectionOptions, "findUrl" | "stats" | "onMoved"> {
  url: RedisUrl;
  /** Slots may have another server than before. */
  onTopology(): void;
}

/** The connections to all servers. */
export class Shards {
  /** Settles when the first attempt to connect to every server has succeeded or failed. */
  readonly firstAttempt: Promise<void>;
  /** The figures of all connections together. */
  readonly stats: RemoteStats = { commands: 0, reconnects: 0, roundTrips: 0, roundTripSeconds: 0 };
  readonly #connections = new Map<string, RedisConnection>();
  #slots: RedisConnection[] = [];
  #only?: RedisConnection;
  #looking?: Promise<void>;
  /** Whether something has pointed to a change since the last look at the cluster began. */
  #hasChanged = false;
  #tick = 1;
  #hasWarned = false;
  #isClosed = false;

  constructor(readonly options: ShardOptions) {
    const { kind, seeds } = options.url;
    if (kind === "single") this.#only = this.#connect("", () => seeds[0]);
    if (kind === "sentinel") this.#only = this.#connect("", () => this.#askSentinels());
    this.firstAttempt = this.#look().then(async () => {
      await Promise.all(this.all.map((connection) => connection.firstAttempt));
    });
  }

  get all(): RedisConnection[] {
    return [...this.#connections.values()];
  }

  /** The connection to the server that has a key; none before the cluster is known. */
  of(key: string): RedisConnection | undefined {
    return this.#only ?? this.#slots[slotOf(key)];
  }

  /** Whether a command may name only keys and channels of one slot. */
  get isCluster(): boolean {
    return !this.#only;
  }

  /** The same as {@link of} by the key's slot, for all rooms at once: what a slot is takes longer to find out. */
  at(slot: number): RedisConnection | undefined {
    return this.#only ?? this.#slots[slot];
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.all.map((connection) => connection.close()));
    await this.#looking;
  }

  /**
   * Looks at the cluster again every 5 s, as not every move is told, and where it may have changed: not at
   * once, as the servers may disagree.
   */
  onTick(): void {
    if (
      this.#tick++ % LOOK_TICKS === 0 || this.#hasChanged ||
      this.all.some(({ isConnected }) => !isConnected)
    ) this.#look();
  }

  #connect(
    address: string,
    findUrl: ConnectionOptions["findUrl"] = () => this.options.url.urlOf(address),
  ): RedisConnection {
    const known = this.#connections.get(address);
    if (known) return known;
    const connection = new RedisConnection({
      ...this.options,
      findUrl,
      stats: this.stats,
      onMoved: (slot, address) => {
        if (this.#only) return this.#warnOfCluster();
        const owner = this.#connect(address);
        // All commands on their way say the same, and what follows takes long.
        if (owner === this.#slots[slot]) return;
        this.#slots[slot] = owner;
        this.#hasChanged = true;
        this.options.onTopology();
      },
      onUnsubscribed: (channel) => {
        this.#hasChanged = true;
        this.options.onUnsubscribed(channel);
      },
    });
    this.#connections.set(address, connection);
    return connection;
  }

  #warnOfCluster(): void {
    if (this.#hasWarned) return;
    this.#hasWarned = true;
    const cure = "name two or more of its addresses in its URL, with commas";
    this.options.log.error(`Cannot reach all rooms: this Redis is part of a cluster, ${cure}`);
  }

  #look(): Promise<void> {
    if (this.#only) return Promise.resolve();
    return this.#looking ??= this.#discover().then((isKnown) => {
      this.#hasChanged ||= !isKnown;
      this.#looking = undefined;
    });
  }

  /** Reads which server has which slots; returns whether one answered. */
  async #discover(): Promise<boolean> {
    this.#hasChanged = false;
    let ranges: unknown;
    for (const connection of this.all.filter(({ isConnected }) => isConnected)) {
      ranges = await connection.send(["CLUSTER", "SLOTS"]);
      if (Array.isArray(ranges)) break;
    }
    if (!Array.isArray(ranges)) ranges = await this.#askSeeds(["CLUSTER", "SLOTS"]);
    if (!Array.isArray(ranges) || this.#isClosed) return false;
    const slots: RedisConnection[] = [];
    for (const [first, last, [host, port]] of ranges as [number, number, [string, number]][]) {
      const connection = this.#connect(`${host}:${port}`);
      for (let slot = first; slot <= last; slot++) slots[slot] = connection;
    }
    this.#slots = slots;
    const inUse = new Set(slots);
    for (const [address, connection] of this.#connections) {
      if (inUse.has(connection)) continue;
      this.#connections.delete(address);
      connection.close();
    }
    this.options.onTopology();
    return slots.length === SLOTS;
  }

  /** The URL of the primary, as the first Sentinel that answers names it. */
  async #askSentinels(): Promise<string> {
    const { primary, urlOf } = this.options.url;
    const answer = await this.#askSeeds(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", primary]);
    if (!answer) throw new Error(`no Sentinel names the primary ${primary}`);
    return urlOf(answer.join(":"));
  }

  /** The first list with which a seed answers, on a connection of its own. */
  async #askSeeds(command: string[]): Promise<unknown[] | undefined> {
    const { url: { seeds }, createClient } = this.options;
    const socket = { reconnectStrategy: false, connectTimeout: DISCOVER_MS } as const;
    for (const url of seeds) {
      if (this.#isClosed) return;
      const client = createClient({ url, socket, commandOptions: { timeout: DISCOVER_MS } });
      client.on("error", () => {});
      try {
        await client.connect();
        const answer = await client.sendCommand<unknown>(command);
        if (Array.isArray(answer)) return answer;
      } catch {
        // The next one may answer.
      } finally {
        client.destroy();
      }
    }
  }
}

/** The slot of a key, as the specification of Redis Cluster says: CRC16 (XMODEM) of its hash tag. */
export function slotOf(key: string): number {
  const tag = /\{([^}]+)\}/.exec(key)?.[1] ?? key;
  let crc = 0;
  for (const byte of new TextEncoder().encode(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
    crc &= 0xffff;
  }
  return crc % SLOTS;
}
