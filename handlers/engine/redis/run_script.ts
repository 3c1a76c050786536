/** How scripts are run: by their hashes, once the server has loaded them. */
import type { RedisClientType } from "@redis/client";
import type { RedisProcess } from "./process.ts";
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

/** The hashes of the scripts. */
export class LoadedScripts {
  readonly #shas = new Map<string, string>();

  /** Has the server load all scripts. @throws {Error} if it does not */
  async load(client: RedisClientType): Promise<void> {
    await Promise.all(
      Object.entries(SCRIPTS).map(async ([name, source]) => {
        this.#shas.set(name, await client.sendCommand<string>(["SCRIPT", "LOAD", source]));
      }),
    );
  }

  /** The command that runs a script; `args` follow the server's run id and whether it is durable. */
  toCommand(
    { runId, isDurable }: RedisProcess,
    ...[script, keys, args]: Parameters<RunScript>
  ): string[] {
    const command = ["EVALSHA", this.#shas.get(script) ?? "", `${keys.length}`, ...keys];
    command.push(runId, isDurable ? "1" : "0");
    for (const argument of args) command.push(`${argument}`);
    return command;
  }
}
