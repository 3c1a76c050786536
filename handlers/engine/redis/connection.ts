/**
 * One connection to Redis, made anew whenever it is lost. Commands and the rooms' channels share it,
 * so what Redis says, answers and events alike, comes in one order.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { createClient, RedisClientType } from "@redis/client";
import type { Clock } from "../../util/clock.ts";
import type { Log } from "../../util/log.ts";
import { inspect, type RedisProcess } from "./inspect.ts";
import { PendingCommands, TICK_MS } from "./pending.ts";
import { join, leave, members, register, release, summary, sync } from "./presence.ts";
import { publish, read } from "./scripts.ts";

/** For the TCP connection, and for all until it can be used. */
const CONNECT_MS = { tcp: 1_500, all: 2_000 };
const BACKOFF_MS = { first: 50, last: 1_000 };
const INSPECT_TICKS = 25;
const SCRIPTS = { publish, read, sync, join, leave, register, release, members, summary };

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

/** Keeps a connection to Redis. No method throws or rejects. */
export class RedisConnection {
  /** The server; the last one where the connection is lost. */
  server: RedisProcess = { runId: "", isDurable: false, clientId: "" };
  /** When the connection was made, in Unix ms. */
  upSince = 0;
  /** Settles when the first attempt to connect has ended, well or not. */
  readonly tried: Promise<void>;
  #client?: RedisClientType;
  #shas = new Map<string, string>();
  readonly #pending = new PendingCommands();
  #tick = 0;
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
    if (!client || !(isPatient || this.#pending.hasSpace(bytes))) return Promise.resolve(undefined);
    const onError = (error: Error) => this.#onErrorAnswer(client, error);
    return this.#pending.add(client.sendCommand(command), bytes, isPatient, onError);
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
        this.upSince = this.options.clock.now();
        onUp();
        this.options.onUp();
      }
    } catch (error) {
      interrupt(reasonOf(error));
    }
    cancel();
    return await lost.promise;
  }

  /** Learns who is there, ends the last connection if it still hangs there, and loads the scripts. */
  async #greet(client: RedisClientType): Promise<RedisProcess> {
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
    const hasAnswered = this.#pending.tick();
    if (this.#client && !hasAnswered) this.#interrupt("no answer");
    if (this.#client && this.#tick % INSPECT_TICKS === 0) this.#inspect(this.#client);
    this.send(["PING"]);
    this.options.onTick(this.#tick);
  }

  /** Its setting or its role may have changed. */
  async #inspect(client: RedisClientType): Promise<void> {
    try {
      const server = await inspect(client);
      if (client === this.#client) this.server = server;
    } catch (error) {
      if (client === this.#client) this.#interrupt(reasonOf(error));
    }
  }

  #onErrorAnswer(client: RedisClientType, { message }: Error): void {
    if (client !== this.#client) return;
    if (this.#lastErrorTick !== this.#tick) this.options.log.warn(`Redis refused: ${message}`);
    this.#lastErrorTick = this.#tick;
    if (/^(NOSCRIPT|READONLY|LOADING|MASTERDOWN|NOPERM)/.test(message)) this.#interrupt(message);
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
