/**
 * The places of those who are connected: what MAX_CONNECTIONS and MAX_CONNECTIONS_PER_IP count.
 *
 * @module
 */

/** One place, from admission until the runtime holds nothing of its owner any more. */
export class Slot {
  #slots?: Slots;

  constructor(slots: Slots, readonly address: string) {
    this.#slots = slots;
  }

  /** Gives the place back. Only the first call does something. */
  release(): void {
    this.#slots?.giveBack(this.address);
    this.#slots = undefined;
  }
}

/** All places that are taken. */
export class Slots {
  /** How many there are. */
  count = 0;
  #byAddress = new Map<string, number>();
  #empty?: PromiseWithResolvers<void>;

  /** How many an address has. */
  heldBy(address: string): number {
    return this.#byAddress.get(address) ?? 0;
  }

  /** Takes a place; the caller has checked that there is one. */
  acquire(address: string): Slot {
    this.count++;
    this.#byAddress.set(address, this.heldBy(address) + 1);
    return new Slot(this, address);
  }

  /** Done when no place is taken any more. */
  whenEmpty(): Promise<void> {
    if (this.count === 0) return Promise.resolve();
    return (this.#empty ??= Promise.withResolvers<void>()).promise;
  }

  /** Counts a place out; for its {@link Slot} alone. */
  giveBack(address: string): void {
    this.count--;
    const left = this.heldBy(address) - 1;
    if (left > 0) this.#byAddress.set(address, left);
    else this.#byAddress.delete(address);
    if (this.count === 0) this.#empty?.resolve();
  }
}
