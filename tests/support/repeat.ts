/**
 * `deno task attack`, `faults` and `pages`: folders and files of tests at full size, once or again and again.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { ROOT } from "./process.ts";

const flagsAt = Deno.args.findIndex((arg) => arg.startsWith("-"));
const paths = Deno.args.slice(0, flagsAt < 0 ? undefined : flagsAt);
const args = Deno.args.slice(paths.length);
const [folder] = paths;
const task = folder.split("/").at(-1);

const HELP = `Runs the tests of ${paths.join(" and ")} at full size, each time with another seed.

  deno task ${task} [flags]

  --times N   how often (default: 1)
  --seed N    the first seed (default: 1)
  --help

Exits with 1 if one failed; --seed plays it again.`;

const flags = parseArgs(args, { string: ["times", "seed"], boolean: ["help"] });
if (flags.help) {
  console.log(HELP);
  Deno.exit();
}
const first = Number(flags.seed ?? 1);
const failed: number[] = [];
for (let seed = first; seed < first + Number(flags.times ?? 1); seed++) {
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", ...paths],
    cwd: ROOT,
    env: { FULL_SIZE: "1", SEED: `${seed}` },
  }).spawn().status;
  if (!success) failed.push(seed);
}
if (failed.length > 0) {
  console.log(`failed with --seed ${failed.join(", ")}`);
  Deno.exitCode = 1;
}
