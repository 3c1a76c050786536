/**
 * A room as Server-Sent Events in a browser: `new EventSource("/rooms/x/events")`.
 */
import { assertEquals, assertGreaterOrEqual } from "@std/assert";
import { browserTest } from "../support/browser.ts";
import { Proxy } from "../support/proxy.ts";
import { startServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";

/** What the page tells of its stream, as text: `welcome 0 true`, `7`. */
type Told = string;

/** Runs in the page. */
function openStream(): void {
  const scope = globalThis as unknown as { told: Told[]; EventSource: typeof EventSource };
  scope.told = [];
  const source = new scope.EventSource("/rooms/x/events");
  source.addEventListener("welcome", ({ data }) => {
    const { seq, recovered } = JSON.parse(data);
    scope.told.push(`welcome ${seq} ${recovered}`);
  });
  source.onmessage = ({ data }) => scope.told.push(String(JSON.parse(data).seq));
}

browserTest("an EventSource goes on after cuts without loss", async (browser) => {
  await using server = await startServer();
  const { registry } = server;
  await using proxy = new Proxy(Number(new URL(server.url).port));
  const page = await browser.newPage();
  const told = (count: number, last: Told) =>
    page.waitForFunction(
      ([count, last]) => {
        const { told } = globalThis as unknown as { told: Told[] };
        return told.length >= count && told.includes(last);
      },
      [count, last] as const,
      { polling: 20 },
    );
  await page.goto(`http://127.0.0.1:${proxy.port}/healthz`);
  await page.evaluate(openStream);
  await told(1, "welcome 0 undefined");
  let seq = 0;
  const publish = async (count: number) => {
    for (const index of range(1, count)) {
      await registry.engineOf("x").publish("x", { sender: "Ann", message: String(index) });
    }
    seq += count;
  };

  await publish(10);
  await told(11, "10");
  // The server sends the page away, as when it drains, and tells when to come back.
  for (const client of [...registry.clients]) {
    client.bye(20);
    client.close("goingAway");
  }
  await publish(10);
  await told(22, "20");
  // The connection breaks, in the middle of the stream and again.
  for (const _ of range(1, 5)) {
    await publish(10);
    proxy.cutAll();
    await publish(10);
    await told(seq + 2, String(seq));
  }

  const all = await page.evaluate(() => (globalThis as unknown as { told: Told[] }).told);
  const welcomes = all.filter((one) => one.startsWith("welcome"));
  assertEquals(all.filter((one) => !welcomes.includes(one)), range(1, seq).map(String));
  assertEquals(welcomes.slice(1).filter((one) => !one.endsWith(" true")), []);
  assertGreaterOrEqual(welcomes.length, 7);
});
