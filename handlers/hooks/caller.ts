/** Calls the hooks of a program: what they answer is checked, and their faults stay with their sender. */
import { encodeJson, isShallow } from "../protocol/json.ts";
import { isPersonName } from "../protocol/parse.ts";
import { byteLength } from "../util/bytes.ts";
import type { Clock } from "../util/clock.ts";
import { errorText, type Log } from "../util/log.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import { type From, type Hooks, HookUnavailable, Refused } from "./hooks.ts";

/** A hook's refusal on its way to the sender. */
export interface HookRejection {
  refused: "refused" | "unavailable";
  text?: string;
}

/** What hooks are called with. */
export interface HookContext {
  log: Log;
  clock: Clock;
  limits: { maxMessageBytes: number };
  /** What hooks that answer later count. */
  counters: { hookCalls: Record<string, number>; hookSeconds: number; hookWaiting: number };
}

/** What a sender gets for a fault of a hook. */
const FAULT: HookRejection = { refused: "refused", text: "Server error." };
/** What a sender gets whose hook does not answer. */
const UNAVAILABLE: HookRejection = { refused: "unavailable" };
/** Times out hooks, in ms. */
const MAX_HOOK_MS = 30_000;
/** HTTP requests that wait for hooks; what waits of a socket is bounded by the socket. */
const MAX_WAITING_REQUESTS = 1_000;

/** Calls hooks: what they answer is checked, and their faults stay with their sender. */
export class HookCaller {
  readonly #hooks: Hooks;
  /** Ends the waiting for each answer that is to come. */
  readonly #waiting = new Set<() => void>();
  #waitingRequests = 0;
  #isClosed = false;

  constructor(hooks: Hooks, readonly context: HookContext) {
    this.#hooks = hooks;
  }

  /** Answers `unavailable` to all that wait, and to all that come. */
  close(): void {
    this.#isClosed = true;
    for (const end of this.#waiting) end();
  }

  has(hook: keyof Hooks): boolean {
    return this.#hooks[hook] !== undefined;
  }

  join(from: From): MaybePromise<string | HookRejection> {
    const { name } = from;
    if (!this.has("onJoin")) return name;
    return this.#call("onJoin", from, (hooks) => hooks.onJoin!(from), (answer) => {
      if (answer === undefined) return name;
      if (!isPersonName(answer)) throw new TypeError(`no name: ${JSON.stringify(answer)}`);
      return answer;
    });
  }

  /**
   * The message to publish, as JSON text.
   * @param text the message as it is
   */
  message(
    from: From,
    message: unknown,
    kind: "chat" | "note",
    text = encodeJson(message),
  ): MaybePromise<string | HookRejection> {
    if (!this.has("onMessage")) return text;
    const { room, name, user, via } = from;
    const call = (hooks: Hooks) => hooks.onMessage!({ room, name, user, via, message, kind });
    return this.#call("onMessage", from, call, (answer) => {
      return answer === undefined ? text : this.#encode((answer as { message: unknown }).message);
    });
  }

  /**
   * The value to set, as JSON text.
   * @param text the value as it is
   */
  set(
    from: From,
    key: string,
    value: unknown,
    text = encodeJson(value),
  ): MaybePromise<string | HookRejection> {
    if (!this.has("onSet")) return text;
    const call = (hooks: Hooks) => hooks.onSet!({ ...from, key, value });
    return this.#call("onSet", from, call, (answer) => {
      return answer === undefined ? text : this.#encode((answer as { value: unknown }).value);
    });
  }

  leave(from: From): void {
    if (this.has("onLeave")) this.#call("onLeave", from, (hooks) => hooks.onLeave!(from), () => {});
  }

  #encode(value: unknown): string {
    if (!isShallow(value)) {
      throw new TypeError("the value nests too deep, or a number is too large or inexact");
    }
    const text = encodeJson(value);
    if (text === undefined) throw new TypeError(`no JSON value: ${String(value)}`);
    const { maxMessageBytes } = this.context.limits;
    const size = byteLength(text);
    if (size > maxMessageBytes) {
      throw new RangeError(`the value has ${size} bytes, at most ${maxMessageBytes} are allowed`);
    }
    return text;
  }

  #call<T>(
    hook: keyof Hooks,
    { room, via }: From,
    call: (hooks: Hooks) => MaybePromise<unknown>,
    read: (answer: unknown) => T,
  ): MaybePromise<T | HookRejection> {
    const isRequest = via === "http";
    const isBusy = isRequest && this.#waitingRequests >= MAX_WAITING_REQUESTS;
    if (isBusy || this.#isClosed && hook !== "onLeave") return UNAVAILABLE;
    try {
      const answer = call(this.#hooks);
      if (!isThenable(answer)) return settle(answer, read);
      const settled = Promise.resolve(answer)
        .then((answer) => settle(answer, read))
        .catch((error) => this.#fail(hook, room, error));
      const onLate = () => this.#log(hook, room, `did not answer in ${room}`);
      return this.#wait(settled, Number(isRequest), onLate);
    } catch (error) {
      return this.#fail(hook, room, error);
    }
  }

  #fail(hook: keyof Hooks, room: string, error: unknown): HookRejection {
    if (isUnavailable(error)) return UNAVAILABLE;
    this.#log(hook, room, `failed in ${room}: ${errorText(error)}`);
    return FAULT;
  }

  #log(hook: keyof Hooks, room: string, what: string): void {
    this.context.log.error(`Hook ${hook} ${what}`, { event: "hook", hook, room });
  }

  /** Waits for an answer, but no longer than {@link MAX_HOOK_MS} or until {@link close}. */
  async #wait<T>(
    answer: Promise<T | HookRejection>,
    requests: number,
    onLate: () => void,
  ): Promise<T | HookRejection> {
    const { clock, counters } = this.context;
    const start = clock.elapsedMs();
    const end = Promise.withResolvers<HookRejection>();
    const stopWaiting = () => end.resolve(UNAVAILABLE);
    const cancel = clock.after(MAX_HOOK_MS, () => {
      onLate();
      stopWaiting();
    });
    this.#waiting.add(stopWaiting);
    this.#waitingRequests += requests;
    counters.hookWaiting = this.#waiting.size;
    const result = await Promise.race([answer, end.promise]);
    cancel();
    this.#waiting.delete(stopWaiting);
    this.#waitingRequests -= requests;
    counters.hookWaiting = this.#waiting.size;
    counters.hookSeconds += (clock.elapsedMs() - start) / 1_000;
    counters.hookCalls[outcomeOf(result)]++;
    return result;
  }
}

function settle<T>(answer: unknown, read: (answer: unknown) => T): T | HookRejection {
  if (answer instanceof Refused) return { refused: "refused", text: String(answer.text) };
  return read(answer);
}

/** Whatever was thrown, a proxy that throws by itself too, this does not throw. */
function isUnavailable(error: unknown): boolean {
  try {
    return error instanceof HookUnavailable;
  } catch {
    return false;
  }
}

function outcomeOf(result: unknown): string {
  if (result === FAULT) return "failed";
  return (result as HookRejection | undefined)?.refused ?? "passed";
}

/** Whether an answer comes later: promises of other makes count, too. */
function isThenable(answer: unknown): answer is PromiseLike<unknown> {
  return typeof (answer as PromiseLike<unknown> | undefined | null)?.then === "function";
}
