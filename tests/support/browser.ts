/**
 * Chromium for tests, where the system has one.
 *
 * @module
 */
import { type Browser, chromium } from "npm:playwright-core@1.65.1";
import { cleanEnv } from "./process.ts";

/** Where Debian installs it. */
const PATH = "/usr/bin/chromium";

/** Why tests in a browser cannot run here, for their names; nothing where they can. */
export const MISSING_BROWSER: string = isThere(PATH) ? "" : " [needs: apt-get install chromium]";

/** Registers a test that has a browser of its own; ignored, and its name says why, where there is none. */
export function browserTest(
  name: string,
  run: (browser: Browser, t: Deno.TestContext) => Promise<void>,
): void {
  Deno.test({
    name: name + MISSING_BROWSER,
    ignore: MISSING_BROWSER !== "",
    async fn(t) {
      const browser = await launch();
      try {
        await run(browser, t);
      } finally {
        await browser.close();
      }
    },
  });
}

/** Starts a browser without a window that asks nobody on the internet for anything. */
export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: PATH,
    env: cleanEnv(),
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

function isThere(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
