/**
 * A line between two threads: calls and their answers over a `MessagePort`, in order, one message a
 * turn of the event loop however many calls it brings.
 *
 * @module
 */
import type { Clock } from "../util/clock.ts";
import { chain } from "../util/maybe_promise.ts";
import type { Refusal } from "./engine.ts";

/** Functions that the other side may call. Arguments and answers are copied (structured clone). */
export type Calls<T> = { [Name in keyof T]: (...args: never[]) => unknown };

/** What a line is made of. */
export interface LineOptions<Ours> {
  /** What this side answers. They neither throw nor reject. */
  calls: Ours;
  /** How long the other side may take to answer, in ms. */
  answerMs: number;
  clock: Clock;
  /** Called when answers are overdue, once until one comes in time. */
  onSilence?(): void;
}

/** A call (`id` 0: nobody waits for its answer), or with no name the answer to call `id`. */
type Entry = [id: number, name: string | null, payload: unknown];

/** What a call brings, or why it brought nothing. */
type CallAnswer<T extends Calls<T>, Name extends keyof T> = Awaited<ReturnType<T[Name]>> | Refusal;

interface Asked {
  dueAt: number;
  next(answer: unknown): void;
}

const UNAVAILABLE: Refusal = { refused: "unavailable" };

/** One end of a line. `Theirs` is what the other end answers. */
export class Line<Ours extends Calls<Ours>, Theirs extends Calls<Theirs>> {
  #outbox: Entry[] = [];
  /** Calls without an answer, the oldest first. */
  #asked = new Map<number, Asked>();
  #lastId = 0;
  #isSilent = false;
  #isClosed = false;
  #stopWatch?: () => void;

  constructor(readonly port: MessagePort, readonly options: LineOptions<Ours>) {
    port.onmessage = ({ data }) => {
      for (const entry of data as Entry[]) this.#take(entry);
    };
  }

  /** Calls, and wants no answer. */
  tell<Name extends keyof Theirs & string>(
    name: Name,
    ...args: Parameters<Theirs[Name]>
  ): void {
    this.#queue([0, name, args]);
  }

  /** Calls. A line that is closed, or an answer that is overdue, is `unavailable`. */
  ask<Name extends keyof Theirs & string>(
    name: Name,
    ...args: Parameters<Theirs[Name]>
  ): Promise<CallAnswer<Theirs, Name>> {
    return new Promise((resolve) => this.call(resolve, name, ...args));
  }

  /** Like {@link ask}; `next` is called before anything is taken that was sent behind the answer. */
  call<Name extends keyof Theirs & string>(
    next: (answer: CallAnswer<Theirs, Name>) => void,
    name: Name,
    ...args: Parameters<Theirs[Name]>
  ): void {
    if (this.#isClosed) return next(UNAVAILABLE);
    const id = ++this.#lastId;
    this.#queue([id, name, args]);
    const dueAt = this.options.clock.now() + this.options.answerMs;
    this.#asked.set(id, { dueAt, next: next as Asked["next"] });
    if (!this.#stopWatch) this.#watch(this.options.answerMs);
  }

  /** Sends what waits. What is asked still is answered as `unavailable`. */
  close(): void {
    if (this.#isClosed) return;
    this.#flush();
    this.#isClosed = true;
    this.port.close();
    this.#stopWatch?.();
    this.#refuse(Infinity);
  }

  #queue(entry: Entry): void {
    if (this.#isClosed) return;
    if (this.#outbox.push(entry) === 1) queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    if (this.#isClosed || this.#outbox.length === 0) return;
    this.port.postMessage(this.#outbox);
    this.#outbox = [];
  }

  #take([id, name, payload]: Entry): void {
    if (this.#isClosed) return;
    if (name === null) return this.#settle(id, payload);
    const call = this.options.calls[name as keyof Ours];
    chain(call(...payload as never[]), (answer) => {
      if (id > 0) this.#queue([id, null, answer]);
    });
  }

  #settle(id: number, answer: unknown): void {
    const asked = this.#asked.get(id);
    if (!asked) return;
    this.#asked.delete(id);
    this.#isSilent = false;
    asked.next(answer);
  }

  #watch(ms: number): void {
    this.#stopWatch = this.options.clock.after(ms, () => {
      this.#stopWatch = undefined;
      const now = this.options.clock.now();
      if (this.#refuse(now) && !this.#isSilent) {
        this.#isSilent = true;
        this.options.onSilence?.();
      }
      const [oldest] = this.#asked.values();
      if (oldest) this.#watch(oldest.dueAt - now);
    });
  }

  /** Gives up on what was due by `now`; tells whether anything was. */
  #refuse(now: number): boolean {
    let isAny = false;
    for (const [id, asked] of this.#asked) {
      if (asked.dueAt > now) break;
      this.#asked.delete(id);
      asked.next(UNAVAILABLE);
      isAny = true;
    }
    return isAny;
  }
}
