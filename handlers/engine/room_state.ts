/** The state of one room of the memory engine: its keys, what they cost, and when they go. */
import type { Entry } from "../protocol/room_event.ts";
import { byteLength } from "../util/bytes.ts";
import type { Budget } from "./budget.ts";
import type { Change } from "./engine.ts";
import type { Expiry } from "./expiry.ts";
import type { RoomJournal } from "./journal.ts";
import { REMOVED, StateMap } from "./state_map.ts";

/** An entry, and what the engine alone knows of it. */
export interface KeptEntry extends Entry {
  /** When it goes by itself, Unix ms. */ expiresAt?: number;
  /** With whose end it goes. */ member?: string;
  /** Whose share it uses. */ owner?: string;
  /** The number of its row, where there is a journal. */ row?: number;
}

/** A key that goes by itself. */
export interface ExpiringKey {
  state: RoomState;
  entry: KeptEntry;
}

/** How much state a room has at most. */
export interface StateLimits {
  /** Keys. */ maxKeys: number;
  /** Bytes of its keys, encoded. */ maxStateBytes: number;
}

/** What an entry has beside its key, value and sender: encoded, and in memory. */
const ENCODED_BYTES = 60;
const MEMORY_BYTES = 300;

/** A room's state. Whoever changes it tells the room's host of the entry. */
export class RoomState {
  readonly map = new StateMap();
  /** Of the keys that are there, encoded. */
  #encodedBytes = 0;
  #bound = new Map<string, Set<string>>();
  readonly #expiring = new Map<KeptEntry, ExpiringKey>();

  constructor(
    /** Of the room. */ readonly name: string,
    readonly limits: StateLimits,
    readonly budget: Budget,
    readonly expiry: Expiry<ExpiringKey>,
    readonly journal?: RoomJournal,
  ) {}

  /** Whether a change fits: into the room, into all state, and into its owner's share. */
  hasSpace(change: Change): boolean {
    if (change.value === REMOVED) return true;
    const { maxKeys, maxStateBytes } = this.limits;
    const known = this.map.get(change.key) as KeptEntry | undefined;
    const isNew = known === undefined;
    if (isNew && this.map.size >= maxKeys) return false;
    const added = encodedBytes(change) - (isNew ? 0 : encodedBytes(known));
    if (added > 0 && this.#encodedBytes + added > maxStateBytes) return false;
    // What another owner had set is this one's from now on.
    const freed = known?.owner === change.owner && known ? costOf(known) : 0;
    const bytes = costOf(change) - freed;
    return bytes <= 0 || this.budget.state.hasSpace(bytes, change.owner);
  }

  /** Makes a change; the answer is what hosts are told. */
  change({ key, value, sender, ttlSeconds, member, owner }: Change, time: number): KeptEntry {
    const entry: KeptEntry = { key, value, sender, time, rev: this.map.rev + 1 };
    if (owner !== undefined) entry.owner = owner;
    if (value !== REMOVED && member !== undefined) entry.member = member;
    if (value !== REMOVED && ttlSeconds !== undefined) entry.expiresAt = time + 1_000 * ttlSeconds;
    this.put(entry);
    return entry;
  }

  /** Removes a key by itself, in the name of whoever had set it. */
  remove({ key, sender, owner }: KeptEntry, time: number): KeptEntry {
    return this.change({ key, value: REMOVED, sender, owner }, time);
  }

  /** The keys, or this key, whose time is over though the timer is not there yet: nobody may read them. */
  overdue(now: number, key?: string): KeptEntry[] {
    const known = key === undefined ? undefined : this.map.get(key) as KeptEntry | undefined;
    const asked = key === undefined ? [...this.#expiring.keys()] : known ? [known] : [];
    return asked.filter(({ expiresAt = Infinity }) => expiresAt <= now);
  }

  /** The keys that go with a member. */
  boundTo(member: string): KeptEntry[] {
    return [...this.#bound.get(member) ?? []].map((key) => this.map.get(key)!);
  }

  /** Takes an entry, also one that was kept before. */
  put(entry: KeptEntry): void {
    const known = this.map.get(entry.key);
    if (known) this.#release(known);
    entry.row ??= this.journal?.addKey(entry);
    const { forgottenRev } = this.map;
    for (const gone of this.map.apply(entry)) this.#forget(gone);
    if (this.map.forgottenRev > forgottenRev) this.journal?.putForgotten(this.map.forgottenRev);
    this.#count(entry, 1);
    if (entry.value === REMOVED) return;
    this.#encodedBytes += encodedBytes(entry);
    const { key, member, expiresAt } = entry;
    if (member !== undefined) {
      this.#bound.set(member, (this.#bound.get(member) ?? new Set()).add(key));
    }
    if (expiresAt !== undefined) {
      const expiring = { state: this, entry };
      this.#expiring.set(entry, expiring);
      this.expiry.add(expiring, expiresAt);
    }
  }

  /** Gives all of its bytes back. */
  clear(): void {
    for (const entry of this.map.entries()) this.#release(entry);
    for (const entry of this.map.known()) this.#forget(entry);
  }

  #release(entry: KeptEntry): void {
    const { key, member, expiresAt } = entry;
    this.#encodedBytes -= encodedBytes(entry);
    if (member !== undefined) {
      const keys = this.#bound.get(member);
      keys?.delete(key);
      if (keys?.size === 0) this.#bound.delete(member);
    }
    const expiring = this.#expiring.get(entry);
    if (!expiring) return;
    this.#expiring.delete(entry);
    this.expiry.delete(expiring, expiresAt!);
  }

  #forget(entry: KeptEntry): void {
    this.#count(entry, -1);
    if (entry.row !== undefined) this.journal?.delete(entry.row);
  }

  #count(entry: KeptEntry, sign: 1 | -1): void {
    this.budget.state.count(sign * costOf(entry), entry.owner);
  }
}

type Texts = Pick<Entry, "key" | "value" | "sender">;

function encodedBytes({ key, value, sender }: Texts): number {
  return key.length + byteLength(value) + byteLength(sender) + ENCODED_BYTES;
}

/** Its texts, in V8's wide form at worst, and its place in the maps. */
function costOf({ key, value, sender }: Texts): number {
  return 2 * (key.length + value.length + sender.length) + MEMORY_BYTES;
}
