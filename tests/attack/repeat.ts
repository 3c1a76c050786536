/**
 * `deno task attack`: the attacks again and again, each time with another seed.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";

const HELP = `Runs the tests of tests/attack again and again, each time with another seed.

  deno task attack [flags]

  --times N   how often (default: 10)
  --seed N    where to begin (default: by the clock)
  --help

FUZZ_SEED=N deno test -A tests/attack plays one of them again.`;

const flags = parseArgs(Deno.args, { string: ["times", "seed"], boolean: ["help"] });
if (flags.help) {
  console.log(HELP);
  Deno.exit();
}
const times = Number(flags.times ?? 10);
const first = Number(flags.seed ?? Date.now() % 1_000_000);
const failed: number[] = [];
for (let seed = first; seed < first + times; seed++) {
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "tests/attack"],
    env: { FUZZ_SEED: `${seed}` },
  }).spawn().status;
  if (!success) failed.push(seed);
}
console.log(
  failed.length === 0
    ? `${times} times, none failed`
    : `failed with FUZZ_SEED ${failed.join(", ")}`,
);
if (failed.length > 0) Deno.exitCode = 1;
