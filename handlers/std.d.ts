/**
 * Types of the standard library's npm build, which ships none: only what Parley calls. Keyed by the
 * bare specifiers of `deno.json`, so that a move to JSR is a change of that file alone.
 */
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
  export function eTag(entity: string): Promise<string | undefined>;
  export function ifNoneMatch(value: string | null, etag: string | undefined): boolean;
}

declare module "@std/text/closest-string" {
  export function closestString(word: string, possibleWords: string[]): string;
}
