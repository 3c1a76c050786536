/**
 * Some listeners of a room that merge, and the frame that is due to them: one text for all.
 *
 * @module
 */
import { byteLength } from "../util/bytes.ts";
import { type Connection, MAX_FRAME_BYTES } from "./connection.ts";
import type { Counters } from "./counters.ts";

/**
 * Listeners that are written to in one turn. What comes while the rest of a large room waits still
 * gets into their frames: fewer writes a message. Of 4 to 128 this was fastest (`deno task bench`).
 */
export const GROUP_SIZE = 24;

/** Objects due, one a line; who came meanwhile starts at an offset. */
export class ListenerGroup {
  #connections = new Set<Connection>();
  #text = "";
  #bytes = 0;
  #count = 0;
  #late = new Map<Connection, number>();
  #isFlushing = false;

  constructor(readonly counters: Counters) {}

  get size(): number {
    return this.#connections.size;
  }

  /** Whether anything is due. */
  get isDue(): boolean {
    return this.#count > 0;
  }

  /** Adds a listener: what is due already is not for it. */
  add(connection: Connection): void {
    this.#connections.add(connection);
    if (this.isDue) this.#late.set(connection, this.#text.length + 1);
  }

  /** Takes a listener out: it gets its part of what is due, unless it has ended. */
  delete(connection: Connection): void {
    this.#connections.delete(connection);
    if (this.isDue && !connection.hasEnded) this.#takePart(connection, this.#text);
    this.#late.delete(connection);
  }

  /** Adds an object of so many bytes; what would be too long for one frame goes out before. */
  push(object: string, bytes: number): void {
    // An eviction's news, in the middle of a flush, may not overtake the frame.
    if (this.isDue && !this.#isFlushing && this.#bytes + 1 + bytes > MAX_FRAME_BYTES) this.flush();
    this.#bytes += this.isDue ? 1 + bytes : bytes;
    this.#text += this.isDue ? "\n" + object : object;
    this.#count++;
  }

  /** Gives all their frame or their part of it, and begins anew. */
  flush(): void {
    if (!this.isDue) return;
    this.counters.batchSizes.add(this.#count);
    this.counters.deliveries += this.#count * this.size;
    const text = this.#text;
    const bytes = this.#bytes;
    const late = this.#late;
    this.#text = "";
    this.#bytes = 0;
    this.#count = 0;
    this.#isFlushing = true;
    if (late.size === 0) {
      for (const connection of this.#connections) connection.take(text, bytes);
    } else {
      for (const connection of this.#connections) {
        if (late.has(connection)) this.#takePart(connection, text);
        else connection.take(text, bytes);
      }
      late.clear();
    }
    this.#isFlushing = false;
  }

  #takePart(connection: Connection, text: string): void {
    const part = text.slice(this.#late.get(connection) ?? 0);
    if (part !== "") connection.take(part, byteLength(part));
  }
}
