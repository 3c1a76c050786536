/** Finds the messages in a WebSocket byte stream by hopping from frame header to frame header. */

/** Where a {@linkcode LineReader} hands what it finds. */
export interface LineSink {
  /**
   * One message: the bytes `from` to `to` of `bytes`, valid during the call only. Returns whether
   * others are as long, but for some digits: shorter messages are not looked for within that length.
   */
  line(bytes: Uint8Array, from: number, to: number): boolean;
  /** A ping, pong or Close frame. */
  control(opcode: number, payload: Uint8Array): void;
}

const NEWLINE = 10;

/**
 * Splits what a server sends into messages and decodes none of them.
 *
 * A message is a whole text frame, or with `merged` a line of one. Lines are found by the length of the line before;
 * only where no line break stands there is one searched for.
 */
export class LineReader {
  readonly #buffer: Uint8Array;
  readonly #merged: boolean;
  readonly #sink: LineSink;
  #start = 0;
  #end = 0;
  /** Bytes of the current text frame not yet handed on. */
  #left = 0;
  #lineLength = 0;

  /** `bufferBytes` must hold the longest message and its header. */
  constructor(bufferBytes: number, merged: boolean, sink: LineSink) {
    this.#buffer = new Uint8Array(bufferBytes);
    this.#merged = merged;
    this.#sink = sink;
  }

  /** Where the next bytes are to be read into. Throws if one message fills the whole buffer. */
  space(): Uint8Array {
    const buffer = this.#buffer;
    if (this.#start > 0) {
      if (this.#end > this.#start) {
        buffer.copyWithin(0, this.#start, this.#end);
      }
      this.#end -= this.#start;
      this.#start = 0;
    }
    if (this.#end === buffer.length) {
      throw new RangeError(
        `Cannot read a message: longer than ${buffer.length} bytes`,
      );
    }
    return buffer.subarray(this.#end);
  }

  /** Takes `count` bytes that were read into {@linkcode space}. Throws on what no server may send. */
  take(count: number): void {
    const buffer = this.#buffer;
    const end = this.#end += count;
    let at = this.#start;
    while (at < end) {
      if (this.#left > 0) {
        const next = this.#lines(at, end);
        if (next === at) break;
        at = next;
        continue;
      }
      if (end - at < 2) break;
      let length = buffer[at + 1];
      let head = 2;
      if (length > 127) throw new Error("The server sent a masked frame");
      if (length === 126) {
        if (end - at < 4) break;
        length = buffer[at + 2] << 8 | buffer[at + 3];
        head = 4;
      } else if (length === 127) {
        if (end - at < 10) break;
        const view = new DataView(buffer.buffer, at + 2, 8);
        length = Number(view.getBigUint64(0));
        head = 10;
      }
      if (buffer[at] === 0x81) {
        at += head;
        this.#left = length;
        continue;
      }
      if ((buffer[at] & 0xf8) !== 0x88) {
        throw new Error(
          `Cannot count a frame that starts with 0x${buffer[at].toString(16)}`,
        );
      }
      if (end - at < head + length) break;
      const stop = at + head + length;
      this.#sink.control(buffer[at] & 15, buffer.slice(at + head, stop));
      at = stop;
    }
    this.#start = at;
  }

  /** Hands on the messages of the current frame from `at`; returns where it stopped. */
  #lines(at: number, end: number): number {
    const buffer = this.#buffer;
    const frameEnd = at + this.#left;
    if (!this.#merged) {
      if (frameEnd > end) return at;
      this.#left = 0;
      this.#sink.line(buffer, at, frameEnd);
      return frameEnd;
    }
    const limit = frameEnd < end ? frameEnd : end;
    while (at < limit) {
      let stop = at + this.#lineLength;
      if (stop !== frameEnd && buffer[stop] !== NEWLINE || stop > limit) {
        stop = buffer.indexOf(NEWLINE, at);
        if (stop === -1 || stop >= limit) {
          if (frameEnd > end) break;
          stop = frameEnd;
        }
      }
      // A break at `limit` is not read yet, unless the frame ends there.
      if (stop === limit && limit !== frameEnd) break;
      if (this.#sink.line(buffer, at, stop)) this.#lineLength = stop - at;
      at = stop < frameEnd ? stop + 1 : frameEnd;
    }
    this.#left = frameEnd - at;
    return at;
  }
}
