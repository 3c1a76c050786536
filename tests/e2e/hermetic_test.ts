/** What the person who runs the tests has in the environment changes nothing. */
import { SETTINGS } from "../../handlers/start/settings.ts";
import { run } from "../support/process.ts";

/** One file for each way in which tests start a server or a client. */
const CORE = [
  "tests/e2e/main_test.ts",
  "tests/e2e/otel_test.ts",
  "tests/e2e/terminal_test.ts",
  "tests/wire/v1_test.ts",
  "tests/attack/tricks_test.ts",
  "tests/start",
];

Deno.test("the core of the tests passes with each variable set to what would break it", async () => {
  const env = {
    // No server starts with one of these: none of them has its kind.
    ...Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, "broken\n"])),
    NO_COLOR: "",
    FORCE_COLOR: "1",
    OTEL_DENO: "true",
    OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1",
    DENO_LOG: "error",
    LANG: "tr_TR.UTF-8",
    TZ: "Pacific/Chatham",
  };
  await run(["test", "-A", ...CORE], { env });
});
