/** The texts the load generator sends, each with a mark that tells sender and number. */

/** What a message is made of. */
export interface TextShape {
  /** UTF-8 bytes of the text, the mark included. At least 16. */
  bytes: number;
  /** Whether the text is Korean (three bytes a character) instead of ASCII. */
  korean?: boolean;
}

/** The mark's first character; nothing else in the benchmark holds it. */
export const MARK = 0x7e;
/** Bytes of a mark: `~`, two digits for the sender, three for the number. */
export const MARK_BYTES = 6;
/** Numbers start over after this many. */
export const NUMBERS = 32 * 32 * 32;
/** Senders that fit in a mark. */
export const MAX_SENDERS = 32 * 32;

const encoder = new TextEncoder();
const ASCII = "the quick brown fox jumps over the lazy dog ";
const KOREAN = "다람쥐헌쳇바퀴에타고파모든사람은자유롭고평등하다";

/** The text before the mark: exactly `bytes` − 6 long in UTF-8. */
export function filler({ bytes, korean }: TextShape): string {
  const length = bytes - MARK_BYTES;
  if (length < 10) {
    throw new RangeError(`Cannot make a text of ${bytes} bytes: at least 16`);
  }
  const letters = [...(korean ? KOREAN : ASCII)];
  const size = korean ? 3 : 1;
  let text = "";
  for (let i = 0; i < Math.floor(length / size); i++) {
    text += letters[i % letters.length];
  }
  return text + " ".repeat(length % size);
}

// 32 digits from `0` on: none of them is escaped in JSON.
const digit = (value: number) => 48 + (value & 31);

/** Writes the mark of message `number` of `sender` at `at`. */
export function writeMark(
  bytes: Uint8Array,
  at: number,
  sender: number,
  number: number,
): void {
  bytes[at] = MARK;
  bytes[at + 1] = digit(sender >> 5);
  bytes[at + 2] = digit(sender);
  bytes[at + 3] = digit(number >> 10);
  bytes[at + 4] = digit(number >> 5);
  bytes[at + 5] = digit(number);
}

/** The mark of message `number` of `sender`, as text. */
export function markText(sender: number, number: number): string {
  const bytes = new Uint8Array(MARK_BYTES);
  writeMark(bytes, 0, sender, number);
  return String.fromCharCode(...bytes);
}

const MASK_KEY = [0x5a, 0x33, 0x7c, 0x19];

/** One masked client frame (RFC 6455, 5.2) with `payload`. */
export function clientFrame(payload: Uint8Array, opcode = 1): Uint8Array {
  const { length } = payload;
  const extra = length < 126 ? 0 : length < 65536 ? 2 : 8;
  const frame = new Uint8Array(2 + extra + 4 + length);
  const view = new DataView(frame.buffer);
  frame[0] = 0x80 | opcode;
  frame[1] = 0x80 | (extra === 0 ? length : extra === 2 ? 126 : 127);
  if (extra === 2) view.setUint16(2, length);
  if (extra === 8) view.setBigUint64(2, BigInt(length));
  frame.set(MASK_KEY, 2 + extra);
  for (let i = 0; i < length; i++) {
    frame[6 + extra + i] = payload[i] ^ MASK_KEY[i & 3];
  }
  return frame;
}

/** One sender's message as a ready client frame, whose number is written in place. */
export class OutgoingMessage {
  readonly #frame: Uint8Array;
  /** Where the mark ends in the frame, and in its payload. */
  readonly #markEnd: [inFrame: number, inPayload: number];

  /** `chat` wraps the text in `{"type":"chat","message":…}`; otherwise it is sent bare. */
  constructor(text: string, sender: number, chat: boolean) {
    const full = text + markText(sender, 0);
    const payload = encoder.encode(
      chat ? JSON.stringify({ type: "chat", message: full }) : full,
    );
    this.#frame = clientFrame(payload);
    const end = payload.lastIndexOf(MARK) + MARK_BYTES;
    this.#markEnd = [this.#frame.length - payload.length + end, end];
  }

  /** The frame of message `number`. With `copy` the next call does not overwrite it. */
  frame(number: number, copy: boolean): Uint8Array {
    const frame = copy ? this.#frame.slice() : this.#frame;
    const [inFrame, inPayload] = this.#markEnd;
    for (let back = 1, rest = number; back <= 3; back++, rest >>= 5) {
      frame[inFrame - back] = digit(rest) ^ MASK_KEY[inPayload - back & 3];
    }
    return frame;
  }
}
