/**
 * A channel between two threads: calls and their answers over a `MessagePort`, in order, one flat
 * array a turn of the event loop however many calls it brings.
 *
 * A port has no backpressure, so what the other side has not confirmed yet is counted.
 */
import { setImmediate } from "node:timers";
import { chain } from "../util/maybe_promise.ts";
import { type Refusal, UNAVAILABLE } from "./engine.ts";

/** Functions that the other side may call; arguments and answers are copied. */
export type Calls<T> = { [Name in keyof T]: (...args: never[]) => unknown };

/** What a channel is made of. */
export interface ChannelOptions<Ours> {
  /** What this side answers. They neither throw nor reject. */
  calls: Ours;
  /** How many bytes may be unconfirmed before {@link Channel.isFull}. @default 64 MiB */
  maxUnconfirmedBytes?: number;
  /** Called each time that something is sent while the channel is full. */
  onFull?(): void;
  /** Called once, when the other side has closed the channel. */
  onClose?(): void;
}

const MAX_UNCONFIRMED_BYTES = 64 * 1024 * 1024;
/** What is received is confirmed in steps of so many bytes. */
const CONFIRM_BYTES = 256 * 1024;
const ANSWER = 0;
const CONFIRM = 1;
const CLOSE = 2;

/** One end of a channel. `Theirs` is what the other end answers. */
export class Channel<Ours extends Calls<Ours>, Theirs extends Calls<Theirs>> {
  /** Its bytes, then a name, an id (0: nobody waits for the answer), a count and so many values each. */
  #outbox: unknown[] = [0];
  #outboxBytes = 0;
  #unconfirmedBytes = 0;
  #receivedBytes = 0;
  #pending = new Map<number, (answer: unknown) => void>();
  #lastId = 0;
  #isClosed = false;

  constructor(readonly port: MessagePort, readonly options: ChannelOptions<Ours>) {
    port.onmessage = ({ data }) => this.#receive(data);
  }

  /** Whether the other side is so far behind that nothing more should be sent. */
  get isFull(): boolean {
    const { maxUnconfirmedBytes = MAX_UNCONFIRMED_BYTES } = this.options;
    return this.#unconfirmedBytes + this.#outboxBytes > maxUnconfirmedBytes;
  }

  notify<Name extends keyof Theirs & string>(name: Name, ...args: Parameters<Theirs[Name]>): void {
    this.#enqueue(name, 0, args);
  }

  /** Calls. While the channel is full or closed, `unavailable`. */
  call<Name extends keyof Theirs & string>(
    name: Name,
    ...args: Parameters<Theirs[Name]>
  ): Promise<Awaited<ReturnType<Theirs[Name]>> | Refusal> {
    if (this.#isClosed || this.isFull) return Promise.resolve(UNAVAILABLE);
    return new Promise((resolve) => {
      this.#pending.set(++this.#lastId, resolve as (answer: unknown) => void);
      this.#enqueue(name, this.#lastId, args);
    });
  }

  /** Sends what waits, and tells the other side. Calls without an answer are `unavailable`. */
  close(): void {
    if (this.#isClosed) return;
    this.#enqueue(CLOSE, 0, []);
    this.#flush();
    this.#isClosed = true;
    this.port.close();
    for (const resolve of this.#pending.values()) resolve(UNAVAILABLE);
    this.#pending.clear();
  }

  #enqueue(name: string | number, id: number, values: unknown[]): void {
    if (this.#isClosed) return;
    if (this.#outboxBytes === 0) setImmediate(() => this.#flush());
    this.#outbox.push(name, id, values.length, ...values);
    this.#outboxBytes += sizeOf(values);
    if (name !== CLOSE && this.isFull) this.options.onFull?.();
  }

  #flush(): void {
    if (this.#isClosed || this.#outboxBytes === 0) return;
    this.#outbox[0] = this.#outboxBytes;
    this.#unconfirmedBytes += this.#outboxBytes;
    this.port.postMessage(this.#outbox);
    this.#outbox = [0];
    this.#outboxBytes = 0;
  }

  #receive(entries: unknown[]): void {
    for (let i = 1; i < entries.length && !this.#isClosed;) {
      const count = entries[i + 2] as number;
      const values = entries.slice(i + 3, i + 3 + count);
      this.#dispatch(entries[i] as string | number, entries[i + 1] as number, values);
      i += 3 + count;
    }
    this.#receivedBytes += entries[0] as number;
    if (this.#receivedBytes < CONFIRM_BYTES) return;
    this.#enqueue(CONFIRM, this.#receivedBytes, []);
    this.#receivedBytes = 0;
  }

  #dispatch(name: string | number, id: number, values: unknown[]): void {
    if (name === ANSWER) {
      this.#pending.get(id)?.(values[0]);
      this.#pending.delete(id);
    } else if (name === CONFIRM) this.#unconfirmedBytes -= id;
    else if (name === CLOSE) {
      this.close();
      this.options.onClose?.();
    } else {
      try {
        const answer = this.options.calls[name as keyof Ours](...values as never[]);
        if (id > 0) chain(answer, (value) => this.#enqueue(ANSWER, id, [value]));
      } catch (error) {
        // One call's error must not cost another.
        reportError(error);
      }
    }
  }
}

/** About how many bytes a value takes on its way. */
function sizeOf(value: unknown): number {
  if (typeof value === "string") return value.length;
  if (value instanceof Uint8Array) return value.byteLength;
  if (typeof value !== "object" || value === null) return 8;
  let bytes = 32;
  for (const part of Object.values(value)) bytes += sizeOf(part);
  return bytes;
}
