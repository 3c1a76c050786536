/** Runs reads a few at a time, as Redis drops a connection to which it has too much to send. */
const MAX_READS = 4;

/** Runs reads in the order of the calls, so that they never crowd out messages. */
export class ReadQueue {
  readonly #waiting = new Map<string, () => void>();
  readonly #shared = new Map<string, Promise<unknown>>();
  #running = 0;

  /** Runs a read when its turn comes. Calls with the same key share one until it starts. */
  share<T>(key: string, read: () => Promise<T>): Promise<T> {
    const shared = this.#shared.get(key);
    if (shared) return shared as Promise<T>;
    const { promise, resolve } = Promise.withResolvers<T>();
    this.#shared.set(key, promise);
    this.#waiting.set(key, async () => {
      this.#shared.delete(key);
      this.#running++;
      const result = read();
      resolve(result);
      // One that fails is its callers' to handle: the next must come all the same.
      await result.catch(() => {});
      this.#running--;
      this.#next();
    });
    this.#next();
    return promise;
  }

  #next(): void {
    const [first] = this.#waiting;
    if (!first || this.#running === MAX_READS) return;
    this.#waiting.delete(first[0]);
    first[1]();
  }
}
