/** The commands of a connection that have no answer yet. */

/** A command times out after this many whole ticks (600 to 800 ms), and so does a silent server. */
const TIMEOUT_TICKS = 3;
/** More commands than this are refused at once, so that a slow Redis is not flooded. */
const MAX_PENDING = { commands: 10_000, bytes: 64_000_000 };

/** Bounds commands in number, bytes and time. */
export class PendingCommands {
  /** The commands that can time out, by the tick in which they were sent, oldest first. */
  #byTick: ((answer: undefined) => void)[][] = Array.from({ length: TIMEOUT_TICKS + 1 }, () => []);
  #commands = 0;
  #bytes = 0;
  #silentTicks = 0;

  /** Whether a command of so many bytes may be added. */
  hasSpace(bytes: number): boolean {
    return this.#commands < MAX_PENDING.commands && this.#bytes + bytes <= MAX_PENDING.bytes;
  }

  /**
   * Resolves to what `answer` brings, or to `undefined` if it fails or times out.
   *
   * @param hasTimeout `false` waits until `answer` settles
   */
  add(
    answer: Promise<unknown>,
    bytes: number,
    hasTimeout: boolean,
    onError: (error: Error) => void,
  ): Promise<unknown> {
    this.#commands++;
    this.#bytes += bytes;
    return new Promise((resolve) => {
      if (hasTimeout) this.#byTick[TIMEOUT_TICKS].push(resolve);
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

  /** Times out old commands; returns whether the server still answers. */
  tick(): boolean {
    this.#byTick.push([]);
    for (const timeOut of this.#byTick.shift()!) timeOut(undefined);
    this.#silentTicks = this.#commands > 0 ? this.#silentTicks + 1 : 0;
    return this.#silentTicks < TIMEOUT_TICKS;
  }
}
