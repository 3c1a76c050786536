/**
 * One connection to Redis, reopened whenever it is lost. Commands and channels share it, so that
 * answers and events come in the order in which Redis made them.
 */
import type { Buffer } from "node:buffer";
import type { createClient, RedisClientType } from "@redis/client";
import type { Clock } from "../../util/clock.ts";
import type { Log } from "../../util/log.ts";
import type { RemoteStats } from "../engine.ts";
import { PendingCommands } from "./pending.ts";
import { inspect, type RedisProcess } from "./process.ts";
import { loadScripts, type RunScript } from "./run_script.ts";

/** Time limits for the TCP connection, and for everything until the connection is usable. */
const CONNECT_MS = { tcp: 1_500, all: 2_000 };
const BACKOFF_MS = { first: 50, last: 1_000 };
/** How often the connection is checked and old commands time out. */
const TICK_MS = 200;
/** The server's settings and role are read again every 5 s. */
const INSPECT_TICKS = 25;

/** No other answer is the same. */
const ECHO = "in step";
const OUT_OF_STEP = "answers are out of step with commands";

/** What a connection needs, and what it calls. */
export interface ConnectionOptions {
  createClient: typeof createClient;
  clock: Clock;
  log: Log;
  /** Finds the URL to connect to, before each attempt. */
  findUrl: () => string | Promise<string>;
  /** What it counts into. */
  stats: RemoteStats;
  /** The connection is usable. What this sends goes before everything else. */
  onConnect(connection: RedisConnection, isSameServer: boolean): void;
  /** A channel brought something. */
  onPush(connection: RedisConnection, payload: Buffer, channel: Buffer): void;
  /** In a cluster: another server has this slot. */
  onMoved(slot: number, address: string): void;
  /** The server refused or dropped the subscription to a channel. */
  onUnsubscribed(channel: string): void;
}

/** Keeps a connection to Redis. No method throws or rejects. */
export class RedisConnection {
  /** The server, or the last one if the connection is lost. */
  server: RedisProcess = { runId: "", isDurable: false, clientId: "" };
  readonly #attempted = Promise.withResolvers<void>();
  /** Settles when the first attempt to connect has succeeded or failed. */
  readonly firstAttempt = this.#attempted.promise;
  /** Host and port of the last attempt. */
  #address = "";
  /** The last pause between two attempts; 0 once one succeeds. */
  #backoffMs = 0;
  #client?: RedisClientType;
  #shas = new Map<string, string>();
  readonly #pending = new PendingCommands();
  #tick = 0;
  #lastWarningTick = -1;
  #isClosed = false;
  /** Ends the attempt, the connection, or the pause before the next attempt. */
  #interrupt: (reason: string) => void = () => {};
  #stopTicks: () => void;
  #ended: Promise<void>;

  constructor(readonly options: ConnectionOptions) {
    this.#stopTicks = options.clock.every(TICK_MS, () => this.#onTick());
    this.#ended = this.#run();
  }

  get isConnected(): boolean {
    return this.#client !== undefined;
  }

  /**
   * Sends a command. Commands keep the order of the calls; those of one turn are sent together. The
   * answer is `undefined` if none came in time or Redis refused: the outcome is then unknown.
   * @param hasTimeout `false` waits for the answer as long as the connection lasts
   */
  send(command: (string | Buffer)[], hasTimeout = true): Promise<unknown> {
    const client = this.#client;
    let bytes = 0;
    for (const argument of command) bytes += argument.length;
    const hasSpace = !hasTimeout || this.#pending.hasSpace(bytes);
    if (!client || !hasSpace) return Promise.resolve(undefined);
    this.options.stats.commands++;
    return this.#pending.add(client.sendCommand(command), bytes, hasTimeout, {
      accept: (answer) => {
        if (answer === undefined) this.#interrupt(OUT_OF_STEP);
        return client === this.#client ? answer : undefined;
      },
      onError: (error) => this.#onErrorAnswer(client, error),
    });
  }

  /** Runs a script, like {@link send}; `args` follow the server's run id and whether it is durable. */
  readonly run: RunScript = (script, keys, args, hasTimeout) => {
    const { runId, isDurable } = this.server;
    const command = ["EVALSHA", this.#shas.get(script) ?? "", `${keys.length}`, ...keys];
    command.push(runId, isDurable ? "1" : "0");
    for (const argument of args) command.push(`${argument}`);
    return this.send(command, hasTimeout);
  };

  subscribe(channels: string[]): void {
    const client = this.#client;
    client?.sSubscribe(channels, this.#onPush, true).catch((error: Error) => {
      this.#onErrorAnswer(client, error);
      if (client === this.#client) channels.forEach(this.options.onUnsubscribed);
    });
    this.#checkStep();
  }

  unsubscribe(channel: string): void {
    this.#client?.sUnsubscribe(channel, this.#onPush, true).catch(() => {});
    this.#checkStep();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#stopTicks();
    this.#interrupt("closed");
    await this.#ended;
  }

  #onPush = (payload: Buffer, channel: Buffer) => this.options.onPush(this, payload, channel);

  async #run(): Promise<void> {
    const { log, clock } = this.options;
    while (!this.#isClosed) {
      const reason = await this.#connect().catch(reasonOf);
      this.#attempted.resolve();
      if (this.#isClosed) return;
      const redis = this.#address;
      if (this.#backoffMs === 0) log.error(`Cannot reach Redis at ${redis}: ${reason}`, { redis });
      this.#backoffMs = Math.min(BACKOFF_MS.last, this.#backoffMs * 2 || BACKOFF_MS.first);
      await new Promise<void>((resolve) => {
        const cancel = clock.after(this.#backoffMs * (0.5 + Math.random() / 2), resolve);
        this.#interrupt = () => resolve(cancel());
      });
    }
  }

  /** One connection from beginning to end; returns why it ended. */
  async #connect(): Promise<string> {
    const { createClient, clock, log, findUrl, onUnsubscribed, stats } = this.options;
    const url = await findUrl();
    const redis = this.#address = new URL(url).host;
    const client = createClient({
      url,
      RESP: 3,
      disableOfflineQueue: true,
      // Old commands are timed out here, all of a tick at once; the library would set a timer for each.
      commandOptions: { timeout: 0 },
      socket: { reconnectStrategy: false, connectTimeout: CONNECT_MS.tcp },
    });
    const { promise, resolve } = Promise.withResolvers<string>();
    const interrupt = this.#interrupt = (reason) => {
      if (this.#client === client) this.#client = undefined;
      resolve(reason);
      client.destroy();
    };
    client.on("error", (error: Error) => interrupt(error.message));
    client.on("sharded-channel-moved", (channel: string) => onUnsubscribed(channel));
    const cancel = clock.after(CONNECT_MS.all, () => interrupt("no answer"));
    try {
      await client.connect();
      const server = await inspect(client);
      const isSameServer = server.runId === this.server.runId;
      // Our last connection may still live there.
      const last = ["CLIENT", "KILL", "ID", this.server.clientId];
      if (isSameServer) await client.sendCommand(last).catch(() => {});
      this.#shas = await loadScripts(client);
      if (client.isReady && !this.#isClosed) {
        this.#client = client;
        if (this.server.runId) stats.reconnects++;
        this.server = server;
        if (this.#backoffMs > 0) log.info(`Redis is back at ${redis}`, { redis });
        this.#backoffMs = 0;
        this.#attempted.resolve();
        this.options.onConnect(this, isSameServer);
      }
    } catch (error) {
      interrupt(reasonOf(error));
    }
    cancel();
    return await promise;
  }

  /**
   * Asks for an answer that cannot be mistaken. When a slot moves, the server ends subscriptions by itself; the
   * library takes that for the answer to what waits, a subscription above all, and that one's own answer
   * for the answer to the next command, and so on. Then this connection ends before any of them counts.
   */
  #checkStep(): void {
    const client = this.#client;
    const check = (answer: unknown) => {
      if (client === this.#client && answer !== ECHO) this.#interrupt(OUT_OF_STEP);
    };
    // At once, with nothing in between that would let the next answer be quicker.
    client?.sendCommand(["ECHO", ECHO]).then(check, check);
  }

  /** Times out old commands, and the connection if it is silent. */
  #onTick(): void {
    this.#tick++;
    const hasAnswered = this.#pending.tick();
    if (this.#client && !hasAnswered) this.#interrupt("no answer");
    if (this.#client && this.#tick % INSPECT_TICKS === 0) this.#inspectAgain(this.#client);
    this.#ping();
  }

  async #ping(): Promise<void> {
    const start = performance.now();
    if (await this.send(["PING"]) !== "PONG") return;
    this.options.stats.roundTrips++;
    this.options.stats.roundTripSeconds += (performance.now() - start) / 1_000;
  }

  async #inspectAgain(client: RedisClientType): Promise<void> {
    const server = await inspect(client).catch(reasonOf);
    if (client !== this.#client) return;
    if (typeof server === "string") this.#interrupt(server);
    else this.server = server;
  }

  #onErrorAnswer(client: RedisClientType, { message }: Error): void {
    if (client !== this.#client) return;
    if (this.#lastWarningTick !== this.#tick) this.options.log.warn(`Redis refused: ${message}`);
    this.#lastWarningTick = this.#tick;
    const [, slot, address] = /^MOVED (\d+) (\S+)/.exec(message) ?? [];
    if (address) this.options.onMoved(Number(slot), address);
    if (/^(NOSCRIPT|READONLY|LOADING|MASTERDOWN|NOPERM)/.test(message)) this.#interrupt(message);
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
