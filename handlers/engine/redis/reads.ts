/**
 * Reads of the rooms' logs: few at a time, and shared, as many clients come back at once.
 *
 * @module
 */
import type { Span } from "../../protocol/page.ts";
import type { Cursor } from "../../protocol/position.ts";
import { isRefusal, type Refusal } from "../engine.ts";

/** Redis drops a connection that leaves it too much to send, so no more are on their way. */
const READS_AT_ONCE = 4;

/** Reads a room behind a place, or all of it. */
export type Read = (room: string, after?: Cursor) => Promise<Span | Refusal>;

/** A read that has not been sent: from the least place of all who share it. */
interface WaitingRead extends PromiseWithResolvers<Span | Refusal> {
  after?: Cursor;
}

/** Sends a few reads at a time; who asks for a room that waits for its turn shares its read. */
export class SharedReads {
  readonly #waiting = new Map<string, WaitingRead>();
  #underWay = 0;

  constructor(readonly send: Read) {}

  /** The kept messages behind `after`, as the engine's `read`; none older than this call. */
  async read(room: string, after?: Cursor): Promise<Span | Refusal> {
    const span = await this.#ask(room, after);
    if (isRefusal(span) || after?.epoch !== span.epoch) return span;
    // Who is beyond the newest gets all; a shared read may have brought less.
    if (after.seq > span.seq) return await this.#ask(room);
    return { ...span, chats: span.chats.filter((chat) => chat.seq > after.seq) };
  }

  #ask(room: string, after?: Cursor): Promise<Span | Refusal> {
    const waiting = this.#waiting.get(room);
    if (waiting) {
      const { after: least } = waiting;
      if (after?.epoch !== least?.epoch) waiting.after = undefined;
      else if (after && least && after.seq < least.seq) waiting.after = after;
      return waiting.promise;
    }
    const read = { after, ...Promise.withResolvers<Span | Refusal>() };
    this.#waiting.set(room, read);
    this.#sendNext();
    return read.promise;
  }

  async #sendNext(): Promise<void> {
    const [next] = this.#waiting;
    if (!next || this.#underWay === READS_AT_ONCE) return;
    const [room, { after, resolve }] = next;
    this.#waiting.delete(room);
    this.#underWay++;
    resolve(await this.send(room, after));
    this.#underWay--;
    this.#sendNext();
  }
}
