/**
 * One connection to Redis, made anew whenever it is lost. Commands and the rooms' channels share it,
 * so what Redis says, answers and events alike, comes in one order.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { createClient, RedisClientType } from "@redis/client";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { join, leave, members, register, release, summary, sync } from "./redis_presence.ts";
import { publish, read } from "./redis_script.ts";

/** How often the connection is watched. */
export const TICK_MS = 200;
/** A command is given up after so many whole ticks, 600 to 800 ms; so is a server that is silent. */
const PATIENCE_TICKS = 3;
/** For the TCP connection, and for all until it can be used. */
const CONNECT_MS = { tcp: 1_500, all: 2_000 };
const BACKOFF_MS = { first: 50, last: 1_000 };
const INSPECT_TICKS = 25;
/** What may wait for answers; more is refused at once, so that a slow Redis is not swamped. */
const MAX_PENDING = { commands: 10_000, bytes: 64_000_000 };

const SCRIPTS = {
  publish,
  read,
  sync,
  join,
  leave,
  register,
  release,
  members,
  summary,
};

/** A script's name: `redis_script.ts` and `redis_presence.ts` say what each takes and answers. */
export type ScriptName = keyof typeof SCRIPTS;

/** What a command consists of. */
export type Argument = string | Buffer;

/** What a connection needs from outside. */
export interface ConnectionOptions {
  url: string;
  clock: Clock;
  log: Log;
  /** Called when it stands; what this sends goes before all else. */
  onUp: () => void;
  /** Called for what a channel brings. */
  onPush: (payload: Buffer, channel: Buffer) => void;
  /** Called each {@link TICK_MS} with the number of the tick. */
  onTick: (tick: number) => void;
}

/** The server process at the other end. */
interface Server {
  /** Names this run of it. */
  runId: string;
  /** Whether a crash loses nothing acked: no replica, and on disk before each answer. */
  isDurable: boolean;
  /** Names this connection there. */
  clientId: string;
}

/** Keeps a connection to Redis. No method throws or rejects. */
export class RedisConnection {
  /** The server; the last one where the connection is lost. */
  server: Server = { runId: "", isDurable: false, clientId: "" };
  /** When the connection was made, in Unix ms. */
  upSince = 0;
  /** Settles when the first attempt to connect has ended, well or not. */
  readonly tried: Promise<void>;
  #client?: RedisClientType;
  #shas = new Map<string, string>();
  /** Those who wait for an answer, by the tick in which they asked, the oldest first. */
  #waiting: ((answer: undefined) => void)[][] = Array.from(
    { length: PATIENCE_TICKS + 1 },
    () => [],
  );
  #pendingCommands = 0;
  #pendingBytes = 0;
  #tick = 0;
  #lastAnswerTick = 0;
  #lastErrorTick = -1;
  #isClosed = false;
  /** Ends the attempt, the connection, or the pause before the next attempt. */
  #interrupt: (reason: string) => void = () => {};
  #stopTicks: () => void;
  #ended: Promise<void>;

  constructor(create: typeof createClient, readonly options: ConnectionOptions) {
    this.#stopTicks = options.clock.every(TICK_MS, () => this.#watch());
    const tried = Promise.withResolvers<void>();
    this.tried = tried.promise;
    this.#ended = this.#run(create, tried.resolve);
  }

  /** Whether it stands. */
  get isUp(): boolean {
    return this.#client !== undefined;
  }

  /**
   * Sends a command. Commands keep the order of the calls; those of one turn go out together. The
   * answer is `undefined` where none came in time or Redis refused: the outcome is unknown.
   *
   * @param isPatient waits for the answer as long as the connection lasts
   */
  send(command: Argument[], isPatient = false): Promise<unknown> {
    const client = this.#client;
    let bytes = 0;
    for (const argument of command) bytes += argument.length;
    const isFull = this.#pendingCommands >= MAX_PENDING.commands ||
      this.#pendingBytes + bytes > MAX_PENDING.bytes;
    if (!client || (isFull && !isPatient)) return Promise.resolve(undefined);
    this.#pendingCommands++;
    this.#pendingBytes += bytes;
    return new Promise((resolve) => {
      if (!isPatient) this.#waiting[PATIENCE_TICKS].push(resolve);
      const settle = (answer: unknown) => {
        this.#pendingCommands--;
        this.#pendingBytes -= bytes;
        this.#lastAnswerTick = this.#tick;
        resolve(answer);
      };
      client.sendCommand(command).then(settle, (error: Error) => {
        settle(undefined);
        this.#onErrorAnswer(client, error);
      });
    });
  }

  /** Runs a script. */
  run(
    script: ScriptName,
    keys: readonly string[],
    args: Argument[],
    isPatient = false,
  ): Promise<unknown> {
    const sha = this.#shas.get(script) ?? "";
    return this.send(["EVALSHA", sha, String(keys.length), ...keys, ...args], isPatient);
  }

  /** Hears channels, as long as the connection lasts. */
  subscribe(channels: string[]): void {
    const client = this.#client;
    client?.sSubscribe(channels, this.options.onPush, true)
      .catch((error: Error) => this.#onErrorAnswer(client, error));
  }

  /** Ends hearing a channel. */
  unsubscribe(channel: string): void {
    this.#client?.sUnsubscribe(channel, this.options.onPush, true).catch(() => {});
  }

  /** Ends it for good. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#stopTicks();
    this.#interrupt("closed");
    await this.#ended;
  }

  async #run(create: typeof createClient, onTried: () => void): Promise<void> {
    const { log, url, clock } = this.options;
    const fields = { redis: new URL(url).host };
    let backoffMs = 0;
    while (!this.#isClosed) {
      const reason = await this.#connect(create, () => {
        if (backoffMs > 0) log.info(`Redis is back at ${fields.redis}`, fields);
        backoffMs = 0;
        onTried();
      });
      onTried();
      if (this.#isClosed) return;
      if (backoffMs === 0) log.error(`Cannot reach Redis at ${fields.redis}: ${reason}`, fields);
      backoffMs = Math.min(BACKOFF_MS.last, backoffMs * 2 || BACKOFF_MS.first);
      await new Promise<void>((resolve) => {
        const cancel = clock.after(backoffMs * (0.5 + Math.random() / 2), resolve);
        this.#interrupt = () => resolve(cancel());
      });
    }
  }

  /** One connection from beginning to end; answers why it ended. */
  async #connect(create: typeof createClient, onUp: () => void): Promise<string> {
    const client = create({
      url: this.options.url,
      RESP: 3,
      disableOfflineQueue: true,
      socket: { reconnectStrategy: false, connectTimeout: CONNECT_MS.tcp },
    });
    const lost = Promise.withResolvers<string>();
    const interrupt = (reason: string) => {
      if (this.#client === client) this.#client = undefined;
      lost.resolve(reason);
      client.destroy();
    };
    this.#interrupt = interrupt;
    client.on("error", (error: Error) => interrupt(error.message));
    const cancel = this.options.clock.after(CONNECT_MS.all, () => interrupt("no answer"));
    try {
      await client.connect();
      const server = await this.#greet(client);
      if (client.isReady && !this.#isClosed) {
        this.server = server;
        this.#client = client;
        this.#lastAnswerTick = this.#tick;
        this.upSince = this.options.clock.now();
        onUp();
        this.options.onUp();
      }
    } catch (error) {
      interrupt(error instanceof Error ? error.message : String(error));
    }
    cancel();
    return await lost.promise;
  }

  /** Learns who is there, ends the last connection if it still hangs there, and loads the scripts. */
  async #greet(client: RedisClientType): Promise<Server> {
    const server = await inspect(client);
    if (server.runId === this.server.runId) {
      await client.sendCommand(["CLIENT", "KILL", "ID", this.server.clientId]).catch(() => {});
    }
    await Promise.all(
      Object.entries(SCRIPTS).map(async ([name, source]) => {
        this.#shas.set(name, await client.sendCommand<string>(["SCRIPT", "LOAD", source]));
      }),
    );
    return server;
  }

  /** Gives up what waits too long, and the connection when it has been silent. */
  #watch(): void {
    this.#tick++;
    this.#waiting.push([]);
    for (const giveUp of this.#waiting.shift()!) giveUp(undefined);
    const client = this.#client;
    if (client && this.#tick - this.#lastAnswerTick > PATIENCE_TICKS) this.#interrupt("no answer");
    else if (client && this.#tick % INSPECT_TICKS === 0) this.#inspect(client);
    else this.send(["PING"]);
    this.options.onTick(this.#tick);
  }

  /** Its setting or its role may have changed. */
  async #inspect(client: RedisClientType): Promise<void> {
    try {
      const server = await inspect(client);
      if (client === this.#client) this.server = server;
    } catch (error) {
      if (client === this.#client) this.#interrupt(String(error));
    }
  }

  #onErrorAnswer(client: RedisClientType, { message }: Error): void {
    if (client !== this.#client) return;
    if (this.#lastErrorTick !== this.#tick) this.options.log.warn(`Redis refused: ${message}`);
    this.#lastErrorTick = this.#tick;
    if (/^(NOSCRIPT|READONLY|LOADING|MASTERDOWN|NOPERM)/.test(message)) this.#interrupt(message);
  }
}

/** Asks a server for its run id, its role and how it keeps what it acks. */
async function inspect(client: RedisClientType): Promise<Server> {
  const [clientId, info, config] = await Promise.all([
    client.sendCommand<number>(["CLIENT", "ID"]),
    client.sendCommand<string>(["INFO", "server", "replication"]),
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

/** With these settings, an answer means: on disk. */
const DURABLE = { "appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no" };
