/**
 * Types of the standard library's npm build, which ships none: only what Parley calls.
 *
 * Keyed by the bare specifiers of `deno.json`, so that a move to JSR is a change of that file alone.
 */
declare module "@std/assert" {
  export function assert(expr: unknown, msg?: string): asserts expr;
  export function assertEquals<T>(actual: T, expected: T, msg?: string): void;
  export function assertNotEquals<T>(
    actual: T,
    expected: T,
    msg?: string,
  ): void;
  export function assertStrictEquals<T>(
    actual: unknown,
    expected: T,
    msg?: string,
  ): asserts actual is T;
  export function assertExists<T>(
    actual: T,
    msg?: string,
  ): asserts actual is NonNullable<T>;
  export function assertMatch(
    actual: string,
    expected: RegExp,
    msg?: string,
  ): void;
  export function assertNotMatch(
    actual: string,
    expected: RegExp,
    msg?: string,
  ): void;
  export function assertStringIncludes(
    actual: string,
    expected: string,
    msg?: string,
  ): void;
  export function assertArrayIncludes<T>(
    actual: ArrayLike<T>,
    expected: ArrayLike<T>,
    msg?: string,
  ): void;
  export function assertObjectMatch(
    actual: object,
    expected: object,
    msg?: string,
  ): void;
  export function assertGreater<T>(actual: T, expected: T, msg?: string): void;
  export function assertGreaterOrEqual<T>(
    actual: T,
    expected: T,
    msg?: string,
  ): void;
  export function assertLess<T>(actual: T, expected: T, msg?: string): void;
  export function assertLessOrEqual<T>(
    actual: T,
    expected: T,
    msg?: string,
  ): void;
  export function assertInstanceOf<T>(
    actual: unknown,
    // deno-lint-ignore no-explicit-any -- a constructor of whatever arguments
    expected: abstract new (...args: any[]) => T,
    msg?: string,
  ): asserts actual is T;
  export function assertThrows<E extends Error = Error>(
    fn: () => unknown,
    // deno-lint-ignore no-explicit-any -- a constructor of whatever arguments
    ErrorClass?: abstract new (...args: any[]) => E,
    msgIncludes?: string,
  ): E;
  export function assertRejects<E extends Error = Error>(
    fn: () => PromiseLike<unknown>,
    // deno-lint-ignore no-explicit-any -- a constructor of whatever arguments
    ErrorClass?: abstract new (...args: any[]) => E,
    msgIncludes?: string,
  ): Promise<E>;
  export function fail(msg?: string): never;
}

declare module "@std/cli/parse-args" {
  export function parseArgs(
    args: string[],
    options: {
      string?: string[];
      boolean?: string[];
      alias?: Record<string, string>;
      default?: Record<string, unknown>;
      unknown?: (argument: string) => unknown;
    },
  ): Record<string, string | undefined> & { help: boolean; version: boolean };
}

declare module "@std/http/etag" {
  export function eTag(
    entity: string | Uint8Array,
  ): Promise<string | undefined>;
  export function ifNoneMatch(
    value: string | null,
    etag: string | undefined,
  ): boolean;
}

declare module "@std/http/server-sent-event-stream" {
  /** One event; a `comment` keeps the line open. */
  export interface ServerSentEventMessage {
    comment?: string;
    event?: string;
    data?: string;
    id?: string | number;
    retry?: number;
  }
  export class ServerSentEventStream extends TransformStream<ServerSentEventMessage, Uint8Array> {}
}

declare module "@std/text/closest-string" {
  export function closestString(word: string, possibleWords: string[]): string;
}
