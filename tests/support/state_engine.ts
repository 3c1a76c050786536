/**
 * A memory engine whose state a test can see, and whose answers it can hold back.
 *
 * @module
 */
import type { Change, Engine, Host, Refusal } from "../../handlers/engine/engine.ts";
import { MemoryEngine } from "../../handlers/engine/memory.ts";
import { MemoryRooms } from "../../handlers/engine/memory_rooms.ts";
import { REMOVED, StateMap } from "../../handlers/engine/state_map.ts";
import type { Span } from "../../handlers/protocol/page.ts";
import type { Cursor, Head, StateCursor } from "../../handlers/protocol/position.ts";
import type { StateSpan } from "../../handlers/protocol/room_event.ts";
import { DEFAULT_LIMITS } from "../../handlers/access/limits.ts";
import type { Clock } from "../../handlers/util/clock.ts";
import type { MaybePromise } from "../../handlers/util/maybe_promise.ts";

/** The memory engine without its own state. */
interface Ground extends Omit<Engine, "set" | "state" | "host" | "read"> {
  readonly clock: Clock;
  host(name: string, host: Host, address?: string): Head | Refusal;
  read(name: string, after?: Cursor): Span;
}
const Stateless = MemoryEngine as unknown as new (
  ...args: ConstructorParameters<typeof MemoryEngine>
) => Ground;

/** Keeps the state of one room, `ops`. */
export class StateEngine extends Stateless implements Engine {
  readonly map = new StateMap();
  /** Every change that was asked for. */
  readonly changes: Change[] = [];
  /** How often the state was read. */
  reads = 0;
  /** Answers to reads of the state wait for it. */
  gate?: Promise<void>;
  /** Nobody is told of changes. */
  isCut = false;
  #host?: Host;
  /** The room's epoch, once it has begun anew. */
  #epoch?: string;

  constructor(clock: Clock) {
    super(new MemoryRooms(DEFAULT_LIMITS, clock), clock);
  }

  override host(name: string, host: Host, address?: string): Head | Refusal {
    if (name === "ops") this.#host = host;
    const head = super.host(name, host, address);
    return "refused" in head ? head : {
      ...head,
      epoch: this.#epoch ?? head.epoch,
      rev: name === "ops" ? this.map.rev : 0,
    };
  }

  override read(name: string, after?: Cursor): Span {
    const span = super.read(name, after);
    return { ...span, epoch: this.#epoch ?? span.epoch };
  }

  set(_name: string, change: Change): StateCursor | Refusal {
    this.changes.push(change);
    const { key, value, sender } = change;
    const known = this.map.get(key);
    if (change.if !== undefined && change.if !== (known?.rev ?? 0)) {
      return { refused: "rev_conflict", rev: known?.rev ?? 0 };
    }
    const { epoch } = this.read("ops");
    if (value === REMOVED && !known) return { epoch, rev: this.map.rev };
    const entry = { key, value, sender, time: this.clock.now(), rev: this.map.rev + 1 };
    this.map.apply(entry);
    if (!this.isCut) this.#host?.deliver({ type: "set", entry });
    return { epoch, rev: entry.rev };
  }

  state(_name: string, since?: StateCursor): MaybePromise<StateSpan> {
    this.reads++;
    return this.gate ? this.gate.then(() => this.#span(since)) : this.#span(since);
  }

  #span(since?: StateCursor): StateSpan {
    const { map } = this;
    const { epoch } = this.read("ops");
    return since?.epoch === epoch && map.knows(since.rev)
      ? { epoch, rev: map.rev, since: since.rev, entries: map.since(since.rev) }
      : { epoch, rev: map.rev, entries: map.entries() };
  }

  /** Tells that changes were missed. */
  heal(): void {
    this.isCut = false;
    const { epoch, seq } = this.read("ops");
    this.#host?.deliver({ type: "reset", epoch, seq, rev: this.map.rev, members: 0 });
  }

  /** The room begins anew. */
  reset(epoch: string): void {
    this.#epoch = epoch;
    this.map.reset(0, []);
    this.#host?.deliver({ type: "reset", epoch, seq: 0, rev: 0, members: 0 });
  }
}
