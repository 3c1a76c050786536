/** Pages below a prefix, and pages of elsewhere, in a browser. */
import { assertEquals } from "@std/assert";
import { createParley } from "../../handlers/parley.ts";
import { browserTest } from "../support/browser.ts";
import { startServer } from "../support/servers.ts";

browserTest(
  "below a prefix the pages find their server, from the path without a slash too",
  async (browser) => {
    await using parley = createParley({ prefix: "/a/rt", limits: { drainSeconds: 0 } });
    const serving = { port: 0, hostname: "127.0.0.1", onListen() {} };
    await using server = Deno.serve(serving, parley.fetch);
    const page = await browser.newPage();
    const failed: string[] = [];
    page.on("response", (response) => {
      if (response.status() >= 400) failed.push(response.url());
    });
    const origin = `http://127.0.0.1:${server.addr.port}`;
    await page.goto(`${origin}/a/rt?room=ops`);
    assertEquals(page.url(), `${origin}/a/rt/?room=ops`);
    const name = page.getByRole("textbox", { name: "Your name" });
    await name.fill("Ann");
    await name.press("Enter");
    await page.getByText("Ann joined").waitFor();
    await page.goto(`${origin}/a/rt/dashboard`);
    await page.waitForSelector("canvas");
    await page.getByRole("link", { name: "Chat" }).click();
    await page.waitForURL(`${origin}/a/rt/`);
    assertEquals(failed, []);
  },
);

/** What `new WebSocket(url)` in a page does: `open`, or `error`. */
const OPEN = (url: string) =>
  new Promise<string>((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("error");
  });

browserTest(
  "blank tabs and local pages reach a local server; a refused page learns why",
  async (browser) => {
    await using server = await startServer();
    await using strict = await startServer({ ALLOWED_ORIGINS: ["https://a.example"] });
    const html = { headers: { "content-type": "text/html" } };
    const serving = { port: 0, hostname: "127.0.0.1", onListen() {} };
    await using other = Deno.serve(serving, () => new Response("<p>", html));
    const page = await browser.newPage();
    assertEquals(await page.evaluate(OPEN, `${server.ws}/chat`), "open");
    const origin = `http://localhost:${other.addr.port}`;
    await page.goto(`${origin}/`);
    assertEquals(await page.evaluate(OPEN, `${server.ws}/chat`), "open");
    assertEquals(await page.evaluate(OPEN, `${strict.ws}/chat`), "error");
    const why = await page.evaluate(async (url) => {
      const answer = await fetch(url, { headers: { authorization: "Bearer x", baggage: "a=b" } });
      return [answer.status, (await answer.json()).message];
    }, `${strict.url}/chat`);
    assertEquals(why, [
      403,
      `The origin ${origin} is not allowed: it is not among --allowed-origins (in code allowedOrigins).`,
    ]);
  },
);
