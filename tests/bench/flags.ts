/** The command line of a program of this folder. */
import { parseArgs } from "node:util";

/**
 * The flags, each with a value. `--help` prints the program's first comment; what is no flag of `names`
 * ends it with 2.
 *
 * @param module `import.meta.url` of the program
 */
export function readFlags<Name extends string = never>(
  module: string,
  ...names: Name[]
): Partial<Record<Name, string>> {
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" } as const]));
  try {
    const { values: { help, ...flags } } = parseArgs({
      args: Deno.args,
      options: { ...options, help: { type: "boolean" } },
    });
    if (!help) return flags as Partial<Record<Name, string>>;
  } catch (error) {
    console.error(`Cannot measure: ${(error as Error).message}`);
    Deno.exit(2);
  }
  const [, comment] = /^\/\*\*\n(.*?)\n \*(?: @module\n \*)?\//s.exec(
    Deno.readTextFileSync(new URL(module)),
  )!;
  console.log(comment.replace(/^ \* ?/gm, "").trimEnd());
  Deno.exit();
}
