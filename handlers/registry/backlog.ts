/** What a peer that is behind costs in memory. */
import { byteLength } from "../util/bytes.ts";

/** What the runtime holds for an unsent frame besides its bytes; measured on Deno 2.9. */
const FRAME_BYTES = 1_000;
/** A burst is over sooner: until then only the bytes of frames count. */
const BURST_MS = 2_000;

/** Frames that fit no queue, messages of a node with a higher limit: a burst of them makes nobody too slow. */
export class OversizedFrames {
  /** Of a burst, together. */
  #bytes = 0;
  /** When the burst began, by {@link Clock.elapsedMs}. */
  #since = -Infinity;

  /** What of `unsent` bytes counts, after a frame of `bytes` was sent. */
  leaveOut(unsent: number, bytes: number, maxBytes: number, now: number): number {
    if (bytes > maxBytes) {
      if (now - this.#since > BURST_MS) {
        this.#bytes = 0;
        this.#since = now;
      }
      this.#bytes += bytes;
    }
    return Math.max(0, unsent - this.#bytes);
  }
}

/** The time in which a peer is behind. The runtime tells how many bytes are unsent, not how many frames. */
export class Backlog {
  /** The latest frames and their bytes, about as many as are unsent: they give the mean size. */
  #frames = 0;
  #bytes = 0;
  readonly #oversized = new OversizedFrames();

  /**
   * @param since when it began, by {@link Clock.elapsedMs}
   * @param maxBytes how much may be unsent
   */
  constructor(readonly since: number, readonly maxBytes: number) {}

  /**
   * How much memory the unsent frames take, in bytes, after `frame` was sent; `unsent` bytes are left.
   */
  weigh(unsent: number, frame: string | Uint8Array | ArrayBuffer, now: number): number {
    const bytes = typeof frame === "string" ? byteLength(frame) : frame.byteLength;
    unsent = this.#oversized.leaveOut(unsent, bytes, this.maxBytes, now);
    if (this.#bytes > this.maxBytes) {
      this.#frames /= 2;
      this.#bytes /= 2;
    }
    this.#frames++;
    this.#bytes += bytes;
    if (now - this.since < BURST_MS) return unsent;
    return unsent + FRAME_BYTES * unsent * this.#frames / Math.max(1, this.#bytes);
  }
}
