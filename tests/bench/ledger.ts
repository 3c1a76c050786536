/** Who heard what: finds every message that a listener misses, hears twice or hears out of order. */

import { filler, MARK, markText, NUMBERS, type TextShape } from "./text.ts";

/** What the server under test speaks. */
export type Dialect = "echo" | "plain" | "v1";

/** What a {@linkcode Ledger} needs to know. */
export interface LedgerOptions {
  dialect: Dialect;
  listeners: number;
  senders: number;
  text: TextShape;
}

const decoder = new TextDecoder();

/** The name that sender number `sender` joins with. */
export const senderName = (sender: number) => `s${sender}`;

/**
 * Checks each message's mark against what its listener is due next from that sender, and at the end that all listeners
 * heard all messages in one order. With `strict` each message is parsed and compared whole.
 */
export class Ledger {
  /** Parse and compare every message whole. */
  strict = true;
  /** Messages heard by all listeners together. */
  total = 0;
  /** Sender of the message last heard. */
  sender = 0;
  /** Join announcements heard, by listener. */
  readonly joins: Int32Array;
  /** Messages that had to be parsed outside of `strict`. */
  parsed = 0;

  readonly #options: LedgerOptions;
  readonly #filler: string;
  readonly #echo: boolean;
  readonly #senders: number;
  readonly #next: Int32Array;
  readonly #heard: Int32Array;
  readonly #order: Int32Array;
  readonly #sequence: Float64Array;
  /** Bytes from a mark to the end of its message, once a message was parsed. */
  #markFromEnd = 0;

  constructor(options: LedgerOptions) {
    this.#options = options;
    this.#filler = filler(options.text);
    this.#echo = options.dialect === "echo";
    this.#senders = options.senders;
    const { listeners, senders } = options;
    this.#next = new Int32Array(this.#echo ? senders : listeners * senders);
    this.#heard = new Int32Array(listeners);
    this.#order = new Int32Array(listeners);
    this.#sequence = new Float64Array(listeners);
    this.joins = new Int32Array(listeners);
  }

  /**
   * Notes one message. Returns its number among its sender's (the sender is in {@linkcode sender}), or -1 for one that
   * is no chat message. Throws when it is not the one due.
   */
  hear(listener: number, bytes: Uint8Array, from: number, to: number): number {
    const at = to - this.#markFromEnd;
    if (!this.strict && at >= from && bytes[at] === MARK) {
      const a = bytes[at + 1] - 48;
      const b = bytes[at + 2] - 48;
      const c = bytes[at + 3] - 48;
      const d = bytes[at + 4] - 48;
      const e = bytes[at + 5] - 48;
      if (((a | b | c | d | e) & ~31) === 0) {
        return this.#note(listener, a << 5 | b, c << 10 | d << 5 | e);
      }
    }
    return this.#parse(listener, bytes, from, to);
  }

  /** Messages that `listener` heard. */
  heardBy(listener: number): number {
    return this.#heard[listener];
  }

  /** Throws unless all listeners heard `expected` messages each, in one order. */
  finish(expected: (listener: number) => number): void {
    for (const [listener, heard] of this.#heard.entries()) {
      const due = expected(listener);
      if (heard < due) {
        throw new Error(
          `listener ${listener} is short of ${due - heard} of ${due} messages`,
        );
      }
      if (!this.#echo && this.#order[listener] !== this.#order[0]) {
        throw new Error(
          `listeners 0 and ${listener} heard the messages in different orders`,
        );
      }
    }
  }

  #note(listener: number, sender: number, number: number): number {
    if (sender >= this.#senders || this.#echo && sender !== listener) {
      throw new Error(`heard unknown sender ${sender}`);
    }
    const at = this.#echo ? sender : listener * this.#senders + sender;
    const due = this.#next[at];
    if ((due & NUMBERS - 1) !== number) {
      const ahead = number - due & NUMBERS - 1;
      throw new Error(
        `heard message ${due + ahead & NUMBERS - 1} of ` +
          `sender ${sender} where ${due & NUMBERS - 1} was due: ` +
          (ahead < NUMBERS / 2 ? "missed" : "repeated") + " or reordered",
      );
    }
    this.#next[at] = due + 1;
    this.#heard[listener]++;
    this.total++;
    this.#order[listener] = Math.imul(this.#order[listener], 31) + (sender << 15 | number) | 0;
    this.sender = sender;
    return due;
  }

  #parse(listener: number, bytes: Uint8Array, from: number, to: number) {
    const line = decoder.decode(bytes.subarray(from, to));
    const text = this.#echo ? line.slice(6) : this.#chatText(listener, line);
    if (text === null) return -1;
    if (!this.strict) this.parsed++;
    const mark = text.lastIndexOf("~");
    const [a, b, c, d, e] = [1, 2, 3, 4, 5].map((i) => text.charCodeAt(mark + i) - 48);
    const sender = a << 5 | b;
    const number = this.#note(listener, sender, c << 10 | d << 5 | e);
    if (this.strict) {
      if (text !== this.#filler + markText(sender, number)) {
        throw new Error(`heard a changed text: ${text}`);
      }
      if (this.#echo && !line.startsWith("Echo: ")) {
        throw new Error(`the echo lacks its prefix: ${line}`);
      }
    }
    this.#markFromEnd = to - bytes.lastIndexOf(MARK, to - 1);
    return number;
  }

  /** The text of a chat line, or null for a line of another type. */
  #chatText(listener: number, line: string): string | null {
    const object = JSON.parse(line);
    if (object.type === "error" || object.type === "bye") {
      throw new Error(`was told: ${line}`);
    }
    if (
      object.type === "status" && object.message.endsWith(" joined the chat.")
    ) {
      this.joins[listener]++;
    }
    if (object.type === "welcome") this.#sequence[listener] = object.seq;
    if (object.type !== "chat") return null;
    if (this.#options.dialect === "v1") {
      const due = this.#sequence[listener] + 1;
      if (this.strict && object.seq !== due || !(object.time > 0)) {
        throw new Error(`was due seq ${due}: ${line}`);
      }
      this.#sequence[listener] = object.seq;
    }
    const mark = object.message.lastIndexOf("~");
    const sender = object.message.charCodeAt(mark + 1) - 48 << 5 |
      object.message.charCodeAt(mark + 2) - 48;
    if (this.strict && object.sender !== senderName(sender)) {
      throw new Error(`heard a wrong sender: ${line}`);
    }
    return object.message;
  }
}
