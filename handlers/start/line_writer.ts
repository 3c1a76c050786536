/** Writes lines in the background: a reader that stalls costs lines, never the server. */

/** Where lines go. */
export type Output = Pick<typeof Deno.stdout, "write">;

/** Lines that wait take at most so many characters. */
const MAX_WAITING_LENGTH = 1_000_000;

/** A bounded queue of lines before an {@link Output}. */
export class LineWriter {
  /** Lines that found the queue full, or whose output is closed. */
  droppedCount = 0;
  #waiting: string[] = [];
  #waitingLength = 0;
  #toldDropped = 0;
  #writing?: Promise<void>;

  /** @param onDropped is told how many lines were dropped, once the output takes lines again */
  constructor(readonly output: Output, readonly onDropped: (count: number) => void = () => {}) {}

  write(line: string): void {
    if (this.#waitingLength + line.length > MAX_WAITING_LENGTH) {
      this.droppedCount++;
      return;
    }
    this.#waiting.push(line);
    this.#waitingLength += line.length;
    this.#writing ??= this.#writeAll();
  }

  /** Waits until all lines so far are written or lost. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #writeAll(): Promise<void> {
    // Lines of one turn of the event loop go out together.
    await undefined;
    while (this.#waiting.length > 0) {
      const lines = this.#waiting;
      this.#waiting = [];
      this.#waitingLength = 0;
      try {
        await this.#writeBytes(new TextEncoder().encode(lines.join("")));
      } catch {
        // A closed pipe: there is nowhere to say so.
        this.droppedCount += lines.length;
        this.#toldDropped = this.droppedCount;
      }
      const dropped = this.droppedCount - this.#toldDropped;
      this.#toldDropped = this.droppedCount;
      if (dropped > 0) this.onDropped(dropped);
    }
    this.#writing = undefined;
  }

  async #writeBytes(bytes: Uint8Array): Promise<void> {
    for (let start = 0; start < bytes.length;) {
      start += await this.output.write(bytes.subarray(start));
    }
  }
}
