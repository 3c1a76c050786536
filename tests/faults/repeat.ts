/**
 * `deno task faults`: all fault tests again and again, with 20 kills in each that kills.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";

const HELP = `Runs the tests of tests/faults again and again, with 20 kills in each that kills.
Prints a line a time, and ends at the first failure.

  deno task faults [flags]

  --times N   how often (default: 10)
  --help`;

const flags = parseArgs(Deno.args, { string: ["times"], boolean: ["help"] });
if (flags.help) {
  console.log(HELP);
  Deno.exit();
}
const times = Number(flags.times ?? 10);
for (let time = 1; time <= times; time++) {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "tests/faults"],
    env: { FAULT_ROUNDS: "20", NO_COLOR: "1" },
    stderr: "inherit",
  }).output();
  const report = new TextDecoder().decode(stdout).trim();
  console.log(`${time} of ${times}: ${success ? report.split("\n").at(-1) : report}`);
  if (!success) Deno.exit(1);
}
