import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { helpText, settingsTable } from "../../handlers/start/help.ts";
import { parleyOptions } from "../../handlers/start/options.ts";
import { readSettings } from "../../handlers/start/read_settings.ts";
import { defaultSettings, SETTINGS, type Settings } from "../../handlers/start/settings.ts";
import { SettingError, toSettingError } from "../../handlers/start/setting_error.ts";
import { silentLog } from "../../handlers/util/log.ts";

const NAMES = Object.keys(SETTINGS);

function read(args: string[], env: Record<string, string> = {}): Settings {
  const command = readSettings(args, (name) => env[name]);
  assert("settings" in command);
  return command.settings;
}

/** What the start warns of. */
function warned(args: string[], env: Record<string, string> = {}): string[] {
  const command = readSettings(args, (name) => env[name]);
  assert("settings" in command);
  return command.warnings.map(({ event }) => event);
}

function refusal(args: string[], env: Record<string, string> = {}): string {
  const error = toSettingError(assertThrows(() => read(args, env)));
  assertInstanceOf(error, SettingError);
  return error.message;
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
  assertEquals(read(["--max-rooms", "5"]).MAX_ROOMS, 5);
});

Deno.test("readSettings() takes an empty variable as none", () => {
  assertEquals(read([], { PORT: "", HOST: "", LOG_LEVEL: "" }), defaultSettings());
});

Deno.test("readSettings() gives every setting a flag and a variable of its name", () => {
  for (const name of NAMES) {
    const flag = `--${name.toLowerCase().replaceAll("_", "-")}`;
    const { default: value } = SETTINGS[name as keyof typeof SETTINGS];
    // TLS and tokens need more than one; see below.
    const own: Record<string, string> = { ALLOWED_ORIGINS: "https://a.example", ROOM_RULES: "{}" };
    const text = own[name] ?? String(value);
    if (text === "") continue;
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

Deno.test("readSettings() refuses a HOOK_URL that is none, and HOOK_EVENTS that there are not", () => {
  for (const HOOK_URL of ["backend", "ftp://a.example", "http://", "http://a b"]) {
    assertStringIncludes(refusal([], { HOOK_URL }), "Cannot use HOOK_URL: must be a URL, is ");
  }
  const text = 'Cannot use HOOK_EVENTS: must be some of join,chat,note,set, is "join,leave"';
  assertEquals(refusal([], { HOOK_EVENTS: "join,leave" }), text);
  assertEquals(read([], { HOOK_EVENTS: "note, join" }).HOOK_EVENTS, ["note", "join"]);
  assertEquals(read([], {}).EVENTS, []);
  assertEquals(read([], { EVENTS: "join,vacated" }).EVENTS, ["join", "vacated"]);
});

Deno.test("readSettings() takes ROOM_RULES as JSON, and refuses a bad one in one line", () => {
  const rules = { "user:*": { history: 1_000, seconds: 604_800 }, "game:*": { keys: 5_000 } };
  assertEquals(read([], { ROOM_RULES: JSON.stringify(rules) }).ROOM_RULES, rules);
  const text = 'Cannot use ROOM_RULES: must be a JSON object, is "{user}"';
  assertEquals(refusal([], { ROOM_RULES: "{user}" }), text);
  assertStringIncludes(refusal([], { ROOM_RULES: '{"a":{"b":1}}' }), "ROOM_RULES: a has ");
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
  assertEquals(refusal(["--prot", "80"]), 'Cannot understand "--prot": did you mean --port?');
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

Deno.test("readSettings() takes warning and capitals as a level of the log", () => {
  assertEquals(read(["--log-level", "WARNING"]).LOG_LEVEL, "warn");
  assertEquals(read([], { LOG_LEVEL: "Debug" }).LOG_LEVEL, "debug");
});

Deno.test("readSettings() takes a number below zero for a value, not for a flag", () => {
  for (const args of [["--message-rate", "-1"], ["--message-rate=-1"]]) {
    assertMatch(refusal(args), /^Cannot use MESSAGE_RATE: must be a whole number .* is "-1"$/);
  }
});

Deno.test("readSettings() names HOST where another program's variable is no host", () => {
  const HOST = "x86_64-conda-linux-gnu";
  const text = `Cannot use HOST: must be an IP address or a host name, is "${HOST}"`;
  assertEquals(refusal([], { HOST }), text);
  for (const host of ["127.0.0.1", "::", "[::1]", "localhost", "a-b.example", "fe80::1"]) {
    assertEquals(read(["--host", host]).HOST, host);
  }
});

Deno.test("readSettings() refuses settings that cannot go together", () => {
  assertEquals(
    refusal(["--max-queue-bytes", "10"]),
    "Cannot use MAX_QUEUE_BYTES: must be at least MAX_MESSAGE_BYTES (65536), is 10",
  );
  assertEquals(
    refusal(["--port", "80", "--socket-path", "/run/x"]),
    "Cannot use PORT: SOCKET_PATH /run/x is set too, it listens in one place",
  );
  // A platform that sets PORT for every program says nothing by it.
  assertEquals(read(["--socket-path", "/run/x"], { PORT: "80" }).SOCKET_PATH, "/run/x");
});

Deno.test("readSettings() takes one worker anywhere, several where a port can be shared", () => {
  assertEquals(read(["--workers", "1", "--socket-path", "/run/x"]).WORKERS, 1);
  assertEquals(read(["--workers", "2"]).WORKERS, 2);
  assertEquals(
    refusal(["--workers", "2", "--socket-path", "/run/x"]),
    "Cannot use WORKERS: with SOCKET_PATH there is one worker, is 2",
  );
  const { listenDatagram } = Deno;
  Reflect.deleteProperty(Deno, "listenDatagram");
  try {
    assertStringIncludes(refusal(["--workers", "2"]), "needs deno run --unstable-net, is 2");
  } finally {
    Object.assign(Deno, { listenDatagram });
  }
});

Deno.test("readSettings() keeps less where Deno Deploy has less memory, unless told otherwise", () => {
  for (const name of ["DENO_DEPLOYMENT_ID", "DENO_DEPLOY"]) {
    const { HISTORY_MB, MAX_RSS_MB } = read([], { [name]: "1" });
    assertEquals([HISTORY_MB, MAX_RSS_MB], [64, 400]);
  }
  assertEquals(read(["--history-mb", "9"], { DENO_DEPLOYMENT_ID: "x" }).HISTORY_MB, 9);
});

Deno.test("readSettings() warns when anybody from anywhere may connect, and only then", () => {
  assertEquals(warned([]), ["open"]);
  assertEquals(warned(["--host", "::"]), ["open"]);
  assertEquals(warned(["--allowed-origins", "*"]), ["open"]);
  assertEquals(warned(["--allowed-origins", "https://a.example"]), []);
  assertEquals(warned(["--auth-secret", "s"]), []);
  assertEquals(warned(["--socket-path", "/run/x"]), []);
  for (const host of ["127.0.0.1", "localhost", "::1", "[::1]"]) {
    assertEquals(warned(["--host", host]), []);
  }
});

Deno.test("readSettings() warns when keys are trusted for tokens of other services, and only then", () => {
  const keys = ["--auth-jwks", "keys.json"];
  assertEquals(warned(keys), ["any_audience"]);
  assertEquals(warned([...keys, "--auth-audience", "parley"]), []);
  assertEquals(warned([...keys, "--auth-issuer", "https://id.example"]), ["any_audience"]);
});

Deno.test("readSettings() warns when instances of Deno Deploy share no rooms, and only then", () => {
  const env = { DENO_DEPLOYMENT_ID: "x" };
  assertEquals(warned(["--host", "::1"], env), ["split"]);
  assertEquals(warned(["--host", "::1", "--redis-url", "redis://h"], env), []);
});

Deno.test("helpText() names every setting with flag, meaning and default, in 80 columns", () => {
  const text = helpText();
  for (const line of text.split("\n")) assert(line.length <= 80, line);
  const flat = text.replace(/\s+/g, " ");
  for (const [name, { meaning, default: value }] of Object.entries(SETTINGS)) {
    assertStringIncludes(flat, ` --${name.toLowerCase().replaceAll("_", "-")} ${meaning} (`);
    if (typeof value === "number" && value > 0) assertStringIncludes(flat, `${meaning} (${value})`);
  }
});

Deno.test("settingsTable() has one row a setting, of four cells", () => {
  const [head, rule, ...rows] = settingsTable().split("\n");
  assertEquals(head, "| variable | flag | default | meaning |");
  assertEquals(rule, "| --- | --- | --- | --- |");
  assertEquals(rows.map((row) => row.split("`")[1]), NAMES);
  for (const row of rows) assertEquals(row.split("|").length, 6, row);
});

Deno.test("parleyOptions() divides what all threads together may have unsent", async () => {
  for (const [workers, queueMb] of [["1", 256], ["4", 64]] as const) {
    const { limits, engine } = await parleyOptions(read(["--workers", workers]), silentLog);
    await engine!.close();
    assertEquals(limits?.queueMb, queueMb);
  }
});

Deno.test("parleyOptions() divides how many hooks of all threads together may wait for their backend", async () => {
  const settings = { ...read(["--hook-url", "http://127.0.0.1:1/"]), WORKERS: 1_000 };
  const { onJoin, engine } = await parleyOptions(settings, silentLog);
  const from = { room: "ops", name: "Ann", via: "socket" } as const;
  const why = (answer: unknown) =>
    Promise.resolve(answer).then(() => "", ({ message }: Error) => message);
  const [first, second] = await Promise.all([onJoin!(from), onJoin!(from)].map(why));
  assertEquals([first === "", second], [false, "1 wait for it"]);
  await engine!.close();
});
