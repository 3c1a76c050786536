/** What the person who runs the tests has in the environment changes nothing. */
import { assertMatch } from "@std/assert";
import { SETTINGS } from "../../handlers/start/settings.ts";
import { run } from "../support/process.ts";
import { hasRedis } from "../support/redis_server.ts";

/** Files with the ways in which tests start a server or a client, and one test of each way. */
const CORE = [
  "tests/attack/tricks_test.ts",
  "tests/e2e/main_test.ts",
  "tests/e2e/otel_test.ts",
  "tests/e2e/terminal_test.ts",
  "tests/faults/servers_faults_test.ts",
  "tests/wire/v1_test.ts",
];
const NAMES = [
  "keys of a prototype",
  "the start prints one line",
  "a start that cannot be",
  "SIGINT ends it",
  "LOG_FORMAT=json",
  "with OTEL_DENO=true",
  "deno task chat talks",
  "a restart that lost its tail",
  "plain and v1 clients share",
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
  const printed = await run(
    ["test", "-A", "--no-check", `--filter=/^(${NAMES.join("|")})/`, ...CORE],
    { env },
  );
  // A test that was renamed would be left out in silence.
  assertMatch(printed, RegExp(`\\b${NAMES.length - Number(!hasRedis)} passed`));
});
