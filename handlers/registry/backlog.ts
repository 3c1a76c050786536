/**
 * What a peer that is behind costs in memory.
 *
 * @module
 */
import { byteLength } from "../util/bytes.ts";

/** What the runtime holds for a frame that waits, besides its bytes: measured on Deno 2.9. */
const FRAME_BYTES = 1_000;
/** A burst is read sooner: until then frames weigh their bytes alone. */
const BURST_MS = 2_000;

/** A time in which a peer is behind. The runtime tells the bytes that wait, not in how many frames. */
export class Backlog {
  /** The frames of late and their bytes, about as many as wait: they tell the mean size of one. */
  #frames = 0;
  #bytes = 0;

  /**
   * @param since when it began, Unix ms
   * @param maxBytes what may wait
   */
  constructor(readonly since: number, readonly maxBytes: number) {}

  /** What waits, in bytes of memory, when `frame` was sent and `waiting` bytes are unsent. */
  weigh(waiting: number, frame: string | Uint8Array | ArrayBuffer, now: number): number {
    if (this.#bytes > this.maxBytes) {
      this.#frames /= 2;
      this.#bytes /= 2;
    }
    this.#frames++;
    this.#bytes += typeof frame === "string" ? byteLength(frame) : frame.byteLength;
    if (now - this.since < BURST_MS) return waiting;
    return waiting + FRAME_BYTES * waiting * this.#frames / Math.max(1, this.#bytes);
  }
}
