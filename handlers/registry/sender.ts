/** Whom a message comes from, as a room sees it: a socket or an HTTP request. */
import type { Rights } from "../access/grants.ts";
import type { Refusal } from "../engine/engine.ts";
import type { ErrorCode } from "../protocol/encode.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";

/** Why something was not done. `retry` is in ms. */
export interface Rejection {
  refused: ErrorCode | Refusal["refused"];
  retry?: number;
  /** Of `rev_conflict`: the rev of the key. */
  rev?: number;
  /** The text of a hook, in place of the code's own. */
  text?: string;
}

/** The sender has no right to it. */
export const FORBIDDEN: Rejection = { refused: "forbidden" };

/** What a message costs its sender. */
export interface Cost {
  /** Bytes: as they came or as they go out, whichever are more. */
  size: number;
  /** Frames that it causes; what is merged into frames of other messages counts nothing. */
  frames?: number;
  /** Whether it may open a room. */
  opensRoom?: boolean;
}

/** Whoever sends to rooms. Calls from code have none: they pass no right, rate or hook. */
export interface Sender {
  readonly via: "socket" | "http";
  /** What it may do, as of now. */
  readonly rights: Rights;
  /** What limits count it by. */
  readonly address: string;
  /** The order in which its messages take effect. */
  readonly line: Line;
  /** Whether what still waits of it is dropped. */
  readonly hasEnded?: boolean;
  /** The name it has in a room; a socket has none where it has not joined. */
  nameIn(room: string): string | undefined;
  /**
   * Charges it for a message.
   * @returns 0, or the ms until it may send that
   */
  tryConsume(cost: Cost): MaybePromise<number>;
}

/** Keeps one sender's order where something that it sent has to wait. */
export class Line {
  #last?: Promise<unknown>;
  /** What its messages that wait take; see the intake. */
  waitingBytes = 0;
  /** How many of its messages wait for nothing but their turn. */
  enteringCount = 0;

  /** Runs a task behind those that hold the line: in the same call if none does. */
  run<T>(task: () => MaybePromise<T>): MaybePromise<T> {
    return this.#last ? this.#last.then(task) : task();
  }

  /** Runs a task in the same way; what comes behind it waits until its promise is settled. */
  hold<T>(task: () => MaybePromise<T>): MaybePromise<T> {
    const result = this.run(task);
    if (result instanceof Promise) {
      const release = () => {
        if (this.#last === last) this.#last = undefined;
      };
      const last: Promise<void> = result.then(release, release);
      this.#last = last;
    }
    return result;
  }
}
