/**
 * A host that writes down what an engine tells it, and waits for it.
 *
 * @module
 */
import { type Host, isRefusal, type Refusal } from "../../handlers/engine/engine.ts";
import type { Head } from "../../handlers/protocol/position.ts";
import type { Chat, Members, RoomEvent } from "../../handlers/protocol/room_event.ts";
import type { MaybePromise } from "../../handlers/util/maybe_promise.ts";
import { eventually, soon } from "./inbox.ts";
import { IS_FULL } from "./run.ts";

export { eventually };

/** Everything that a room's host hears, oldest first. */
export class Recorder implements Host {
  readonly events: RoomEvent[] = [];
  #waiting?: () => void;

  constructor(public subscriberCount = 1) {}

  deliver(event: RoomEvent): void {
    this.events.push(event);
    this.#waiting?.();
  }

  /** The messages so far. */
  get chats(): Chat[] {
    return this.events.filter((event) => event.type === "chat").map(({ chat }) => chat);
  }

  /** The texts of the messages so far. */
  get messages(): string[] {
    return this.chats.map((chat) => chat.message);
  }

  /** Settles as soon as `isDone` holds. */
  async until(isDone: (recorder: this) => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const check = () => isDone(this) && resolve();
    this.#waiting = check;
    check();
    const last = () =>
      `${isDone}; ${this.events.length} events, last ${JSON.stringify(this.events.slice(-5))}`;
    try {
      await soon(promise, last);
    } finally {
      this.#waiting = undefined;
    }
  }
}

/** The members of a room: sockets without a user, by name. */
export function people(...names: string[]): Members {
  return { members: names.map((name) => ({ name, sockets: 1 })), count: names.length };
}

/** The result of a call that must not be refused. */
export async function granted<T>(answer: MaybePromise<T | Refusal>): Promise<T> {
  const value = await answer;
  if (isRefusal(value)) throw new Error(`Refused: ${value.refused}`);
  return value;
}

/** The first answer of a call that is no refusal: what is asked must do no harm when it is repeated. */
export async function untilGranted<T>(ask: () => MaybePromise<T | Refusal>): Promise<T> {
  return await granted(await eventually<T | Refusal>(ask, (answer) => !isRefusal(answer)));
}

/** Opens a room on an engine with a new {@link Recorder}. */
export async function hear(
  engine: { host(room: string, host: Host): MaybePromise<Head | Refusal> },
  room: string,
  subscriberCount?: number,
): Promise<{ recorder: Recorder; head: Head }> {
  const recorder = new Recorder(subscriberCount);
  return { recorder, head: await granted(engine.host(room, recorder)) };
}

/** What `work` gives. At full size, where nothing else runs, it must take less than `ms`. */
export async function within<T>(ms: number, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await work();
  const tookMs = performance.now() - start;
  if (IS_FULL && tookMs >= ms) {
    throw new Error(`Took ${Math.round(tookMs)} ms, not less than ${ms}`);
  }
  return result;
}
