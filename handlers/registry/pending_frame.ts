/** Objects that wait to go out together as one frame: the one place with the 64 kB rule. */

/** A frame of several objects holds at most so many bytes; a longer object goes alone. */
export const MAX_FRAME_BYTES = 65_536;

/** Objects of `parley.v1`, one a line. */
export class PendingFrame {
  /** The objects so far, joined. */
  text = "";
  /** Their UTF-8 bytes. */
  bytes = 0;
  /** How many calls of {@link add} they came by. */
  count = 0;

  /** Whether so many bytes more still make one frame. */
  fits(bytes: number): boolean {
    return this.count === 0 || this.bytes + 1 + bytes <= MAX_FRAME_BYTES;
  }

  add(objects: string, bytes: number): void {
    const isFirst = this.count++ === 0;
    this.text = isFirst ? objects : this.text + "\n" + objects;
    this.bytes += isFirst ? bytes : 1 + bytes;
  }

  clear(): void {
    this.text = "";
    this.bytes = 0;
    this.count = 0;
  }
}
