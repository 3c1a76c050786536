/** The comparison of a node's rooms with Redis: which are due in a round, and how they are asked for. */
import { inBatches } from "./list.ts";
import type { CompareAnswer, RedisNode, RedisRoom } from "./room.ts";
import type { RedisRooms } from "./rooms.ts";

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
  constructor(readonly node: RedisNode, readonly rooms: Pick<RedisRooms, "keepMsOf" | "used">) {}

  /** The rooms that a round looks at. */
  roomsIn(round: number): RedisRoom[] {
    const rooms = this.rooms.used.values();
    return rooms.filter(({ slot }) => (slot - round) % REPORT_ROUNDS === 0).toArray();
  }

  /** Compares those of the rooms whose round it is, which it returns, and those with more or fewer listeners. */
  startRound(round: number, rooms: RedisRoom[]): RedisRoom[] {
    const isTurn = ({ slot }: RedisRoom) => (slot - round) % COMPARE_ROUNDS === 0;
    const due = rooms.filter((room) => isTurn(room) || room.listeners !== room.reportedListeners);
    this.compare(due, Math.floor(round / COMPARE_ROUNDS));
    return due.filter(isTurn);
  }

  /**
   * One command after the other for each server, so that many rooms hold up no message.
   * @param turn rooms that are kept long need not be kept anew at each one
   */
  compare(rooms: RedisRoom[], turn = 0): void {
    for (const [connection, own] of Map.groupBy(rooms, (room) => room.connection)) {
      if (connection?.isConnected) this.#compareOn(own, turn);
    }
  }

  async #compareOn(rooms: RedisRoom[], turn: number): Promise<void> {
    const { id, live } = this.node;
    const isUsed = (room: RedisRoom) => this.rooms.used.get(room.name) === room;
    for (const batch of inBatches(rooms)) {
      const own = batch.filter(isUsed);
      if (own.length === 0) continue;
      const args = own.flatMap(({ keys: [head], listeners }) => {
        const keepMs = this.rooms.keepMsOf(head);
        return [head, listeners, turn % Math.floor(keepMs / MIN_KEEP_MS) === 0 ? keepMs : 0];
      });
      const onAnswers = own.map((room) => room.compare());
      const all = [id, live.nodes, live.seenAt, ...args];
      const answer = await this.node.run("compare", [own[0].keys[0]], all, false);
      const answers = (answer ?? []) as CompareAnswer[];
      own.forEach((room, index) => isUsed(room) && onAnswers[index](answers[index]));
    }
  }
}
