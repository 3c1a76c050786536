/** The commands of a connection that have no answer yet. */

/** A command times out after this many whole ticks (600 to 800 ms), and so does a silent server. */
const TIMEOUT_TICKS = 3;
/** More commands than this are refused at once, so that a slow Redis is not flooded. */
const MAX_PENDING = { commands: 10_000, bytes: 64_000_000 };
/** And so is one more than this where an older one waits for two ticks: taken, it would time out, too. */
const MAX_PENDING_LATE = 300;

/** Bounds commands in number, bytes and time. */
export class PendingCommands {
  /** The commands that can time out, by the tick in which they were sent, oldest first. */
  #ticks = Array.from({ length: TIMEOUT_TICKS + 1 }, () => new Tick());
  #commands = 0;
  #bytes = 0;
  #silentTicks = 0;

  hasSpace(bytes: number): boolean {
    const isLate = this.#ticks[0].unanswered + this.#ticks[1].unanswered > 0;
    return this.#commands < (isLate ? MAX_PENDING_LATE : MAX_PENDING.commands) &&
      this.#bytes + bytes <= MAX_PENDING.bytes;
  }

  /**
   * Resolves to what `accept` makes of an answer, or to `undefined` if it fails or times out.
   * @param hasTimeout `false` waits until `answer` settles
   */
  add(
    answer: Promise<unknown>,
    bytes: number,
    hasTimeout: boolean,
    { accept, onError }: {
      accept: (answer: unknown) => unknown;
      onError: (error: Error) => void;
    },
  ): Promise<unknown> {
    this.#commands++;
    this.#bytes += bytes;
    return new Promise((resolve) => {
      const tick = hasTimeout ? this.#ticks[TIMEOUT_TICKS] : new Tick();
      tick.unanswered++;
      tick.timeOuts.push(resolve);
      const settle = (value: unknown) => {
        tick.unanswered--;
        this.#commands--;
        this.#bytes -= bytes;
        this.#silentTicks = 0;
        resolve(value);
      };
      answer.then((value) => settle(accept(value)), (error) => {
        settle(undefined);
        onError(error);
      });
    });
  }

  /** Times out old commands; returns whether the server still answers. */
  tick(): boolean {
    this.#ticks.push(new Tick());
    for (const timeOut of this.#ticks.shift()!.timeOuts) timeOut(undefined);
    this.#silentTicks = this.#commands > 0 ? this.#silentTicks + 1 : 0;
    return this.#silentTicks < TIMEOUT_TICKS;
  }
}

class Tick {
  unanswered = 0;
  timeOuts: ((answer: undefined) => void)[] = [];
}
