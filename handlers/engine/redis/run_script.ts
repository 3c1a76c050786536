/** How scripts are run: by their hashes, once the server has loaded them. */
import type { RedisClientType } from "@redis/client";
import * as SCRIPTS from "./scripts/scripts.ts";

/** The name of a script: a doc comment in `scripts/` says what each one takes and answers. */
export type ScriptName = keyof typeof SCRIPTS;

/** Runs a script; resolves to `undefined` if no answer came. */
export type RunScript = (
  script: ScriptName,
  keys: readonly string[],
  args: readonly (string | number)[],
  hasTimeout?: boolean,
) => Promise<unknown>;

/** Has the server load all scripts; resolves to their hashes by name. @throws {Error} if it does not */
export async function loadScripts(client: RedisClientType): Promise<Map<string, string>> {
  const loaded = Object.entries(SCRIPTS).map(async ([name, source]) => {
    return [name, await client.sendCommand<string>(["SCRIPT", "LOAD", source])] as const;
  });
  return new Map(await Promise.all(loaded));
}
