/**
 * What a room gives in one turn to all who merge: one text for everybody.
 *
 * @module
 */
import { byteLength } from "../text.ts";
import { type Connection, MAX_FRAME_BYTES } from "./connection.ts";

/** Objects due at the end of the turn, one a line; who came meanwhile starts at an offset. */
export class MergedFrame {
  #text = "";
  #bytes = 0;
  #count = 0;
  #late = new Map<Connection, number>();

  get isEmpty(): boolean {
    return this.#text === "";
  }

  /** How many objects it holds. */
  get count(): number {
    return this.#count;
  }

  /** Whether so many bytes more are still one frame. */
  hasSpace(bytes: number): boolean {
    return this.isEmpty || this.#bytes + 1 + bytes <= MAX_FRAME_BYTES;
  }

  /** Adds an object of so many bytes. */
  add(object: string, bytes: number): void {
    this.#text += this.isEmpty ? object : "\n" + object;
    this.#bytes += this.#count === 0 ? bytes : 1 + bytes;
    this.#count++;
  }

  /** A connection begins to listen: what is due already is not for it. */
  admit(connection: Connection): void {
    if (!this.isEmpty) this.#late.set(connection, this.#text.length + 1);
  }

  /** A connection listens no more: it gets its part of what is due. */
  dismiss(connection: Connection): void {
    if (!this.isEmpty && !connection.hasEnded) this.#takePart(connection, this.#text);
    this.#late.delete(connection);
  }

  /** Gives all their frame or their part of it, and begins anew. */
  giveTo(connections: Set<Connection>): void {
    const text = this.#text;
    const bytes = this.#bytes;
    const late = this.#late;
    this.#text = "";
    this.#bytes = 0;
    this.#count = 0;
    if (late.size === 0) {
      for (const connection of connections) connection.take(text, bytes);
      return;
    }
    for (const connection of connections) {
      if (late.has(connection)) this.#takePart(connection, text);
      else connection.take(text, bytes);
    }
    late.clear();
  }

  #takePart(connection: Connection, text: string): void {
    const part = text.slice(this.#late.get(connection) ?? 0);
    if (part !== "") connection.take(part, byteLength(part));
  }
}
