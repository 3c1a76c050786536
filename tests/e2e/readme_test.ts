/** The README files say what the code does, where a machine can tell. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { dirname, join } from "node:path/posix";
import config from "../../deno.json" with { type: "json" };
import { CLOSE } from "../../handlers/protocol/close_codes.ts";
import { ERROR_TEXTS } from "../../handlers/protocol/encode.ts";
import { createTestApp } from "../support/fakes.ts";
import { ROOT } from "../support/process.ts";
import { readReadmes, withGeneratedParts } from "../support/readmes.ts";

const readmes = await readReadmes();
const all = readmes.map(({ text }) => text).join("\n");

function readme(path: string): string {
  return readmes.find((readme) => readme.path === path)!.text;
}

/** A text without the padding of tables. */
function unpadded(text: string): string {
  return text.replace(/ +/g, " ").replace(/-{3,}/g, "---");
}

/** What an id of a heading is on GitHub. */
function anchorOf(heading: string): string {
  return heading.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-");
}

Deno.test("the README is short enough to be read", () => {
  const lines = readme("README.md").split("\n").length - 1;
  assert(lines <= 250, `${lines} lines`);
});

Deno.test("tables of settings and the variables that may be read are the code's", () => {
  for (const { path, text } of readmes) {
    const hint = `${path}: deno run -A tests/support/readmes.ts writes it anew`;
    assertEquals(unpadded(text), unpadded(withGeneratedParts(text)), hint);
  }
  assert(all.includes("<!-- settings -->") && all.includes("<!-- eight settings -->"));
});

Deno.test("the files, headings and tasks that a README names exist", async () => {
  for (const { path, text } of readmes) {
    for (const [, link] of text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [file, anchor] = link.split("#");
      const target = file ? join(dirname(path), file) : path;
      await Deno.stat(ROOT + target);
      const headings = [...(anchor ? readme(target) : "").matchAll(/^#+ (.*)$/gm)];
      const isThere = !anchor || headings.some(([, heading]) => anchorOf(heading) === anchor);
      assert(isThere, `${path}: ${link}`);
    }
    for (
      const [, file] of text.matchAll(/(?:`|deno run -A )((?:handlers|tests|\.ci)\/[\w./-]+)/g)
    ) {
      await Deno.stat(ROOT + file);
    }
    for (const [, task] of text.matchAll(/deno task (?:-q )?(\w+)/g)) {
      assertEquals(Object.hasOwn(config.tasks, task), true, `${path}: ${task}`);
    }
  }
});

Deno.test("every route is among the README's endpoints", async () => {
  const [, endpoints] = readme("README.md").match(/\n## Endpoints\n([^]*?)\n## /)!;
  const router = await Deno.readTextFile(`${ROOT}handlers/router.ts`);
  const routes = [...router.matchAll(/^ +"(\/[^"]*)":/gm)].map(([, path]) => path);
  assert(routes.length > 10);
  for (const path of routes) {
    assert(RegExp(`[\` …]${path.replace(/[{}]/g, "\\$&")}[\`?]`).test(endpoints), path);
  }
});

Deno.test("every folder with a README is linked from the top", () => {
  const seen = new Set<string>();
  const follow = (path: string) => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const [, link] of readme(path).matchAll(/\]\(((?!https?:)[^)\s#]*README\.md)/g)) {
      follow(join(dirname(path), link));
    }
  };
  follow("README.md");
  assertEquals([...seen].sort(), readmes.map(({ path }) => path).sort());
});

Deno.test("every error of parley.v1 and every close is told", () => {
  const told = (text: string) => assert(all.includes(text), text);
  for (const [code, text] of Object.entries(ERROR_TEXTS)) {
    told(`\`${code}\``);
    // A plain client neither names a room nor hears state.
    if (!/room|key|rev_/.test(code)) told(`{"type":"error","message":"${text}"}`);
  }
  for (const { code, reason } of Object.values(CLOSE)) {
    assertMatch(all, RegExp(`^\\| ${code} +\\|.*\`${reason}\``, "m"));
  }
});

Deno.test("the metrics that are told are those of /metrics", async () => {
  const metrics = await (await createTestApp().ask("/metrics")).text();
  for (const [, name, label] of all.matchAll(/`((?:parley|process)_\w+)(\{.+?="\w+"\})?/g)) {
    assert(metrics.includes(`# TYPE ${name} `), name);
    assert(metrics.includes(name + (label ?? "")), label);
  }
});
