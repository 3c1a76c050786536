/**
 * Waiting, with one limit for all of it.
 *
 * @module
 */

/** How long a test waits for what must come: long enough for a machine that is busy with other work. */
export const PATIENCE_MS = 120_000;
/** Between two looks at what tells nobody that it has changed. */
const LOOK_MS = 10;
// A test may put its own in their place.
const { setTimeout, clearTimeout } = globalThis;

/** Gives `promise`, or fails with what did not come. */
export async function soon<T>(promise: Promise<T>, what: string | (() => string)): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new Error(`${typeof what === "string" ? what : what()}: not within ${PATIENCE_MS} ms`));
  }, PATIENCE_MS);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again and again until `isDone` holds for the answer, which it returns. */
export async function eventually<T>(
  ask: () => T | Promise<T>,
  isDone: (value: T) => boolean,
  what: string = `${isDone}`,
): Promise<T> {
  let value: T | undefined;
  let isOver = false;
  const asking = (async () => {
    for (;;) {
      value = await ask();
      if (isOver || isDone(value)) return value;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  })();
  try {
    return await soon(asking, () => `${what}, last ${JSON.stringify(value)}`);
  } finally {
    isOver = true;
  }
}

/** Lets all go on that waits for no timer: a turn of the event loop. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

/** Keeps what came until somebody asks, and those who ask until something comes. */
export class Inbox<T> {
  #items: T[] = [];
  #asking: PromiseWithResolvers<T>[] = [];
  #end: Error | undefined;

  /** @param name what it holds, for the error */
  constructor(readonly name: string) {}

  /** How many came that nobody asked for. */
  get size(): number {
    return this.#items.length;
  }

  push(item: T): void {
    const asking = this.#asking.shift();
    if (asking) asking.resolve(item);
    else this.#items.push(item);
  }

  /** Nothing more comes: whoever asks beyond what is kept gets this error. */
  end(error: Error): void {
    this.#end ??= error;
    for (const asking of this.#asking.splice(0)) asking.reject(this.#end);
  }

  /** The oldest that nobody asked for. */
  next(): Promise<T> {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift()!);
    if (this.#end) return Promise.reject(this.#end);
    const asking = Promise.withResolvers<T>();
    this.#asking.push(asking);
    return soon(asking.promise, this.name);
  }
}

/** Keeps all that came, for those who look for one of a kind. */
export class Journal<T> {
  readonly entries: T[] = [];
  #asking: (PromiseWithResolvers<T> & { isIt: (entry: T) => boolean })[] = [];
  #end: Error | undefined;

  add(entry: T): void {
    this.entries.push(entry);
    this.#asking = this.#asking.filter(({ isIt, resolve }) => {
      if (isIt(entry)) resolve(entry);
      else return true;
    });
  }

  /** Nothing more comes: whoever still looks gets this error. */
  end(error: Error): void {
    this.#end ??= error;
    for (const { reject } of this.#asking.splice(0)) reject(this.#end);
  }

  /** The first entry that `isIt` takes, among those that came or come. */
  find(isIt: (entry: T) => boolean, what: string): Promise<T> {
    const known = this.entries.find(isIt);
    if (known !== undefined) return Promise.resolve(known);
    if (this.#end) return Promise.reject(this.#end);
    const asking = { ...Promise.withResolvers<T>(), isIt };
    this.#asking.push(asking);
    return soon(asking.promise, what);
  }
}

/**
 * Settles when so many hear a room. A plain socket is told nothing when it does, and another thread or node
 * may take a message before.
 */
export async function untilHeard(
  url: string,
  room: string,
  count: number,
  query = "",
): Promise<void> {
  await eventually(
    async () => (await (await fetch(`${url}/rooms/${room}?${query}`)).json()).listeners,
    (listeners) => listeners === count,
  );
}
