/** The README says what the code does, where a machine can tell. */
import { assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { settingsTable } from "../handlers/settings.ts";
import { Inbox } from "./inbox.ts";
import { ROOT, startServer } from "./servers.ts";

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
    `deno eval 'import { settingsTable } from "./handlers/settings.ts"; console.log(settingsTable())'`;
  assertEquals(cells(table), cells(settingsTable()), `the table to paste: ${hint}`);
});

Deno.test("the README's snippet for the browser prints what the README says", async () => {
  await using server = await startServer();
  const [, snippet, output] = readme.match(/```js\n([^]*?)```[^]*?```\n([^]*?)```/)!;
  const printed = new Inbox<string>("a printed line");
  const run = new Function(
    "console",
    `${snippet}; return socket;`.replace("localhost:8000", server.url.slice(7)),
  );
  const socket: WebSocket = run({ log: (text: string) => printed.push(text) });
  const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
  for (const line of output.trim().split("\n")) assertEquals(await printed.next(), line);
  socket.close();
  await closed;
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
