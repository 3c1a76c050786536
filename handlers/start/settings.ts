/**
 * The settings: one table gives the parsing, `--help` and the README's table.
 *
 * @module
 */
import { SettingError } from "../util/setting_error.ts";
import { parseArgs } from "@std/cli/parse-args";
import { DEFAULT_LIMITS, type Limits } from "../access/limits.ts";
import { OriginRules, SAME_ORIGIN } from "../access/origins.ts";
import { LOG_LEVELS } from "./log.ts";
import { list, number, oneOf, type Setting, text } from "./setting_kinds.ts";

const LARGE = 1e15 - 1;

/** Every setting, by the name of its variable. */
export const SETTINGS = {
  PORT: number(8000, 65_535, "TCP port; 0 takes a free one"),
  HOST: text("0.0.0.0", "address to listen on", "0.0.0.0"),
  SOCKET_PATH: text("", "listen on this Unix domain socket instead of a port"),
  TLS_CERT: text(
    "",
    "PEM file of the certificate; with TLS_KEY the server speaks wss:// and https://",
  ),
  TLS_KEY: text("", "PEM file of the private key"),
  LOG_LEVEL: oneOf(
    "info",
    LOG_LEVELS,
    "least severe level that is logged: debug, info, warn, error",
  ),
  LOG_FORMAT: oneOf("text", ["text", "json"], "lines of text, or of JSON"),
  ALLOWED_ORIGINS: list(
    SAME_ORIGIN,
    "origins of pages that may connect, with commas between: `same` (the server's own), " +
      "`https://a.example`, `*.example.com`, `null`; `*` is any",
    (origins) => new OriginRules(origins),
  ),
  AUTH_SECRET: text(
    "",
    "secret of HS256 tokens, 32 bytes or more, or `base64:` and them in base64; with it, or " +
      "AUTH_JWKS, sockets and rooms need a token",
  ),
  AUTH_JWKS: text("", "file or URL of the public keys of tokens (JWKS)"),
  AUTH_ISSUER: text("", "the `iss` that a token must have", "any"),
  AUTH_AUDIENCE: text("", "an `aud` that a token must have", "any"),
  MAX_TOKEN_SECONDS: number(
    0,
    LARGE,
    "seconds after its `iat` at which a token ends, whatever its `exp`; 0 = no limit",
  ),
  TRUST_PROXY: number(
    0,
    100,
    "proxies in front: the nth X-Forwarded-For address from the right is the client's",
  ),
  MAX_CONNECTIONS: number(
    DEFAULT_LIMITS.maxConnections,
    LARGE,
    "clients at once; one more gets 503",
  ),
  MAX_CONNECTIONS_PER_IP: number(
    DEFAULT_LIMITS.maxConnectionsPerIp,
    LARGE,
    "clients at once from one address (IPv6: one /64); 0 = no limit",
  ),
  MAX_MESSAGE_BYTES: number(
    DEFAULT_LIMITS.maxMessageBytes,
    LARGE,
    "bytes of a message or a request body",
  ),
  MAX_QUEUE_BYTES: number(
    DEFAULT_LIMITS.maxQueueBytes,
    LARGE,
    "unsent bytes of a client; above, it is closed with 1013, so it must hold the largest frame",
  ),
  MAX_ROOMS: number(DEFAULT_LIMITS.maxRooms, LARGE, "rooms, empty ones with history included"),
  MAX_ROOMS_PER_CONNECTION: number(
    DEFAULT_LIMITS.maxRoomsPerConnection,
    LARGE,
    "rooms that one socket hears",
  ),
  MAX_RSS_MB: number(
    DEFAULT_LIMITS.maxRssMb,
    LARGE,
    "megabytes of the process above which no client is let in; 0 = no limit",
  ),
  MESSAGE_RATE: number(
    DEFAULT_LIMITS.messageRate,
    LARGE,
    "messages a second from one connection; 0 = no limit",
  ),
  BYTE_RATE: number(
    DEFAULT_LIMITS.byteRate,
    LARGE,
    "bytes a second from one connection; 0 = no limit",
  ),
  JOIN_RATE: number(
    DEFAULT_LIMITS.joinRate,
    LARGE,
    "joins and listens a second from one connection; 0 = no limit",
  ),
  POST_RATE: number(
    DEFAULT_LIMITS.postRate,
    LARGE,
    "requests to publish a second from one address; 0 = no limit",
  ),
  // The runtime's timers hold at most 2^31 ms.
  IDLE_TIMEOUT: number(
    DEFAULT_LIMITS.idleTimeoutSeconds,
    2_147_483,
    "seconds of silence until a peer that answers no ping goes, pinged at half of it; 0 = never",
  ),
  HISTORY_SIZE: number(DEFAULT_LIMITS.historySize, LARGE, "messages kept a room"),
  HISTORY_SECONDS: number(
    DEFAULT_LIMITS.historySeconds,
    LARGE,
    "seconds that messages and empty rooms are kept",
  ),
  HISTORY_MB: number(
    DEFAULT_LIMITS.historyMb,
    LARGE,
    "megabytes of history, all rooms together",
    1,
  ),
  WORKERS: {
    default: 1,
    meaning: "workers on one port, each on a core of its own; `auto`: one a core",
    kind: "auto or a whole number from 1 to 64",
    read: (text: string) => {
      if (text === "auto") return navigator.hardwareConcurrency;
      return /^\d{1,2}$/.test(text) && +text >= 1 && +text <= 64 ? +text : undefined;
    },
  },
  REDIS_URL: text("", "`redis://` or `rediss://` URL: rooms live there, for many machines"),
  DRAIN_SECONDS: number(
    DEFAULT_LIMITS.drainSeconds,
    LARGE,
    "seconds over which clients are sent away at the end",
  ),
} satisfies Record<string, Setting<unknown>>;

type Name = keyof typeof SETTINGS;

/** The settings' values, by the name of their variables. */
export type Settings = {
  -readonly [K in Name]: typeof SETTINGS[K] extends Setting<infer T> ? T
    : never;
};

/** The flag of a setting: `MAX_ROOMS` is `max-rooms`. */
function flagOf(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

/** All defaults, for tests and for those who embed Parley. */
export function defaultSettings(): Settings {
  return Object.fromEntries(
    Object.entries(SETTINGS).map(([name, setting]) => [name, setting.default]),
  ) as Settings;
}

/** What settings say of limits and access, as `createParley` takes it. */
export function limitsAndAccess(settings: Settings) {
  return {
    limits: limitsOf(settings),
    allowedOrigins: settings.ALLOWED_ORIGINS,
    trustedProxies: settings.TRUST_PROXY,
  };
}

/** The limits among the settings, by their names in code: `MAX_ROOMS` is `maxRooms`. */
function limitsOf(settings: Settings): Limits {
  const names = Object.keys(settings) as Name[];
  const limits = names.map((name) => [limitNameOf(name), settings[name]] as const);
  return Object.fromEntries(limits.filter(([name]) => name in DEFAULT_LIMITS)) as unknown as Limits;
}

function limitNameOf(name: string): string {
  if (name === "IDLE_TIMEOUT") return "idleTimeoutSeconds";
  return name.toLowerCase().replace(/_(.)/g, (_, letter) => letter.toUpperCase());
}

/** What was asked on the command line: to run with these settings, or to print something. */
export type Command = { print: "help" | "version" } | { settings: Settings };

/**
 * Reads flags, then variables, then defaults.
 *
 * @param env gives a variable's text
 * @throws {SettingError} if a flag is unknown or a value cannot be used
 */
export function readSettings(
  args: string[],
  env: (name: string) => string | undefined,
): Command {
  const names = Object.keys(SETTINGS) as Name[];
  // Behind it flags are not looked for: `deno task start -- --port 80` would lose the port.
  if (args.includes("--")) notUnderstood("--");
  const flags = parseArgs(args, {
    string: names.map(flagOf),
    boolean: ["help", "version"],
    alias: { h: "help" },
    unknown: notUnderstood,
  });
  if (flags.help) return { print: "help" };
  if (flags.version) return { print: "version" };
  const settings: Record<string, unknown> = {};
  for (const name of names) {
    const setting: Setting<unknown> = SETTINGS[name];
    // An empty variable is none; a flag without a value is a slip.
    const text = flags[flagOf(name)] ?? (env(name) || undefined);
    const value = text === undefined ? setting.default : setting.read(String(text));
    if (value === undefined) {
      throw new SettingError(
        `Cannot use ${name}: must be ${setting.kind}, is ${JSON.stringify(text)}`,
      );
    }
    settings[name] = value;
  }
  return { settings: checked(settings as Settings) };
}

function notUnderstood(argument: string): never {
  throw new SettingError(`Cannot understand ${JSON.stringify(argument)}: --help lists the flags`);
}

function checked(settings: Settings): Settings {
  if ((settings.TLS_CERT === "") !== (settings.TLS_KEY === "")) {
    const [has, lacks] = settings.TLS_CERT ? ["TLS_CERT", "TLS_KEY"] : ["TLS_KEY", "TLS_CERT"];
    throw new SettingError(`Cannot use ${has}: ${lacks} is missing, TLS needs both`);
  }
  if (settings.TLS_CERT && settings.SOCKET_PATH) {
    throw new SettingError(
      `Cannot use TLS_CERT: SOCKET_PATH ${settings.SOCKET_PATH} is without TLS`,
    );
  }
  if (settings.AUTH_SECRET && settings.AUTH_JWKS) {
    throw new SettingError(
      "Cannot use AUTH_JWKS: AUTH_SECRET is set too, tokens have one kind of key",
    );
  }
  return settings;
}

/** Whether any page and program that reaches this server may use it. */
export function isOpenToAll(settings: Settings): boolean {
  const { ALLOWED_ORIGINS, AUTH_SECRET, AUTH_JWKS, HOST, SOCKET_PATH } = settings;
  const isDefault = ["same", "*"].includes(ALLOWED_ORIGINS.join());
  return isDefault && !AUTH_SECRET && !AUTH_JWKS && !SOCKET_PATH &&
    !/^(localhost|127\.[\d.]+|::1|\[::1\])$/.test(HOST);
}

/** The text of `--help`. */
export function helpText(): string {
  const rows = Object.entries(SETTINGS).map(([name, { meaning, ...setting }]) =>
    `  --${flagOf(name).padEnd(26)}${name.padEnd(26)}${meaning} (${shownDefault(setting)})`
  );
  return `Parley: a real-time server for WebSockets with HTTP beside them.

  deno run -A main.ts [flags]

  flag                        variable                  meaning (default)
${rows.join("\n")}
  --help, --version`;
}

/** The README's table of settings, in Markdown. */
export function settingsTable(): string {
  const rows = Object.entries(SETTINGS).map(([name, { meaning, ...setting }]) =>
    `| \`${name}\` | \`--${flagOf(name)}\` | ${shownDefault(setting)} | ${meaning} |`
  );
  return [
    "| variable | flag | default | meaning |",
    "| --- | --- | --- | --- |",
    ...rows,
  ].join("\n");
}

function shownDefault(setting: { default: unknown; shown?: string }): string {
  return setting.shown ?? String(setting.default);
}
