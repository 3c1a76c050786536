/**
 * What echo and chat share, in memory: the rooms, who is connected, the totals, the drain.
 *
 * @module
 */
import type { Socket } from "../access/handshake.ts";
import type { Limits } from "../access/limits.ts";
import type { NoSlot, SharedLimits } from "../access/shared_limits.ts";
import type { Slot } from "../access/slot.ts";
import type { Engine } from "../engine/engine.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import type { Dialect } from "../protocol/encode.ts";
import { isServerRoom } from "../protocol/parse.ts";
import { byteLength } from "../util/bytes.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import {
  Connection,
  type ConnectionIdentity,
  type ConnectionOwner,
  type End,
} from "./connection.ts";
import { Counters } from "./counters.ts";
import { Turn } from "./flush.ts";
import { Room } from "./room.ts";

/** Whoever holds a connection: a socket, or a reader of Server-Sent Events. */
export interface Client {
  readonly remote: string;
  readonly unsentBytes: number;
  /** Says when to come back, in ms, where the client can understand it. */
  farewell(retryMs: number): void;
  close(why: keyof typeof CLOSE): void;
}

/** What the registry needs from outside. */
export interface RegistryOptions {
  engine: Engine;
  /** Orders the server's own rooms (`_…`), of this process alone. */
  localEngine: Engine;
  log: Log;
  clock: Clock;
  limits: Limits;
  /** The limits that other threads count for too. */
  sharedLimits: SharedLimits;
  turn?: Turn;
}

const DRAIN_STEP_MS = 50;
/** Going, going away, and no code at all: anything else is an error, as for Python's websockets. */
const CLEAN_CODES = new Set([1000, 1001, 1005]);

/** Rooms, clients and totals of one process. */
export class Registry implements ConnectionOwner {
  readonly counters: Counters = new Counters();
  readonly rooms: Map<string, Room> = new Map<string, Room>();
  readonly clients: Set<Client> = new Set<Client>();
  isDraining = false;
  /** The process uses more memory than MAX_RSS_MB. */
  isOverMemory = false;
  /** Sockets and readers that the runtime still holds, evicted ones included. */
  heldCount = 0;
  #released?: PromiseWithResolvers<void>;
  readonly #options: RegistryOptions;
  readonly limits: RegistryOptions["limits"];
  readonly turn: Turn;
  /** Makes connection ids unique among processes. */
  readonly #idPrefix = crypto.randomUUID().slice(0, 8);
  #lastId = 0;

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.limits = options.limits;
    this.turn = options.turn ?? new Turn();
    if (options.log.debug) this.heard = (connection, data) => this.#logMessage(connection, data);
  }

  /** The room of this name, opened if nobody here hears it yet. It goes with its last listener. */
  room(name: string): Room {
    const known = this.rooms.get(name);
    if (known) return known;
    const engine = this.engineOf(name);
    const room = new Room(name, {
      engine,
      clock: this.#options.clock,
      turn: this.turn,
      counters: this.counters,
      maxQueueBytes: this.#options.limits.maxQueueBytes,
      onEmpty: () => {
        if (this.rooms.get(name) !== room) return;
        this.rooms.delete(name);
        engine.release(name);
      },
    });
    this.rooms.set(name, room);
    return room;
  }

  /** The engine that orders a room. */
  engineOf(room: string): Engine {
    return isServerRoom(room) ? this.#options.localEngine : this.#options.engine;
  }

  /** Whether the process takes no client more. A peer that was evicted but never reads counts until it is gone. */
  get isFull(): boolean {
    return this.#options.sharedLimits.isFull;
  }

  /** Unsent bytes of all sockets. */
  countQueueBytes(): number {
    return this.clients.values().reduce((sum, client) => sum + client.unsentBytes, 0);
  }

  /** Takes a slot for a client, or tells why there is none. The runtime holds the client until its release. */
  acquire(address: string): MaybePromise<Slot | NoSlot> {
    const { sharedLimits } = this.#options;
    return chain(sharedLimits.acquire(address), (noSlot) => {
      if (noSlot) return noSlot;
      this.heldCount++;
      return new HeldSlot(address, this.#release);
    });
  }

  readonly #release = (address: string): void => {
    this.heldCount--;
    this.#options.sharedLimits.release(address);
    if (this.heldCount === 0) this.#released?.resolve();
  };

  /** Done when the runtime holds no client of ours any more. */
  allReleased(): Promise<void> {
    if (this.heldCount === 0) return Promise.resolve();
    return (this.#released ??= Promise.withResolvers<void>()).promise;
  }

  /** Closes the engines. */
  async close(): Promise<void> {
    await Promise.all([this.#options.engine.close(), this.#options.localEngine.close()]);
  }

  /** A name for a member that no other process gives. */
  nextId(): string {
    return `${this.#idPrefix}-${++this.#lastId}`;
  }

  /** Makes a connection of a socket that is opening. Set its handler before the next turn. */
  connect(socket: Socket, identity: Omit<ConnectionIdentity, "id">): Connection {
    return new Connection(socket, this, { ...identity, id: this.nextId() });
  }

  now(): number {
    return this.#options.clock.now();
  }

  /** A socket opened: it is counted in, then its handler begins. */
  opened(connection: Connection): void {
    this.add(connection, countedAs(connection));
    if (this.isDraining) connection.close("goingAway");
    else connection.handler?.ready?.();
  }

  /** A message came; there only where each is logged. */
  readonly heard?: (connection: Connection, data: string | ArrayBuffer) => void;

  /** A connection ended. */
  ended(connection: Connection, end: End): void {
    this.remove(connection, countedAs(connection), end);
  }

  /** The runtime let a socket go. */
  gone({ slot }: Connection): void {
    slot.release();
  }

  /** Counts a client in. */
  add(client: Client, kind: keyof Counters["connections"]): void {
    this.clients.add(client);
    this.counters.connections[kind]++;
    this.#options.log.info(
      `Client connected: ${client.remote}. Total clients: ${this.clients.size}`,
      {
        event: "connected",
        remote: client.remote,
        kind,
        clients: this.clients.size,
      },
    );
  }

  /** Counts a client out, and says why it went. */
  remove(client: Client, kind: keyof Counters["connections"], end: End): void {
    if (!this.clients.delete(client)) return;
    this.counters.connections[kind]--;
    const { remote } = client;
    const { by, code, reason } = end;
    const total = `Total clients: ${this.clients.size}`;
    const isEvicted = by === "server" && code === CLOSE.tooSlow.code;
    const how = isEvicted
      ? "Client evicted"
      : by !== "error" && CLEAN_CODES.has(code)
      ? "Client disconnected cleanly"
      : "Connection closed with error";
    const text = `${how}: ${remote}: ${reason || "closed"} (${code}). ${total}`;
    const event = isEvicted ? "evicted" : "disconnected";
    this.#options.log.info(text, {
      event,
      remote,
      by,
      code,
      reason,
      clients: this.clients.size,
    });
  }

  /**
   * Sends everybody away, spread over DRAIN_SECONDS; done when all are gone or the time is over.
   * Clients that can understand it learn at once when to come back.
   */
  drain(): Promise<void> {
    this.isDraining = true;
    const { clock, limits } = this.#options;
    const drainMs = limits.drainSeconds * 1_000;
    const leaving = [...this.clients];
    for (const client of leaving) {
      client.farewell(Math.round(drainMs + Math.random() * drainMs));
    }
    const start = clock.now();
    let next = 0;
    let elapsedMs = -DRAIN_STEP_MS;
    return new Promise((resolve) => {
      const step = () => {
        // A wall clock that is set back must not make the drain longer.
        elapsedMs = Math.max(elapsedMs + DRAIN_STEP_MS, clock.now() - start);
        const share = drainMs === 0 ? 1 : Math.min(1, elapsedMs / drainMs);
        // Who goes gets what was due.
        this.turn.flush();
        while (next < leaving.length && next < share * leaving.length) {
          leaving[next++].close("goingAway");
        }
        if (this.clients.size > 0 && share < 1) return;
        stop();
        for (const client of [...this.clients]) client.close("goingAway");
        resolve();
      };
      const stop = clock.every(DRAIN_STEP_MS, step);
      step();
    });
  }

  #logMessage({ remote }: Connection, data: string | ArrayBuffer): void {
    const isText = typeof data === "string";
    const size = isText ? byteLength(data) : data.byteLength;
    const text = `Client sent: ${remote}: ${isText ? "text" : "binary"} of ${size} bytes`;
    this.#options.log.debug?.(text, { event: "message", remote, isText, size });
  }
}

/** A slot of one address. */
class HeldSlot implements Slot {
  #isHeld = true;

  constructor(readonly address: string, readonly onRelease: (address: string) => void) {}

  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.onRelease(this.address);
  }
}

function countedAs({ kind, dialect }: Connection): "echo" | Dialect {
  return kind === "echo" ? kind : dialect;
}
