/** One room of the memory engine. */
import type { Budget } from "./budget.ts";
import { DedupeTable } from "./dedupe.ts";
import type { Host } from "./engine.ts";
import type { Expiry } from "./expiry.ts";
import { History } from "./history.ts";
import type { RoomJournal } from "./journal.ts";
import type { Presence } from "./presence.ts";
import type { RoomLimits } from "./room_rules.ts";
import { type ExpiringKey, type KeptEntry, RoomState } from "./room_state.ts";

/** Rooms that are counted together. */
export interface RoomGroup {
  /** Of whoever opened them; missing for the group of all rooms. */
  readonly address?: string;
  /** How many of them there are. */
  count: number;
  /** Those without a host, the longest-empty first. */
  readonly empty: Set<MemoryRoom>;
}

/** What the engine knows of one room. */
export class MemoryRoom {
  readonly history: History;
  readonly ids: DedupeTable;
  /** There only once a key was set. */
  state?: RoomState;
  /** Who has joined; there only once somebody has. */
  presence?: Presence;
  host?: Host;
  /** The number of the last event of its members; 0 before the first. */
  eventNumber = 0;
  /** Since when nobody hosts it, or when the last message came after that, by {@link Clock.elapsedMs}. */
  emptySince = 0;

  constructor(
    readonly name: string,
    readonly epoch: string,
    readonly limits: Required<RoomLimits>,
    readonly budget: Budget,
    /** Of keys that go by themselves. */
    readonly expiry: Expiry<ExpiringKey>,
    /** Where its changes are written down. */
    readonly journal?: RoomJournal,
    /** All rooms of the address that opened it. */
    readonly opener?: RoomGroup,
  ) {
    this.history = new History(limits, budget, journal);
    this.ids = new DedupeTable(budget, journal);
  }

  get hasBegun(): boolean {
    return this.history.seq > 0 || (this.state?.map.rev ?? 0) > 0;
  }

  openState(): RoomState {
    const { name, limits, budget, expiry, journal } = this;
    return this.state ??= new RoomState(name, limits, budget, expiry, journal);
  }

  /** Removes keys that go by themselves, and tells the host. */
  removeKeys(entries: KeptEntry[] = []): void {
    for (const entry of entries) {
      const removal = this.state!.remove(entry, this.expiry.clock.now());
      this.host?.deliver({ type: "set", entry: removal });
    }
  }

  clear(): void {
    this.state?.clear();
    this.history.clear();
    this.ids.clear();
    this.journal?.delete(this.journal.row);
  }
}

/** A random name for a history that starts anew. */
export function newEpoch(): string {
  return crypto.randomUUID().slice(0, 8);
}
