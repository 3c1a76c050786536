/**
 * Chromium for tests, where the system has one.
 *
 * @module
 */
import { type Browser, chromium } from "npm:playwright-core@1.65.1";
import { cleanEnv } from "./process.ts";
import { runTogether, type Step } from "./together.ts";

/** Where Debian installs it. */
const PATH = "/usr/bin/chromium";

/** Why tests in a browser cannot run here, for their names; nothing where they can. */
export const MISSING_BROWSER: string = isThere(PATH) ? "" : " [needs: apt-get install chromium]";

const steps: Step[] = [];
let browser: Browser;

/**
 * Adds a test in a browser. All those of a file are steps of one test, which has one browser for
 * them; ignored, and its name says why, where there is none.
 */
export function browserTest(name: string, run: (browser: Browser) => Promise<void>): void {
  if (steps.push({ name, fn: () => run(browser) }) > 1) return;
  Deno.test({
    name: "in a browser" + MISSING_BROWSER,
    ignore: MISSING_BROWSER !== "",
    async fn(t) {
      browser = await launch();
      try {
        // One after the other: a browser slows the pages that are not in front.
        await runTogether(t, steps, 1);
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
