/** The pages that a README shows, in a browser. */
import { assertEquals } from "@std/assert";
import type { Browser } from "npm:playwright-core@1.65.1";
import { browserTest } from "../support/browser.ts";
import { eventually, soon } from "../support/inbox.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { type Block, blocksIn } from "../support/readmes.ts";
import { post, startServer } from "../support/servers.ts";

const pages = await blocksIn("html");

/** Opens a file that imports the client in a browser, until Ann sees or logs her Hello. */
async function openPage({ text }: Block, browser: Browser): Promise<void> {
  await using server = await startServer();
  const file = await Deno.makeTempFile({ suffix: ".html" });
  await Deno.writeTextFile(file, text.replaceAll("http://localhost:8000", server.url));
  const page = await browser.newPage();
  const said: string[] = [];
  page.on("console", (line) => said.push(line.text()));
  page.on("pageerror", ({ message }) => said.push(message));
  page.on("dialog", (dialog) => dialog.accept("Ann"));
  await page.goto(`file://${file}`);
  const input = page.locator("input");
  if (await input.count() > 0) {
    await input.fill("Hello");
    await input.press("Enter");
  }
  const seen = async () => [await page.textContent("body"), ...said].join("\n");
  await eventually(seen, (text) => /^\s*Ann: Hello\s*$/m.test(text));
  await Deno.remove(file);
}

browserTest("each page of a README shows what is said", async (browser) => {
  const open = pages.filter(({ text }) => !text.includes("/token"));
  await Promise.all(open.map((block) => openPage(block, browser)));
});

browserTest("the README's notification reaches the page of the user", async (browser) => {
  const [page] = pages.filter(({ text }) => text.includes("/token"));
  const [mint] = (await blocksIn("ts")).filter(({ text }) => text.includes("SignJWT"));
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const body = `${mint.text}; export default token;`.replace(
    "process.env.AUTH_SECRET",
    `"${SECRET}"`,
  );
  const { default: token } = await import(`data:text/typescript,${encodeURIComponent(body)}`);
  const onListen = () => {};
  await using backend = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen }, ({ url }) => {
    if (new URL(url).pathname === "/token") return new Response(token);
    const html = page.text.replaceAll("http://localhost:8000", server.url);
    return new Response(html, { headers: { "content-type": "text/html" } });
  });
  const visitor = await browser.newPage();
  const alerted = new Promise<string>((resolve) =>
    visitor.on("dialog", async (dialog) => {
      await dialog.dismiss();
      resolve(dialog.message());
    })
  );
  await visitor.goto(`http://127.0.0.1:${backend.addr.port}/`);
  const authorization = `Bearer ${await sign({ sub: "shop", publish: true })}`;
  await post(server, "/rooms/user:ann/messages", { message: "It has shipped" }, { authorization });
  assertEquals(await soon(alerted, "the notification"), "It has shipped");
});
