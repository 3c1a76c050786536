/** The rules of a program between a message and its room. `handlers/README.md`, The library. */
import { isPersonName, isShallow } from "../protocol/parse.ts";
import { byteLength } from "../util/bytes.ts";
import { errorText, type Log } from "../util/log.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";

/** Whom something comes from, and for which room. */
export interface From {
  /** The room. */ room: string;
  /** The name in the room. */
  name: string;
  /** The user that a token tells. */
  user?: string;
  /** By which way it came. */ via: "socket" | "http";
}

/** A refusal by a hook: the sender gets its text. */
export class Refused {
  /** Refuses with a text for the sender. */
  constructor(readonly text: string) {}
}

/** Makes the answer of a hook that refuses: `return refuse("Be kind.")`. */
export function refuse(text: string): Refused {
  return new Refused(text);
}

/**
 * What a program may decide. Each hook may answer at once or by a promise: one sender's messages keep
 * their order behind it, nobody else waits. A hook that throws or rejects refuses with
 * `Server error.`, and costs one line of the log.
 */
export interface Hooks {
  /** Before a join: another name, a refusal, or nothing to let it be. */
  onJoin?(from: From): MaybePromise<string | Refused | void>;
  /** Before a message or a note takes effect: another message, a refusal, or nothing to let it be. */
  onMessage?(
    from: From & { message: unknown; kind: "chat" | "note" },
  ): MaybePromise<{ message: unknown } | Refused | void>;
  /** After a member has left. */
  onLeave?(from: From): void;
}

/** A hook's refusal on its way to the sender. */
export interface HookRejection {
  refused: "refused";
  text: string;
}

/** What a sender gets for a fault of a hook. */
const FAULT: HookRejection = { refused: "refused", text: "Server error." };

/** Calls hooks: what they answer is checked, and their faults stay with their sender. */
export class HookCaller {
  readonly #hooks: Hooks;

  constructor(hooks: Hooks, readonly log: Log, readonly limits: { maxMessageBytes: number }) {
    this.#hooks = hooks;
  }

  /** Whether the program has this hook. */
  has(hook: keyof Hooks): boolean {
    return this.#hooks[hook] !== undefined;
  }

  /** The name to join under. */
  join(from: From): MaybePromise<string | HookRejection> {
    const { onJoin } = this.#hooks;
    if (!onJoin) return from.name;
    return this.#call("onJoin", from.room, () => onJoin(from), (answer) => {
      if (answer === undefined) return from.name;
      if (!isPersonName(answer)) throw new TypeError(`no name: ${JSON.stringify(answer)}`);
      return answer;
    });
  }

  /** The message to publish, as JSON text. */
  message(
    from: From,
    message: unknown,
    kind: "chat" | "note",
  ): MaybePromise<string | HookRejection> {
    const { onMessage } = this.#hooks;
    if (!onMessage) return JSON.stringify(message);
    const call = () => onMessage({ ...from, message, kind });
    return this.#call("onMessage", from.room, call, (answer) => {
      if (answer === undefined) return JSON.stringify(message);
      return this.#encode((answer as { message: unknown }).message);
    });
  }

  /** Tells that a member has left. */
  leave(from: From): void {
    const { onLeave } = this.#hooks;
    if (onLeave) this.#call("onLeave", from.room, () => onLeave(from), () => undefined);
  }

  #encode(value: unknown): string {
    if (!isShallow(value)) {
      throw new TypeError("the value nests too deep, or a number is too large");
    }
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError(`no JSON value: ${String(value)}`);
    const { maxMessageBytes } = this.limits;
    const size = byteLength(text);
    if (size > maxMessageBytes) {
      throw new RangeError(`the value has ${size} bytes, at most ${maxMessageBytes} are allowed`);
    }
    return text;
  }

  #call<T>(
    hook: keyof Hooks,
    room: string,
    call: () => MaybePromise<unknown>,
    read: (answer: unknown) => T,
  ): MaybePromise<T | HookRejection> {
    const settle = (answer: unknown) => {
      return answer instanceof Refused
        ? { refused: "refused", text: String(answer.text) } as const
        : read(answer);
    };
    const fail = (error: unknown) => {
      const text = `Hook ${hook} failed in ${room}: ${errorText(error)}`;
      this.log.error(text, { event: "hook", hook, room });
      return FAULT;
    };
    try {
      const answer = call();
      return isThenable(answer) ? Promise.resolve(answer).then(settle).catch(fail) : settle(answer);
    } catch (error) {
      return fail(error);
    }
  }
}

/** Whether an answer comes later: promises of other makes count, too. */
function isThenable(answer: unknown): answer is PromiseLike<unknown> {
  return typeof (answer as PromiseLike<unknown> | undefined | null)?.then === "function";
}
