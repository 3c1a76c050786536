/**
 * `deno task attack`: the attacks again and again, each time with another seed. `--times` says how
 * often (10), `--seed` where to begin. A failure is played again with `FUZZ_SEED={seed} deno test -A
 * tests/attack`.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";

const flags = parseArgs(Deno.args, { string: ["times", "seed"] });
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
