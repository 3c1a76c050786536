/** The comparison of a node's rooms with Redis: which are due in a round, and how they are asked for. */
import { inBatches } from "./list.ts";
import type { CompareAnswer, RedisNode, RedisRoom } from "./room.ts";

/** How often a node's `onTick` is called, in ms. */
export const TICK_MS = 200;
/** How often rooms are compared with Redis, in ticks. */
export const ROUND_TICKS = 5;
/** Each room is compared every 55 rounds (55 s), even if nothing points to a loss. */
const COMPARE_ROUNDS = 55;
/** Redis learns within 5 rounds (5 s) that a room has more or fewer listeners. */
const REPORT_ROUNDS = 5;
/** Redis keeps a hosted room at least this long without a sign of use, in ms: three comparisons. */
export const MIN_KEEP_MS = 3 * COMPARE_ROUNDS * ROUND_TICKS * TICK_MS;

/** Compares the rooms of a node with Redis. */
export class Comparison {
  /** The rooms by the round in which they are compared. */
  readonly #slots = Array.from({ length: COMPARE_ROUNDS }, () => new Set<RedisRoom>());
  #nextSlot = 0;

  /** @param keepMsOf how long a room is kept after a sign of use, in ms, by its head key */
  constructor(readonly node: RedisNode, readonly keepMsOf: (head: string) => number) {}

  add(room: RedisRoom): void {
    room.slot = this.#nextSlot++ % COMPARE_ROUNDS;
    this.#slots[room.slot].add(room);
  }

  /** Compares a room no more; returns whether it was here. */
  delete(room: RedisRoom): boolean {
    return this.#slots[room.slot].delete(room);
  }

  has(room: RedisRoom): boolean {
    return this.#slots[room.slot].has(room);
  }

  /** The rooms that a round looks at. */
  *roomsIn(round: number): Generator<RedisRoom> {
    for (let slot = round % REPORT_ROUNDS; slot < COMPARE_ROUNDS; slot += REPORT_ROUNDS) {
      yield* this.#slots[slot];
    }
  }

  /** Compares the rooms whose round it is, which it returns, and those with more or fewer listeners. */
  startRound(round: number): RedisRoom[] {
    const isTurn = ({ slot }: RedisRoom) => slot === round % COMPARE_ROUNDS;
    const due = [...this.roomsIn(round)].filter((room) =>
      isTurn(room) || room.listeners !== room.reportedListeners
    );
    // Rooms that are kept long need not be kept anew at each comparison.
    const keepRound = Math.floor(round / COMPARE_ROUNDS);
    this.compare(due, (keepMs) => keepRound % Math.floor(keepMs / MIN_KEEP_MS) === 0);
    return due.filter(isTurn);
  }

  /** One command after the other for each server, so that many rooms hold up no message. */
  compare(rooms: RedisRoom[], mustKeep: (keepMs: number) => boolean): void {
    for (const [connection, own] of Map.groupBy(rooms, (room) => room.connection)) {
      if (connection?.isConnected) this.#compareOn(own, mustKeep);
    }
  }

  async #compareOn(rooms: RedisRoom[], mustKeep: (keepMs: number) => boolean): Promise<void> {
    const { id, live } = this.node;
    for (const batch of inBatches(rooms)) {
      const own = batch.filter((room) => this.has(room));
      if (own.length === 0) continue;
      const args = own.flatMap(({ keys: [head], listeners }) => {
        const keepMs = this.keepMsOf(head);
        return [head, listeners, mustKeep(keepMs) ? keepMs : 0];
      });
      const onAnswers = own.map((room) => room.compare());
      const all = [id, live.nodes, live.seenAt, ...args];
      const answer = await this.node.run("compare", [own[0].keys[0]], all, false);
      const answers = (answer ?? []) as CompareAnswer[];
      own.forEach((room, index) => this.has(room) && onAnswers[index](answers[index]));
    }
  }
}
