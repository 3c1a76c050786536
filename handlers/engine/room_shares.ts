/** MAX_ROOMS, shared out among those who open rooms. */
import { isServerRoom } from "../protocol/parse.ts";
import type { Clock } from "../util/clock.ts";
import type { MemoryRoom, RoomGroup } from "./memory_room.ts";

/** Counts rooms by who opened them, so that no address can use up all, and picks those that must go. */
export class RoomShares {
  readonly #all: RoomGroup = { count: 0, empty: new Set() };
  readonly #openers = new Map<string | undefined, RoomGroup>();

  /** @param drop called with an empty room that must go, has to {@link remove} it */
  constructor(
    readonly maxRooms: number,
    readonly clock: Clock,
    readonly drop: (room: MemoryRoom) => void,
  ) {}

  get isFull(): boolean {
    return this.#all.count >= this.maxRooms && !this.#findDroppable(this.#all);
  }

  /** Rooms without a host, the longest-empty first. */
  get empty(): Iterable<MemoryRoom> {
    return this.#all.empty;
  }

  /** The group of an address, for the room that it opens next. */
  openedBy(address?: string): RoomGroup | undefined {
    if (address === undefined) return undefined;
    return this.#openers.get(address) ?? { address, count: 0, empty: new Set() };
  }

  add(room: MemoryRoom): void {
    for (const group of this.#groupsOf(room)) group.count++;
    if (room.opener) this.#openers.set(room.opener.address, room.opener);
    this.setEmpty(room, true);
  }

  remove(room: MemoryRoom): void {
    this.setEmpty(room, false);
    for (const group of this.#groupsOf(room)) group.count--;
    if (room.opener?.count === 0) this.#openers.delete(room.opener.address);
  }

  /** Takes a room as one without a host, from now on the one that was empty for the shortest time, or not. */
  setEmpty(room: MemoryRoom, isEmpty: boolean): void {
    if (isEmpty) room.emptySince = this.clock.elapsedMs();
    for (const { empty } of this.#groupsOf(room)) {
      empty.delete(room);
      if (isEmpty) empty.add(room);
    }
  }

  /** Drops an empty room if there must be one; tells whether one more room may be added. */
  makeSpace(address?: string): boolean {
    const opener = this.#openers.get(address);
    if (opener && opener.count >= this.#shareOf(opener)) return this.#dropOneOf(opener);
    return this.#all.count < this.maxRooms || this.#dropOneOf(this.#all);
  }

  trim(): void {
    while (this.#all.count > this.maxRooms && this.#dropOneOf(this.#all));
  }

  clear(): void {
    this.#all.count = 0;
    this.#all.empty.clear();
    this.#openers.clear();
  }

  #groupsOf({ opener }: MemoryRoom): RoomGroup[] {
    return opener ? [this.#all, opener] : [this.#all];
  }

  /** How many rooms an address may have opened: half of those that no other address has hosts in. */
  #shareOf({ count, empty }: RoomGroup): number {
    const hostedByOthers = this.#all.count - this.#all.empty.size - (count - empty.size);
    return Math.ceil((this.maxRooms - hostedByOthers) / 2);
  }

  #dropOneOf(group: RoomGroup): boolean {
    const room = this.#findDroppable(group);
    if (room) this.drop(room);
    return room !== undefined;
  }

  /** The longest-empty room, but none that must know an idempotency key, and none of the server's own. */
  #findDroppable({ empty }: RoomGroup): MemoryRoom | undefined {
    const now = this.clock.now();
    return empty.values().find(({ ids, name }) => ids.pinnedUntil <= now && !isServerRoom(name));
  }
}
