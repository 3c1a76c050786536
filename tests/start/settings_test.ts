import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  defaultSettings,
  helpText,
  readSettings,
  SETTINGS,
  type Settings,
  settingsTable,
} from "../../handlers/start/settings.ts";
import { SettingError } from "../../handlers/util/setting_error.ts";

const NAMES = Object.keys(SETTINGS);

function read(args: string[], env: Record<string, string> = {}): Settings {
  const command = readSettings(args, (name) => env[name]);
  assert("settings" in command);
  return command.settings;
}

function refusal(args: string[], env: Record<string, string> = {}): string {
  return assertThrows(() => read(args, env), SettingError).message;
}

Deno.test("readSettings() gives the defaults where nothing is set", () => {
  assertEquals(read([]), defaultSettings());
  const { PORT, HOST, LOG_LEVEL, LOG_FORMAT, MAX_CONNECTIONS, MAX_MESSAGE_BYTES } = read([]);
  assertEquals([PORT, HOST, LOG_LEVEL, LOG_FORMAT], [8000, "0.0.0.0", "info", "text"]);
  assertEquals([MAX_CONNECTIONS, MAX_MESSAGE_BYTES], [10_000, 65_536]);
  const { MAX_QUEUE_BYTES, IDLE_TIMEOUT, DRAIN_SECONDS, ALLOWED_ORIGINS } = read([]);
  assertEquals([MAX_QUEUE_BYTES, IDLE_TIMEOUT, DRAIN_SECONDS], [1_048_576, 30, 4]);
  assertEquals(ALLOWED_ORIGINS, ["same"]);
});

Deno.test("readSettings() takes flags before variables before defaults", () => {
  const env = { PORT: "9000", HOST: "::1" };
  assertEquals(read([], env).PORT, 9000);
  assertEquals(read(["--port", "9001"], env).PORT, 9001);
  assertEquals(read(["--port=9002"], env).PORT, 9002);
  assertEquals(read(["--port=9002"], env).HOST, "::1");
  assertEquals(read(["--max-queue-bytes", "5"]).MAX_QUEUE_BYTES, 5);
});

Deno.test("readSettings() takes an empty variable as none", () => {
  assertEquals(read([], { PORT: "", HOST: "", LOG_LEVEL: "" }), defaultSettings());
});

Deno.test("readSettings() gives every setting a flag and a variable of its name", () => {
  for (const name of NAMES) {
    const flag = `--${name.toLowerCase().replaceAll("_", "-")}`;
    const { default: value } = SETTINGS[name as keyof typeof SETTINGS];
    // TLS and tokens need more than one; see below.
    const text = Array.isArray(value) ? "https://a.example" : String(value) || undefined;
    if (text === undefined) continue;
    assertEquals(read([flag, text]), read([], { [name]: text }));
  }
});

Deno.test("readSettings() refuses what is no number in range, and shows it", () => {
  assertEquals(
    refusal(["--port", "eighty"]),
    'Cannot use PORT: must be a whole number from 0 to 65535, is "eighty"',
  );
  for (const text of ["65536", "-1", "1.5", "1e3", "0x50", " 80", "80 ", "9".repeat(16)]) {
    assertStringIncludes(refusal([`--port=${text}`]), `is ${JSON.stringify(text)}`);
    assertStringIncludes(refusal([], { PORT: text }), "Cannot use PORT");
  }
  assertEquals(read(["--port", "0"]).PORT, 0);
  assertEquals(read(["--port", "65535"]).PORT, 65_535);
});

Deno.test("readSettings() refuses a flag without its value", () => {
  const text = 'Cannot use PORT: must be a whole number from 0 to 65535, is ""';
  assertEquals(refusal(["--port"], { PORT: "9000" }), text);
  assertEquals(refusal(["--port="]), text);
  assertEquals(refusal(["--port", "--host", "::1"]), text);
});

Deno.test("readSettings() lets an empty flag turn a variable off", () => {
  const env = { SOCKET_PATH: "/run/parley", ALLOWED_ORIGINS: "https://a.example" };
  assertEquals(read(["--socket-path="], env).SOCKET_PATH, "");
  assertEquals(read(["--allowed-origins="], env).ALLOWED_ORIGINS, ["same"]);
});

Deno.test("readSettings() refuses an IDLE_TIMEOUT that the runtime's timers cannot hold", () => {
  assertEquals(read(["--idle-timeout", "2147483"]).IDLE_TIMEOUT, 2_147_483);
  assertStringIncludes(refusal(["--idle-timeout", "2147484"]), "from 0 to 2147483");
});

Deno.test("readSettings() refuses a word that is not among the choices", () => {
  assertEquals(
    refusal([], { LOG_LEVEL: "loud" }),
    'Cannot use LOG_LEVEL: must be one of debug, info, warn, error, is "loud"',
  );
  assertEquals(
    refusal(["--log-format", "xml"]),
    'Cannot use LOG_FORMAT: must be one of text, json, is "xml"',
  );
});

Deno.test("readSettings() reads a list of origins", () => {
  const origins = "https://a.example, *.b.example,http://localhost:3000,";
  assertEquals(read([], { ALLOWED_ORIGINS: origins }).ALLOWED_ORIGINS, [
    "https://a.example",
    "*.b.example",
    "http://localhost:3000",
  ]);
  assertEquals(read(["--allowed-origins", "Same, null,*"]).ALLOWED_ORIGINS, ["same", "null", "*"]);
  const never = [
    "a.example",
    "https://a.example/",
    "https://a.example:443",
    "*.",
    "wss://a.example",
  ];
  for (const text of never) {
    const start = `Cannot use ALLOWED_ORIGINS: no browser sends the origin "${text}", write `;
    assertStringIncludes(refusal(["--allowed-origins", `same,${text}`]), start);
  }
});

Deno.test("readSettings() refuses a flag or a word that it does not know", () => {
  const text = 'Cannot understand "--prot": --help lists the flags';
  assertEquals(refusal(["--prot", "80"]), text);
  assertEquals(refusal(["8000"]), 'Cannot understand "8000": --help lists the flags');
  assertStringIncludes(refusal(["--no-port"]), "Cannot understand");
  assertEquals(refusal(["--", "--port", "80"]), 'Cannot understand "--": --help lists the flags');
});

Deno.test("readSettings() wants both halves of TLS", () => {
  assertEquals(
    refusal(["--tls-cert", "c.pem"]),
    "Cannot use TLS_CERT: TLS_KEY is missing, TLS needs both",
  );
  assertEquals(
    refusal([], { TLS_KEY: "k.pem" }),
    "Cannot use TLS_KEY: TLS_CERT is missing, TLS needs both",
  );
  const { TLS_CERT, TLS_KEY } = read(["--tls-cert", "c.pem"], { TLS_KEY: "k.pem" });
  assertEquals([TLS_CERT, TLS_KEY], ["c.pem", "k.pem"]);
});

Deno.test("readSettings() prints instead of running when asked to", () => {
  assertEquals(readSettings(["--help"], () => undefined), { print: "help" });
  assertEquals(readSettings(["-h", "--port", "x"], () => undefined), { print: "help" });
  assertEquals(readSettings(["--version"], () => undefined), { print: "version" });
});

Deno.test("helpText() names every setting with flag, default and meaning", () => {
  const lines = helpText().split("\n");
  for (const [name, { meaning, default: value }] of Object.entries(SETTINGS)) {
    const flag = `--${name.toLowerCase().replaceAll("_", "-")}`;
    const line = lines.find((line) => line.startsWith(`  ${flag} `));
    assert(line, `${flag} is missing`);
    assertStringIncludes(line, ` ${name} `);
    assertStringIncludes(line, meaning);
    if (typeof value === "number" && value > 0) assertStringIncludes(line, `(${value})`);
  }
});

Deno.test("settingsTable() has one row a setting, of four cells", () => {
  const [head, rule, ...rows] = settingsTable().split("\n");
  assertEquals(head, "| variable | flag | default | meaning |");
  assertEquals(rule, "| --- | --- | --- | --- |");
  assertEquals(rows.map((row) => row.split("`")[1]), NAMES);
  for (const row of rows) assertEquals(row.split("|").length, 6, row);
});
