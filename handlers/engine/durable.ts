/**
 * The durable engine: the memory engine, and a file that has everything it keeps.
 *
 * The memory engine decides at once. What changed is committed to the file, and nobody is answered
 * or hears of anything before: what was seen or acked survives the end of the process.
 *
 * @module
 */
import type { Span } from "../protocol/page.ts";
import type { Cursor, Head } from "../protocol/position.ts";
import type { Members, RoomEvent, RoomSummary, Transient } from "../protocol/room_event.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import { Committer } from "./committer.ts";
import {
  type Draft,
  type Engine,
  type EngineStats,
  type Host,
  isRefusal,
  type Outcome,
  type Refusal,
} from "./engine.ts";
import { MemoryEngine } from "./memory.ts";
import { HostGate } from "./host_gate.ts";
import { type HistoryLimits, MemoryRooms } from "./memory_rooms.ts";
import { Restorer } from "./restore.ts";
import { openStore, type Store } from "./store.ts";
import type { TakeRows } from "./sqlite.ts";

/** What may wait for a commit; beyond it messages are `unavailable`. */
const MAX_WAITING_BYTES = 64_000_000;
/** What an answer or an event is counted with beside its text. */
const EFFECT_BYTES = 300;

const UNAVAILABLE: Refusal = { refused: "unavailable" };

/** How a store is opened: `take` is given what it has. */
export type OpenStore = (take: TakeRows) => Promise<Store>;

/**
 * Makes the durable engine over a file, with everything that the file has.
 *
 * @throws {Error} if the file cannot be used, or another process uses it
 */
export async function createDurableEngine(
  file: string,
  limits: HistoryLimits,
  clock: Clock,
  log: Log,
): Promise<Engine> {
  try {
    return await openDurableEngine((take) => openStore(file, take), limits, clock, log);
  } catch (error) {
    throw new Error(`Cannot use DATA_FILE ${file}: ${(error as Error).message}`, { cause: error });
  }
}

/** Makes the durable engine over a store. */
export async function openDurableEngine(
  open: OpenStore,
  limits: HistoryLimits,
  clock: Clock,
  log: Log,
): Promise<Engine> {
  const committer = new Committer(clock, log);
  const rooms = new MemoryRooms(limits, clock, committer);
  const restorer = new Restorer(rooms, committer, clock.now());
  const store = await open((table, values) => restorer.take(table, values));
  committer.lastRow = restorer.lastRow;
  restorer.end();
  committer.start(store);
  return new DurableEngine(new MemoryEngine(rooms, clock), committer);
}

class DurableEngine implements Engine {
  readonly name = "durable";
  /** What the hosts hear events through: behind the commit, and behind the head. */
  #gates = new Map<string, HostGate>();
  #isClosed = false;

  constructor(readonly memory: MemoryEngine, readonly committer: Committer) {}

  host(room: string, host: Host, address?: string): MaybePromise<Head | Refusal> {
    if (!this.#isOpen) return UNAVAILABLE;
    const gate = new HostGate(host);
    const deliver = (event: RoomEvent) => this.#deliver(gate, event);
    const head = this.memory.host(room, {
      deliver,
      get listenerCount() {
        return host.listenerCount;
      },
    }, address);
    if (isRefusal(head)) return head;
    this.#gates.get(room)?.close();
    this.#gates.set(room, gate);
    if (this.committer.isSettled) gate.open();
    return this.#answer<Head | Refusal>(head, {
      onDone: () => gate.open(),
      onRefused: () => {
        if (this.#gates.get(room) === gate) this.release(room);
      },
    });
  }

  release(room: string): void {
    this.#gates.get(room)?.close();
    this.#gates.delete(room);
    this.memory.release(room);
  }

  publish(room: string, draft: Draft): MaybePromise<Outcome> {
    if (!this.#isOpen || this.#isFull) return UNAVAILABLE;
    const outcome = this.memory.publish(room, draft);
    return this.#answer(outcome, { bytes: 2 * draft.message.length });
  }

  relay(room: string, event: Transient): void {
    this.memory.relay(room, event);
  }

  join(room: string, member: string, name: string): MaybePromise<Refusal | undefined> {
    if (!this.#isOpen || this.#isFull) return UNAVAILABLE;
    const was = this.memory.memory.get(room)?.members.get(member);
    const refusal = this.memory.join(room, member, name);
    return this.#answer<Refusal | undefined>(refusal, {
      onRefused: () => {
        if (was === undefined) this.memory.leave(room, member);
        else this.memory.join(room, member, was);
      },
    });
  }

  leave(room: string, member: string): void {
    this.memory.leave(room, member);
  }

  members(room: string): MaybePromise<Members | Refusal> {
    return this.#isOpen ? this.#answer<Members | Refusal>(this.memory.members(room)) : UNAVAILABLE;
  }

  read(room: string, after?: Cursor): MaybePromise<Span | Refusal> {
    return this.#isOpen ? this.#answer<Span | Refusal>(this.memory.read(room, after)) : UNAVAILABLE;
  }

  rooms(after: string, limit: number): MaybePromise<RoomSummary[]> {
    if (!this.#isOpen) return [];
    const answer = this.#answer<RoomSummary[] | Refusal>(this.memory.rooms(after, limit));
    if (!(answer instanceof Promise)) return isRefusal(answer) ? [] : answer;
    return answer.then((rooms) => isRefusal(rooms) ? [] : rooms);
  }

  isReady(): boolean {
    return this.#isOpen;
  }

  stats(): EngineStats {
    return this.memory.stats();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.committer.close();
    await this.memory.close();
  }

  get #isOpen(): boolean {
    return !this.#isClosed && !this.committer.isFailing;
  }

  get #isFull(): boolean {
    return this.committer.waitingBytes > MAX_WAITING_BYTES;
  }

  /** The value, once everything is committed that it may tell of; `unavailable` if that fails. */
  #answer<T>(
    value: T,
    { bytes = 0, onDone, onRefused }: {
      bytes?: number;
      onDone?(): void;
      onRefused?(): void;
    } = {},
  ): MaybePromise<T | Refusal> {
    if (this.committer.isSettled) return value;
    return new Promise((resolve) =>
      this.committer.after({
        run() {
          resolve(value);
          onDone?.();
        },
        refuse() {
          resolve(UNAVAILABLE);
          onRefused?.();
        },
        bytes: EFFECT_BYTES + bytes,
      })
    );
  }

  /** What is not kept doesn't wait while the store fails: nothing would bound them. */
  #deliver(gate: HostGate, event: RoomEvent): void {
    const size = event.type === "binary"
      ? event.bytes.length
      : event.type === "note"
      ? 2 * event.note.message.length
      : undefined;
    if (size !== undefined && (this.#isFull || !this.#isOpen)) return;
    const bytes = EFFECT_BYTES + (size ?? 0);
    this.committer.after({ run: () => gate.deliver(event), bytes });
  }
}
