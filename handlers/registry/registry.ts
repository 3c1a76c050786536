/** What echo and chat share, in memory: the rooms, who is connected, the totals. */
import type { Limits } from "../access/limits.ts";
import type { NoSlot, SharedLimits } from "../access/shared_limits.ts";
import type { Slot } from "../access/slot.ts";
import type { Engine } from "../engine/engine.ts";
import { HookCaller } from "../hooks/caller.ts";
import type { Hooks } from "../hooks/hooks.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { isServerRoom, isSharedRoom } from "../protocol/parse.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import type { Audience } from "./audience.ts";
import { Bans } from "./bans.ts";
import { Counters } from "./counters.ts";
import { drain } from "./drain.ts";
import { Turn } from "./flush.ts";
import { Intake } from "./intake.ts";
import { LoadWatch } from "./load.ts";
import { Room } from "./room.ts";
import type { End, Subscriber } from "./subscriber.ts";

/** What the registry needs from outside. */
export interface RegistryOptions {
  engine: Engine;
  /** Orders the server's own rooms that are of this process alone. */
  localEngine: Engine;
  log: Log;
  clock: Clock;
  limits: Limits;
  /** The limits that other threads count for too. */
  sharedLimits: SharedLimits;
  /** What a program decides of joins and messages. */
  hooks: Hooks;
  turn?: Turn;
}

/** Going, going away, and no code at all: anything else is an error, as for Python's websockets. */
const CLEAN_CODES = new Set([1000, 1001, 1005]);

/** Rooms, clients and totals of one process. */
export class Registry {
  readonly counters: Counters = new Counters();
  /** Rooms with subscribers, by name. */
  readonly rooms: Map<string, Audience> = new Map();
  /** Sockets and event streams that are open. */
  readonly clients: Set<Subscriber> = new Set();
  /** All that hold a slot: open clients, those about to open, and closed ones that the runtime still holds. */
  readonly holders: Set<Subscriber> = new Set();
  readonly turn: Turn;
  readonly log: Log;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly load: LoadWatch;
  readonly intake: Intake = new Intake(this);
  readonly hooks: HookCaller;
  /** Users who were sent away. */
  readonly bans: Bans = new Bans(this);
  isDraining = false;
  /** Slots of this thread: sockets and streams that the runtime still holds, evicted ones included. */
  heldCount = 0;
  /** Bytes that one client may have unsent now; see {@link guardQueues}. */
  queueLimit: number;
  /** The process uses more memory than MAX_RSS_MB. */
  isOverMemory = false;
  readonly #engine: Engine;
  readonly #localEngine: Engine;
  readonly #idPrefix = crypto.randomUUID().slice(0, 8);
  #lastId = 0;
  readonly sharedLimits: SharedLimits;
  #released?: PromiseWithResolvers<void>;

  constructor(options: RegistryOptions) {
    const { engine, localEngine, log, clock, limits, sharedLimits, hooks, turn } = options;
    this.#engine = engine;
    this.#localEngine = localEngine;
    this.log = log;
    this.clock = clock;
    this.load = new LoadWatch(clock, limits.messageRate > 0);
    this.limits = limits;
    this.queueLimit = limits.maxQueueBytes;
    this.sharedLimits = sharedLimits;
    this.hooks = new HookCaller(hooks, this);
    this.turn = turn ?? new Turn();
  }

  /** The room of this name: the way to send to it, to read it and to subscribe. */
  room(name: string): Room {
    return this.rooms.get(name)?.room ?? new Room(name, this.engineOf(name), this);
  }

  closeAudience(audience: Audience): void {
    const { name, engine } = audience.room;
    if (this.rooms.get(name) !== audience) return;
    this.rooms.delete(name);
    engine.release(name);
  }

  engineOf(room: string): Engine {
    return isServerRoom(room) && !isSharedRoom(room) ? this.#localEngine : this.#engine;
  }

  /** Whether the process takes no client more. A peer that was evicted but never reads counts until it is gone. */
  get isFull(): boolean {
    return this.sharedLimits.isFull;
  }

  /** Takes a slot for a client, or returns why there is none. */
  acquire(address: string, user?: string): MaybePromise<Slot | NoSlot> {
    return chain(this.sharedLimits.acquire(address, user), (noSlot) => {
      if (noSlot) return noSlot;
      this.heldCount++;
      let isHeld = true;
      const release = () => {
        if (!isHeld) return;
        isHeld = false;
        this.heldCount--;
        this.sharedLimits.release(address, user);
        if (this.heldCount === 0) this.#released?.resolve();
      };
      return { release };
    });
  }

  allReleased(): Promise<void> {
    if (this.heldCount === 0) return Promise.resolve();
    return (this.#released ??= Promise.withResolvers<void>()).promise;
  }

  /** Closes the engines; nobody waits for a hook any more. */
  async close(): Promise<void> {
    this.load.stop();
    this.hooks.close();
    await Promise.all([this.#engine.close(), this.#localEngine.close()]);
  }

  nextId(): string {
    return `${this.#idPrefix}-${++this.#lastId}`;
  }

  add(client: Subscriber): void {
    const { remote, kind } = client;
    this.clients.add(client);
    this.counters.connections[kind]++;
    this.logClient("connected", `Client connected: ${remote}.`, { remote, kind });
  }

  /** Counts a client out, and says why it went. */
  remove(client: Subscriber, { by, code, reason }: End): void {
    if (!this.clients.delete(client)) return;
    const { remote, kind } = client;
    this.counters.connections[kind]--;
    const isEvicted = by === "server" && code === CLOSE.tooSlow.code;
    const isClean = by !== "error" && CLEAN_CODES.has(code);
    const ended = isClean ? "Client disconnected cleanly" : "Connection closed with error";
    const how = isEvicted ? "Client evicted" : ended;
    const text = `${how}: ${remote}: ${reason || "closed"} (${code}).`;
    this.logClient(isEvicted ? "evicted" : "disconnected", text, { remote, by, code, reason });
  }

  /** Ends a subscriber whose frame could not be sent: it misses a message that the others have. */
  fail(client: Subscriber, error: unknown): void {
    const { remote } = client;
    this.log.error(`Cannot send to ${remote}: ${error}`, { event: "error", remote });
    try {
      client.close("goingAway");
    } catch {
      // The same error again. It is out of its rooms all the same.
    }
  }

  /** Sends everybody away; done when all are gone or DRAIN_SECONDS are over. */
  drain(seconds = this.limits.drainSeconds): Promise<void> {
    this.isDraining = true;
    return drain(this, seconds);
  }

  /** Logs what a client did, with how many there are now. */
  logClient(event: string, text: string, fields: Record<string, unknown>): void {
    const clients = this.clients.size;
    this.log.info(`${text} Total clients: ${clients}`, { event, ...fields, clients });
  }
}
