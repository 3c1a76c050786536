/**
 * What a hook on messages costs: the rates of a chat without a hook, with one that answers at once and
 * with one that answers by a promise; and, with `--before`, of another version without a hook.
 *
 *     deno run -A tests/bench/hooks.ts [--before FOLDER] [--turns N] [--seconds S]
 *
 * Exits with 1 if a listener was short of a message, or if a ratio is below its aim.
 *
 * @module
 */
import { readFlags } from "./flags.ts";
import { measureRow } from "./measure.ts";
import { figureOf } from "./results.ts";
import { ROWS } from "./rows.ts";
import { here, type Server } from "./servers.ts";

const flags = readFlags(import.meta.url, "before", "turns", "seconds");
const turns = Number(flags.turns ?? 5);
const seconds = Number(flags.seconds ?? 2);
if (!(turns >= 1 && seconds > 0)) {
  console.error("Cannot measure: --turns is a number of at least 1, --seconds one above 0");
  Deno.exit(2);
}

/** A variant, what it is held against, and the least ratio of both that is aimed at. */
interface Variant {
  name: string;
  kind: "none" | "sync" | "async";
  folder?: string;
  against?: string;
  aim?: number;
}

// Runs of one and the same server differ by 3 %.
const VARIANTS: Variant[] = [
  ...flags.before ? [{ name: "before", kind: "none", folder: flags.before } as const] : [],
  { name: "no hook", kind: "none", ...flags.before && { against: "before", aim: 0.97 } },
  { name: "sync hook", kind: "sync", against: "no hook", aim: 0.95 },
  { name: "async hook", kind: "async", against: "no hook" },
];

function serverOf({ name, kind, folder }: Variant, dialect: "plain" | "v1"): Server {
  const path = folder ? Deno.realPathSync(folder) : here("../..");
  const args = [Deno.execPath(), "run", "-A", "--no-check", "--config", `${path}/deno.json`];
  const program = [here("peers/hooked.ts"), "PORT", kind, path];
  return {
    name,
    label: name,
    role: "parley",
    dialect,
    version: [],
    install: "",
    command: (port) => ({
      args: [...args, ...program].map((part) => part === "PORT" ? String(port) : part),
    }),
  };
}

const effort = { turns, seconds, retries: 2, warmupSeconds: 0.5 };
let hasFailed = false;
console.log("| messages delivered a second | rate | ratio | |\n| --- | --: | --: | --- |");
for (const name of ["chat 32x32", "chat 10→1000"]) {
  const row = ROWS.find((row) => row.name === name)!;
  for (const dialect of ["plain", "v1"] as const) {
    const servers = VARIANTS.map((variant) => serverOf(variant, dialect));
    const result = await measureRow(row, servers, effort, console.error);
    for (const failure of result.failures) console.error(`FAILED: ${name}, ${dialect}: ${failure}`);
    hasFailed ||= result.failures.length > 0;
    for (const { name: variant, against, aim } of VARIANTS) {
      const rate = figureOf(result, variant, "perSecond");
      const base = against && figureOf(result, against, "perSecond");
      if (rate === undefined) continue;
      const ratio = base ? rate / base : undefined;
      const isMet = aim === undefined || ratio !== undefined && ratio >= aim;
      hasFailed ||= !isMet;
      const shown = ratio === undefined ? "" : `${ratio.toFixed(2)} × ${against}`;
      const verdict = aim === undefined ? "" : `${isMet ? "met" : "NOT MET"}: ≥ ${aim}`;
      const what = `${name}, ${dialect}, ${variant}`;
      console.log(`| ${what} | ${Math.round(rate / 1_000)} k | ${shown} | ${verdict} |`);
    }
  }
}
if (hasFailed) Deno.exit(1);
