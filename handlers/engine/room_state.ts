/** The state of one room of the memory engine: its keys, what they cost, and when they go. */
import type { Entry } from "../protocol/room_event.ts";
import { byteLength } from "../util/bytes.ts";
import type { Budget } from "./budget.ts";
import type { Change } from "./engine.ts";
import type { Expiry } from "./expiry.ts";
import type { RoomJournal } from "./journal.ts";
import type { RoomLimits } from "./room_rules.ts";
import { REMOVED, StateMap } from "./state_map.ts";

/** An entry, and what the engine alone knows of it. */
export interface KeptEntry extends Entry {
  /** Bytes of it, encoded. */
  bytes: number;
  /** When it goes by itself, Unix ms. */
  expiresAt?: number;
  /** With whose end it goes. */
  member?: string;
  /** Whose share it uses. */
  owner?: string;
  /** The number of its row, where there is a journal. */
  row?: number;
}

/** A key that goes by itself. */
export type ExpiringKey = { state: RoomState; entry: KeptEntry };

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
    /** Of the room. */
    readonly name: string,
    readonly limits: Required<RoomLimits>,
    readonly budget: Budget,
    readonly expiry: Expiry<ExpiringKey>,
    readonly journal?: RoomJournal,
  ) {}

  draft({ key, value, sender, ttlSeconds, member, owner }: Change, time: number): KeptEntry {
    const bytes = encodedBytes(key, value, sender);
    const entry: KeptEntry = { key, value, sender, time, rev: this.map.rev + 1, bytes };
    if (owner !== undefined) entry.owner = owner;
    if (value !== REMOVED && member !== undefined) entry.member = member;
    if (value !== REMOVED && ttlSeconds !== undefined) entry.expiresAt = time + 1_000 * ttlSeconds;
    return entry;
  }

  /** Whether an entry fits: into the room, into all state, and into its owner's share. */
  hasSpace(entry: KeptEntry): boolean {
    if (entry.value === REMOVED) return true;
    const { maxKeys, maxStateBytes } = this.limits;
    const known = this.get(entry.key);
    if (!known && this.map.size >= maxKeys) return false;
    const added = entry.bytes - (known?.bytes ?? 0);
    if (added > 0 && this.#encodedBytes + added > maxStateBytes) return false;
    // What another owner had set is this one's from now on.
    const freed = known?.owner === entry.owner && known ? costOf(known) : 0;
    const bytes = costOf(entry) - freed;
    return bytes <= 0 || this.budget.hasSpaceForState(bytes, entry.owner);
  }

  get(key: string): KeptEntry | undefined {
    return this.map.get(key) as KeptEntry | undefined;
  }

  /** Removes a key by itself, in the name of whoever had set it. */
  remove({ key, sender, owner }: KeptEntry, time: number): KeptEntry {
    return this.put(this.draft({ key, value: REMOVED, sender, owner }, time));
  }

  /** The keys whose time is over though the timer is not there yet: nobody may read them. */
  overdue(now: number): KeptEntry[] {
    const isOver = ({ state, entry: { expiresAt = Infinity } }: ExpiringKey) =>
      state === this && expiresAt <= now;
    return this.expiry.next(now).filter(isOver).map(({ entry }) => entry);
  }

  boundTo(member: string): KeptEntry[] {
    return [...this.#bound.get(member) ?? []].map((key) => this.get(key)!);
  }

  /** Takes an entry, also one that was kept before; the answer is what hosts are told. */
  put(entry: KeptEntry): KeptEntry {
    const known = this.get(entry.key);
    if (known) this.#release(known);
    if (this.journal) entry.row ??= this.journal.addKey(entry);
    this.#forget(this.map.apply(entry));
    const oldest = this.map.trim();
    this.#forget(oldest);
    if (oldest) this.journal?.putForgotten(this.map.forgottenRev);
    this.#count(entry, 1);
    const { key, value, member, expiresAt, bytes } = entry;
    if (value === REMOVED) return entry;
    this.#encodedBytes += bytes;
    if (member !== undefined) {
      this.#bound.set(member, (this.#bound.get(member) ?? new Set()).add(key));
    }
    if (expiresAt === undefined) return entry;
    const expiring = { state: this, entry };
    this.#expiring.set(entry, expiring);
    this.expiry.add(expiring, expiresAt);
    return entry;
  }

  clear(): void {
    for (const entry of this.map.entries()) this.#release(entry as KeptEntry);
    for (const entry of this.map.known()) this.#forget(entry);
  }

  #release(entry: KeptEntry): void {
    const { key, member, expiresAt, bytes } = entry;
    this.#encodedBytes -= bytes;
    if (member !== undefined) {
      const keys = this.#bound.get(member);
      keys?.delete(key);
      if (keys?.size === 0) this.#bound.delete(member);
    }
    if (expiresAt === undefined) return;
    this.expiry.delete(this.#expiring.get(entry)!, expiresAt);
    this.#expiring.delete(entry);
  }

  #forget(entry?: Omit<KeptEntry, "bytes">): void {
    if (!entry) return;
    this.#count(entry, -1);
    if (entry.row !== undefined) this.journal?.delete(entry.row);
  }

  #count(entry: Omit<KeptEntry, "bytes">, sign: 1 | -1): void {
    this.budget.state.count(sign * costOf(entry), entry.owner);
  }
}

/** The bytes of an entry, encoded. */
export function encodedBytes(key: string, value: string, sender: string): number {
  return key.length + byteLength(value) + byteLength(sender) + ENCODED_BYTES;
}

/** Its texts, in V8's wide form at worst, and its place in the maps. */
function costOf({ key, value, sender }: Pick<Entry, "key" | "value" | "sender">): number {
  return 2 * (key.length + value.length + sender.length) + MEMORY_BYTES;
}
