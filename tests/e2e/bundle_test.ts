/** The deploy of a single file: `deno task bundle`, then `deno run -A` where nothing else is. */
import { assertEquals, assertGreater, assertMatch } from "@std/assert";
import { Client } from "../support/clients.ts";
import { ROOT, ServerProcess } from "../support/servers.ts";

/** Copies a file or a folder. */
async function copy(from: string, to: string): Promise<void> {
  if ((await Deno.stat(from)).isFile) return await Deno.copyFile(from, to);
  await Deno.mkdir(to);
  for await (const { name } of Deno.readDir(from)) await copy(`${from}/${name}`, `${to}/${name}`);
}

Deno.test("deno task bundle makes one file that serves echo, chat and page from an empty folder", async () => {
  const folder = await Deno.makeTempDir();
  const source = `${folder}/source`;
  const empty = `${folder}/empty`;
  await Deno.mkdir(source);
  await Deno.mkdir(empty);
  for (const name of ["deno.json", "deno.lock", "main.ts", "handlers"]) {
    await copy(ROOT + name, `${source}/${name}`);
  }
  // The first use fetches the bundler from npm.
  const task = new Deno.Command(Deno.execPath(), { args: ["task", "bundle"], cwd: source });
  const { success, stderr } = await task.output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  await Deno.rename(`${source}/parley.js`, `${empty}/parley.js`);
  await Deno.remove(source, { recursive: true });
  {
    // Nothing is cached and no registry answers: what it needs is in the file.
    const env = { DENO_DIR: `${folder}/cache`, NPM_CONFIG_REGISTRY: "http://127.0.0.1:1/" };
    await using server = await ServerProcess.start([], { script: "parley.js", cwd: empty, env });
    await using echo = await Client.open(`${server.ws}/echo`);
    echo.send("Hello");
    assertEquals(await echo.next(), "Echo: Hello");

    await using ann = await Client.join(`${server.ws}/chat/ops`, "Ann");
    await using bob = await Client.join(`${server.ws}/chat/ops`, "Bob");
    bob.send({ type: "chat", message: "Hello, Ann" });
    assertEquals((await ann.nextObject()).message, "Bob joined the chat.");
    assertEquals((await ann.nextObject()).message, "Hello, Ann");

    const page = await (await fetch(`${server.url}/`)).text();
    assertMatch(page, /<title>/);
    const files = [...page.matchAll(/(?:src|href)="(\/[^"]*)"/g)].map(([, path]) => path);
    assertGreater(files.length, 1);
    for (const path of files) {
      const file = await fetch(server.url + path);
      assertEquals(file.status, 200, path);
      assertGreater((await file.text()).length, 0, path);
    }
    assertEquals(server.lines("stderr").filter((line) => /error/i.test(line)), []);
  }
  await Deno.remove(folder, { recursive: true });
});
