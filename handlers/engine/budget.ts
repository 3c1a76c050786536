/** The bytes that all rooms of an engine may use together, and who has to give some back. */

/** Something that gives bytes back by dropping its oldest entry. */
export interface Droppable {
  /** What may be dropped of it, counted by {@link BySize}. */
  bytes: number;
  /** Tells whether there was an entry to drop. */
  dropOldest(): boolean;
}

/** Droppables by size, in steps of a factor of 2: most changes move none. */
export class BySize {
  bytes = 0;
  readonly #steps = Array.from({ length: 33 }, () => new Set<Droppable>());

  /** Counts `bytes` of one in, or out if they are negative. */
  count(one: Droppable, bytes: number): void {
    const step = stepOf(one.bytes);
    this.bytes += bytes;
    one.bytes += bytes;
    const next = stepOf(one.bytes);
    if (step === next) return;
    this.#steps[step].delete(one);
    if (next > 0) this.#steps[next].add(one);
  }

  /** The one with the most bytes, within a factor of 2; none if all are empty. */
  largest(): Droppable | undefined {
    return this.#steps.findLast(({ size }) => size > 0)?.values().next().value;
  }
}

/** Bytes of which each address may use half of what the others leave, or a fixed part: no address can use up all. */
export class FairShare {
  used = 0;
  #byAddress = new Map<string, number>();

  constructor(readonly maxBytes: number, readonly maxOwnBytes = Infinity) {}

  /** Whether `bytes` more fit, into all and into the share of `address`. */
  hasSpace(bytes: number, address?: string): boolean {
    const free = this.maxBytes - this.used - bytes;
    const own = address === undefined ? 0 : (this.#byAddress.get(address) ?? 0) + bytes;
    return own <= Math.min(free, this.maxOwnBytes) && free >= 0;
  }

  count(bytes: number, address?: string): void {
    this.used += bytes;
    if (address === undefined) return;
    const own = (this.#byAddress.get(address) ?? 0) + bytes;
    if (own > 0) this.#byAddress.set(address, own);
    else this.#byAddress.delete(address);
  }
}

/** This share of all bytes histories never use: there is always space for some state. */
const STATE_SHARE = 8;

/** Bytes in use by all rooms of an engine; histories, dedupe tables and states count themselves in and out. */
export class Budget {
  /** Ids that may be forgotten early (those of sockets): at most an eighth of `maxBytes`. */
  readonly ids: FairShare;
  /** Ids that stay until they expire (idempotency keys): another eighth, so that neither stops the other. */
  readonly pinnedIds: FairShare;
  /** Keys of rooms' state: at most half of `maxBytes`, of one owner an eighth of that. */
  readonly state: FairShare;
  readonly histories = new BySize();
  readonly tables = new BySize();

  constructor(readonly maxBytes: number) {
    this.ids = new FairShare(maxBytes / 8);
    this.pinnedIds = new FairShare(maxBytes / 8);
    this.state = new FairShare(maxBytes / 2, maxBytes / 16);
  }

  /** Whether histories must give bytes back. No change of state makes it so. */
  get isOver(): boolean {
    return this.bytes - this.state.used >
      this.maxBytes - Math.max(this.state.used, this.maxBytes / STATE_SHARE);
  }

  /** Whether so much more state fits, and no history has to pay for it. */
  hasSpaceForState(bytes: number, owner?: string): boolean {
    const isFree = this.state.used + bytes <= this.maxBytes / STATE_SHARE ||
      this.bytes + bytes <= this.maxBytes;
    return isFree && this.state.hasSpace(bytes, owner);
  }

  get bytes(): number {
    return this.histories.bytes + this.ids.used + this.pinnedIds.used + this.state.used;
  }
}

/** 0 for nothing, then one more for each factor of 2; an id has over 120 bytes, a message 200. */
function stepOf(bytes: number): number {
  return 32 - Math.clz32(bytes / 64);
}
