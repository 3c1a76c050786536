/**
 * People who use the pages in a browser, for tests.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Browser, BrowserContextOptions, Page } from "npm:playwright-core@1.65.1";
import { browserTest } from "./browser.ts";
import { PATIENCE_MS } from "./inbox.ts";
import { IS_FULL } from "./run.ts";
import { startServer, type TestServer } from "./servers.ts";

const POLL_MS = 20;

/** Console errors of pages whose server is gone, or does not let them in. */
export const CONNECTION_ERRORS = /^WebSocket connection to \S+ failed|^Failed to load resource/;

/** One person with one page. */
export class Visitor {
  constructor(readonly page: Page) {}

  /** Takes a name with the mouse. */
  async join(name: string): Promise<void> {
    await this.page.fill("#name", name);
    await this.page.click("#join button");
  }

  /** Sends a message. */
  async say(text: string): Promise<void> {
    await this.page.fill("#text", text);
    await this.page.keyboard.press("Enter");
  }

  /** Waits until something with this text is there. */
  async sees(selector: string, hasText: string | RegExp): Promise<void> {
    await this.page.locator(selector, { hasText }).first().waitFor({ timeout: PATIENCE_MS });
  }

  /** Waits until an expression of the page is true. Playwright's own wait needs `eval` in the page. */
  async finds(expression: string): Promise<void> {
    let answer: unknown;
    for (let ms = 0; ms < PATIENCE_MS; ms += POLL_MS) {
      // A page that is just loading cannot be asked.
      answer = await this.value<boolean>(expression).catch((error) => error);
      if (answer === true) return;
      await this.page.waitForTimeout(POLL_MS);
    }
    throw new Error(`${expression}: not true within ${PATIENCE_MS} ms but ${answer}`);
  }

  /** The texts of all messages, in the order of the list. */
  words(): Promise<string[]> {
    return this.page.locator(".words").allTextContents();
  }

  /** The value of an expression of the page. */
  value<T>(expression: string): Promise<T> {
    return this.page.evaluate(expression);
  }
}

/** A server, and a door for people. */
export interface World {
  server: TestServer;
  browser: Browser;
  /** Opens a page, a URL or a path of the server's, in a browser of its own. */
  visit(path: string, options?: BrowserContextOptions): Promise<Visitor>;
}

/**
 * Adds a test in a browser, with a server of its own. At its end no page may have complained on its
 * console, broken the content security policy, or asked another host.
 *
 * @param allowed console errors that belong to what the test does
 */
export function pageTest(
  name: string,
  run: (world: World) => Promise<void>,
  allowed?: RegExp,
): void {
  browserTest(name, (browser) => visitAll(browser, run, allowed));
}

/** Adds a test like {@link pageTest} that only `deno task pages` runs. */
export function pageDetail(...test: Parameters<typeof pageTest>): void {
  if (IS_FULL) pageTest(...test);
}

async function visitAll(
  browser: Browser,
  run: (world: World) => Promise<void>,
  allowed?: RegExp,
): Promise<void> {
  await using server = await startServer();
  await using contexts = new AsyncDisposableStack();
  const complaints: string[] = [];
  await run({
    server,
    browser,
    async visit(path, options) {
      const url = new URL(path, server.url);
      const context = await browser.newContext(options);
      contexts.defer(() => context.close());
      const page = await context.newPage();
      page.on("console", (line) => {
        const text = line.text();
        if (line.type() === "error" && !allowed?.test(text)) complaints.push(text);
      });
      page.on("pageerror", ({ message }) => complaints.push(message));
      page.on("request", (request) => {
        const { host, protocol } = new URL(request.url());
        if (host !== url.host && protocol !== "data:") complaints.push(`asks ${request.url()}`);
      });
      await page.addInitScript(
        `addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
           console.error("CSP", violatedDirective, blockedURI))`,
      );
      await page.goto(url.href);
      return new Visitor(page);
    },
  });
  assertEquals(complaints, []);
}
