/** The deploy of a single file: `deno task bundle`, then `deno run -A` where nothing else is. */
import { assertEquals, assertGreater, assertMatch } from "@std/assert";
import { Client } from "../support/clients.ts";
import { eventually } from "../support/inbox.ts";
import { run, ServerProcess } from "../support/process.ts";

Deno.test("deno task bundle makes one file that serves echo, chat and page from an empty folder", async () => {
  const folder = await Deno.makeTempDir();
  const source = `${folder}/source`;
  const empty = `${folder}/empty`;
  await run(`mkdir ${source} ${empty}; cp -r deno.json deno.lock main.ts handlers ${source}`);
  // The first use fetches the bundler from npm.
  await run("deno task bundle", { cwd: source });
  await Deno.rename(`${source}/parley.js`, `${empty}/parley.js`);
  await Deno.remove(source, { recursive: true });
  // Nothing is cached and no registry answers: what it needs is in the file.
  const flags = ["--data-file", `${folder}/data.db`];
  const env = { DENO_DIR: `${folder}/cache`, NPM_CONFIG_REGISTRY: "http://127.0.0.1:1/" };
  {
    await using server = await ServerProcess.start(flags, { script: "parley.js", cwd: empty, env });
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
    const files = [...page.matchAll(/\s(?:src|href)="((?!data:)[^"]*)"/g)].map(([, path]) => path);
    assertGreater(files.length, 1);
    for (const path of files) {
      const file = await fetch(new URL(path, server.url));
      assertEquals(file.status, 200, path);
      assertGreater((await file.text()).length, 0, path);
    }
    assertEquals(server.lines("stderr").filter((line) => /error/i.test(line)), []);
  }
  {
    // Its workers are started from the same file.
    const permissions = ["-A", "--unstable-net"];
    await using server = await ServerProcess.start([...flags, "--workers", "3"], {
      script: "parley.js",
      permissions,
      cwd: empty,
      env,
    });
    await eventually(
      async () => await (await fetch(`${server.url}/metrics`)).text(),
      (metrics) => /^parley_workers 3$/m.test(metrics),
    );
    await using ann = await Client.join(`${server.ws}/chat/ops`, "Ann");
    ann.send({ type: "chat", message: "Hello" });
    assertEquals((await ann.nextObject()).message, "Hello");
  }
  await Deno.remove(folder, { recursive: true });
});
