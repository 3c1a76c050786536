/**
 * Commands that wait for Redis: bounded in number, size and time.
 *
 * @module
 */

/** How often {@link PendingCommands.tick} is called. */
export const TICK_MS = 200;
/** A command is given up after so many whole ticks, 600 to 800 ms; so is a server that is silent. */
const PATIENCE_TICKS = 3;
/** More is refused at once, so that a slow Redis is not swamped. */
const MAX_COMMANDS = 10_000;
const MAX_BYTES = 64_000_000;

/** The commands of a connection that have no answer yet. */
export class PendingCommands {
  /** Those who wait, by the tick in which they asked, the oldest first. */
  #waiting: ((answer: undefined) => void)[][] = Array.from(
    { length: PATIENCE_TICKS + 1 },
    () => [],
  );
  #commands = 0;
  #bytes = 0;
  #silentTicks = 0;

  /** Whether a command of so many bytes may wait, too. */
  hasSpace(bytes: number): boolean {
    return this.#commands < MAX_COMMANDS && this.#bytes + bytes <= MAX_BYTES;
  }

  /**
   * What `answer` brings, or `undefined` where that takes too long or fails.
   *
   * @param isPatient waits until `answer` settles
   */
  add(
    answer: Promise<unknown>,
    bytes: number,
    isPatient: boolean,
    onError: (error: Error) => void,
  ): Promise<unknown> {
    this.#commands++;
    this.#bytes += bytes;
    return new Promise((resolve) => {
      if (!isPatient) this.#waiting[PATIENCE_TICKS].push(resolve);
      const settle = (value: unknown) => {
        this.#commands--;
        this.#bytes -= bytes;
        this.#silentTicks = 0;
        resolve(value);
      };
      answer.then(settle, (error) => {
        settle(undefined);
        onError(error);
      });
    });
  }

  /** Gives up who has waited too long; tells whether answers come at all. */
  tick(): boolean {
    this.#waiting.push([]);
    for (const giveUp of this.#waiting.shift()!) giveUp(undefined);
    this.#silentTicks = this.#commands > 0 ? this.#silentTicks + 1 : 0;
    return this.#silentTicks < PATIENCE_TICKS;
  }
}
