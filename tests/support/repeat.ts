/**
 * `deno task attack`, `faults` and `pages`: folders of tests at full size, once or again and again.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { ROOT } from "./process.ts";

const [paths, ...args] = Deno.args;
const folders = paths.split(",");
const task = folders[0].split("/").at(-1);

const HELP = `Runs the tests of ${folders.join(" and ")} at full size, each time with another seed.

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
    args: ["test", "-A", ...folders],
    cwd: ROOT,
    env: { FULL_SIZE: "1", SEED: `${seed}` },
  }).spawn().status;
  if (!success) failed.push(seed);
}
if (failed.length > 0) {
  console.log(`failed with --seed ${failed.join(", ")}`);
  Deno.exitCode = 1;
}
