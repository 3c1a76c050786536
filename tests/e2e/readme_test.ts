/** The README says what the code does, where a machine can tell. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { CLOSE } from "../../handlers/protocol/close_codes.ts";
import { ERROR_TEXTS } from "../../handlers/protocol/encode.ts";
import { settingsTable } from "../../handlers/start/help.ts";
import { createTestApp } from "../support/fakes.ts";
import { ROOT } from "../support/process.ts";

const readme = await Deno.readTextFile(`${ROOT}README.md`);

/** The cells of a Markdown table, whatever their padding. */
function cells(table: string): string[][] {
  return table.trim().split("\n").map((row) =>
    row.split("|").map((cell) => cell.trim().replace(/^-+$/, "---"))
  );
}

Deno.test("the README's table of settings is the code's", () => {
  const [, table] = readme.match(/<!-- settings -->\n([^]*)<!-- \/settings -->/)!;
  const hint =
    `deno eval 'import { settingsTable } from "./handlers/start/help.ts"; console.log(settingsTable())'`;
  assertEquals(cells(table), cells(settingsTable()), `the table to paste: ${hint}`);
});

Deno.test("the README's files, links and tasks exist", async () => {
  const links = [...readme.matchAll(/\]\((?!https?:|#)([^)\s]+)\)/g)].map(([, path]) => path);
  const files = [...readme.matchAll(/`((?:handlers|tests|\.ci)\/[\w./-]+)`/g)]
    .map(([, path]) => path);
  for (const path of [...links, ...files]) await Deno.stat(ROOT + path);
  for (const [, task] of readme.matchAll(/deno task (\w+)/g)) {
    assertEquals(Object.hasOwn(config.tasks, task), true, task);
  }
});

Deno.test("the README tells every error of parley.v1 and every close", () => {
  const told = (text: string) => assert(readme.includes(text), text);
  for (const [code, text] of Object.entries(ERROR_TEXTS)) {
    told(`\`${code}\``);
    if (!code.includes("room")) told(`{"type":"error","message":"${text}"}`);
  }
  for (const { code, reason } of Object.values(CLOSE)) {
    assertMatch(readme, RegExp(`^\\| ${code} +\\|.*\`${reason}\``, "m"));
  }
});

Deno.test("the README's metrics are those of /metrics", async () => {
  const metrics = await (await createTestApp().ask("/metrics")).text();
  for (const [, name, label] of readme.matchAll(/`((?:parley|process)_\w+)(\{.+?="\w+"\})?/g)) {
    assert(metrics.includes(`# TYPE ${name} `), name);
    assert(metrics.includes(name + (label ?? "")), label);
  }
});
