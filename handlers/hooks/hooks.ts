/** The rules of a program between a message and its room. `handlers/README.md`, The library. */
import type { MaybePromise } from "../util/maybe_promise.ts";

/** Whom something comes from, and for which room. */
export interface From {
  /** The room. */
  room: string;
  /** The name in the room. */
  name: string;
  /** The user that a token tells. */
  user?: string;
  /** By which way it came. */
  via: "socket" | "http";
}

/** A refusal by a hook: the sender gets its text. */
export class Refused {
  /** Refuses with a text for the sender. */
  constructor(readonly text: string) {}

  /** What the log says of one that was thrown. */
  toString(): string {
    return `refuse(${JSON.stringify(this.text)}) is to be returned, not thrown`;
  }
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
  /** Before a change of the state takes effect: another value, a refusal, or nothing to let it be. A removal's value is null. */
  onSet?(
    from: From & { key: string; value: unknown },
  ): MaybePromise<{ value: unknown } | Refused | void>;
  /** After a member has left. */
  onLeave?(from: From): void;
}

/** What a backend may be asked about. */
export const HOOK_EVENTS = ["join", "chat", "note", "set"] as const;

/** One of {@link HOOK_EVENTS}. */
export type HookEvent = typeof HOOK_EVENTS[number];

/** Thrown by a hook that cannot decide now: its sender gets `unavailable`, and may try again. */
export class HookUnavailable extends Error {
  override name = "HookUnavailable";
}
