/**
 * The durable engine: the memory engine, and a file that has everything it keeps.
 *
 * The memory engine decides at once. What changed is committed to the file, and nobody is answered
 * or hears of anything before: what was seen or acked survives the end of the process.
 */
import type { Span } from "../protocol/page.ts";
import { EVENTS_ROOM } from "../protocol/parse.ts";
import type { Cursor, Head, StateCursor } from "../protocol/position.ts";
import type { Members, RoomEvent, StateSpan, Transient } from "../protocol/room_event.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import { OptionError } from "../util/option_error.ts";
import { Committer } from "./committer.ts";
import type { Change, Draft, Engine, EngineStats, Host, Outcome, Refusal } from "./engine.ts";
import { isRefusal, UNAVAILABLE } from "./engine.ts";
import { HostGate } from "./host_gate.ts";
import { leftBehind } from "./member_events.ts";
import { MemoryEngine } from "./memory.ts";
import { MemoryRooms } from "./memory_rooms.ts";
import { restoreInto } from "./restore.ts";
import type { HistoryLimits } from "./room_rules.ts";
import type { TakeEntry } from "./sqlite.ts";
import { openStore, type Store } from "./store.ts";

/** What may wait for a commit; beyond it all is `unavailable`. */
const MAX_WAITING_BYTES = 64_000_000;
/** What an answer or an event is counted with beside its text. */
const EFFECT_BYTES = 300;

/**
 * Makes the durable engine over a file, with everything that the file has.
 *
 * @param open opens the store in the file, and gives `take` what it has
 * @throws {OptionError} if the file cannot be used, or another process uses it
 */
export async function createDurableEngine(
  file: string,
  limits: HistoryLimits,
  clock: Clock,
  log: Log,
  open: (file: string, take: TakeEntry) => Promise<Store> = openStore,
): Promise<Engine> {
  const committer = new Committer(clock, log);
  const rooms = new MemoryRooms(limits, clock, committer);
  try {
    const store = await open(file, restoreInto(rooms, committer));
    rooms.restored();
    committer.start(store);
  } catch (error) {
    throw new OptionError("file", `${(error as Error).message}, ${file}`);
  }
  const memory = new MemoryEngine(rooms, clock);
  // Members are not kept: whom the restart took has left.
  const { changes, lastNumber } = leftBehind(memory.read(EVENTS_ROOM).chats);
  rooms.lastEventNumber = lastNumber;
  for (const change of changes) memory.tell(change);
  return new DurableEngine(memory, committer);
}

class DurableEngine implements Engine {
  readonly name = "durable";
  /** What the hosts hear events through: behind the commit, and behind the head. */
  #gates = new Map<string, HostGate>();
  #isClosed = false;

  constructor(readonly memory: MemoryEngine, readonly committer: Committer) {}

  host(room: string, host: Host, address?: string): MaybePromise<Head | Refusal> {
    if (this.#isBusy) return UNAVAILABLE;
    const gate = new HostGate(host);
    const head = this.memory.host(room, {
      deliver: (event) => this.#deliver(gate, event),
      get listenerCount() {
        return host.listenerCount;
      },
    }, address);
    if (isRefusal(head)) return head;
    this.#gates.get(room)?.close();
    this.#gates.set(room, gate);
    return chain(this.#answer<Head | Refusal>(head), (answer) => {
      if (!isRefusal(answer)) gate.open();
      else if (this.#gates.get(room) === gate) this.release(room);
      return answer;
    });
  }

  release(room: string): void {
    this.#gates.get(room)?.close();
    this.#gates.delete(room);
    this.memory.release(room);
  }

  publish(room: string, draft: Draft): MaybePromise<Outcome> {
    if (this.#isBusy) return UNAVAILABLE;
    return this.#answer(this.memory.publish(room, draft), 2 * draft.message.length);
  }

  set(room: string, change: Change): MaybePromise<StateCursor | Refusal> {
    if (this.#isBusy) return UNAVAILABLE;
    return this.#answer(this.memory.set(room, change), 2 * change.value.length);
  }

  state(room: string, since?: StateCursor): MaybePromise<StateSpan | Refusal> {
    return this.#isBusy ? UNAVAILABLE : this.#answer(this.memory.state(room, since));
  }

  relay(room: string, event: Transient): void {
    // What is not kept doesn't wait for a store that fails: nothing would bound it.
    if (!this.#isBusy) this.memory.relay(room, event);
  }

  join(
    room: string,
    member: string,
    name: string,
    user?: string,
  ): MaybePromise<Refusal | undefined> {
    if (this.#isBusy) return UNAVAILABLE;
    const was = this.memory.memory.get(room)?.presence?.nameOf(member);
    return chain(this.#answer(this.memory.join(room, member, name, user)), (refusal) => {
      if (refusal && was === undefined) this.memory.leave(room, member);
      else if (refusal) this.memory.join(room, member, was!, user);
      return refusal;
    });
  }

  leave(room: string, member: string): void {
    this.memory.leave(room, member);
  }

  members(room: string): MaybePromise<Members | Refusal> {
    return this.#isBusy ? UNAVAILABLE : this.#answer(this.memory.members(room));
  }

  read(room: string, after?: Cursor): MaybePromise<Span | Refusal> {
    return this.#isBusy ? UNAVAILABLE : this.#answer(this.memory.read(room, after));
  }

  rooms(after: string, limit: number): ReturnType<Engine["rooms"]> {
    return this.#isBusy ? UNAVAILABLE : this.#answer(this.memory.rooms(after, limit));
  }

  isReady(): boolean {
    return !this.#isClosed && !this.committer.isFailing;
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

  get #isBusy(): boolean {
    return !this.isReady() || this.committer.waitingBytes > MAX_WAITING_BYTES;
  }

  /** The value, once everything is committed that it may tell of; `unavailable` if that fails. */
  #answer<T>(value: T, bytes = 0): MaybePromise<T | Refusal> {
    if (this.committer.isSettled) return value;
    return new Promise((resolve) =>
      this.committer.after({
        run: () => resolve(value),
        refuse: () => resolve(UNAVAILABLE),
        bytes: EFFECT_BYTES + bytes,
      })
    );
  }

  #deliver(gate: HostGate, event: RoomEvent): void {
    let bytes = EFFECT_BYTES;
    if (event.type === "binary") bytes += event.bytes.length;
    if (event.type === "note") bytes += 2 * event.note.message.length;
    this.committer.after({ run: () => gate.deliver(event), bytes });
  }
}
