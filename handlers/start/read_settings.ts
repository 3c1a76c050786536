/** Settings from flags and variables. */
import { parseArgs } from "@std/cli/parse-args";
import { closestString } from "@std/text/closest-string";
import { SettingError } from "./setting_error.ts";
import type { Setting } from "./setting_kinds.ts";
import { defaultSettings, flagOf, type Name, SETTINGS, type Settings } from "./settings.ts";

/** What Deno Deploy's smallest instance, of 512 MB, has room for. */
const DEPLOY_DEFAULTS = { HISTORY_MB: 64, MAX_RSS_MB: 400 };

type Env = (name: string) => string | undefined;

/** What was asked on the command line: to print something, or to run with settings that may not do what a person wants. */
export type Command =
  | { print: "help" | "version" }
  | { settings: Settings; warnings: { event: string; text: string }[] };

/**
 * Reads flags, then variables, then defaults.
 * @throws {SettingError | OptionError} if a flag is unknown or a value cannot be used
 */
export function readSettings(args: string[], env: Env): Command {
  const names = Object.keys(SETTINGS) as Name[];
  // Behind it flags are not looked for: `deno task start -- --port 80` would lose the port.
  if (args.includes("--")) notUnderstood("--");
  const flags = parseArgs(joinNegatives(args), {
    string: names.map(flagOf),
    boolean: ["help", "version"],
    alias: { h: "help" },
    unknown: notUnderstood,
  });
  if (flags.help) return { print: "help" };
  if (flags.version) return { print: "version" };
  const isDeployed = isOnDeploy(env);
  const defaults = { ...defaultSettings(), ...(isDeployed && DEPLOY_DEFAULTS) };
  const read = names.map((name) => {
    const setting: Setting<unknown> = SETTINGS[name];
    // An empty variable is none; a flag without a value is a slip.
    const text = flags[flagOf(name)] ?? (env(name) || undefined);
    const value = text === undefined ? defaults[name] : setting.read(String(text));
    if (value === undefined) cannotUse(name, `must be ${setting.kind}, is ${JSON.stringify(text)}`);
    return [name, value];
  });
  const settings: Settings = Object.fromEntries(read);
  if (flags.port !== undefined && settings.SOCKET_PATH) {
    cannotUse("PORT", `SOCKET_PATH ${settings.SOCKET_PATH} is set too, it listens in one place`);
  }
  checkTogether(settings);
  return { settings, warnings: warningsOf(settings, isDeployed) };
}

function isOnDeploy(env: Env): boolean {
  try {
    return Boolean(env("DENO_DEPLOYMENT_ID") || env("DENO_DEPLOY"));
  } catch {
    // Only a machine of one's own grants so few permissions.
    return false;
  }
}

/** `--message-rate -1` is a value that is refused, not a flag -1. */
function joinNegatives(args: string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    if (/^-\d/.test(arg) && joined.at(-1)?.startsWith("--")) joined.push(`${joined.pop()}=${arg}`);
    else joined.push(arg);
  }
  return joined;
}

function notUnderstood(argument: string): never {
  const [, flag] = /^--([^=]*)/.exec(argument) ?? [];
  const known = Object.keys(SETTINGS).map(flagOf);
  const hint = flag ? `did you mean --${closestString(flag, known)}?` : "--help lists the flags";
  throw new SettingError(`Cannot understand ${JSON.stringify(argument)}: ${hint}`);
}

function cannotUse(name: Name, why: string): never {
  throw new SettingError(`Cannot use ${name}: ${why}`);
}

function checkTogether(settings: Settings): void {
  const { TLS_CERT, TLS_KEY, SOCKET_PATH, WORKERS, MAX_QUEUE_BYTES, MAX_MESSAGE_BYTES } = settings;
  if (TLS_CERT && !TLS_KEY) cannotUse("TLS_CERT", "TLS_KEY is missing, TLS needs both");
  if (TLS_KEY && !TLS_CERT) cannotUse("TLS_KEY", "TLS_CERT is missing, TLS needs both");
  if (TLS_CERT && SOCKET_PATH) cannotUse("TLS_CERT", `SOCKET_PATH ${SOCKET_PATH} is without TLS`);
  if (settings.AUTH_SECRET && settings.AUTH_JWKS) {
    cannotUse("AUTH_JWKS", "AUTH_SECRET is set too, tokens have one kind of key");
  }
  if (settings.DATA_FILE && settings.REDIS_URL) {
    cannotUse("DATA_FILE", "REDIS_URL is set too, rooms are kept in one place");
  }
  if (MAX_QUEUE_BYTES < MAX_MESSAGE_BYTES) {
    const least = `must be at least MAX_MESSAGE_BYTES (${MAX_MESSAGE_BYTES})`;
    cannotUse("MAX_QUEUE_BYTES", `${least}, is ${MAX_QUEUE_BYTES}`);
  }
  if (WORKERS === 1) return;
  if (SOCKET_PATH) cannotUse("WORKERS", `with SOCKET_PATH there is one worker, is ${WORKERS}`);
  if (!("listenDatagram" in Deno)) {
    cannotUse("WORKERS", `a port for several needs deno run --unstable-net, is ${WORKERS}`);
  }
}

function warningsOf(settings: Settings, isDeployed: boolean) {
  const { ALLOWED_ORIGINS, AUTH_SECRET, AUTH_JWKS, HOST, SOCKET_PATH } = settings;
  const isAnyOrigin = ["same", "*"].includes(ALLOWED_ORIGINS.join());
  const isLocal = SOCKET_PATH || /^(localhost|127\.[\d.]+|::1|\[::1\])$/.test(HOST);
  const isOpen = isAnyOrigin && !AUTH_SECRET && !AUTH_JWKS && !isLocal;
  const warnings: [unknown, event: string, text: string][] = [
    [isOpen, "open", "Anybody may connect: set AUTH_SECRET or AUTH_JWKS, or a loopback HOST"],
    [
      AUTH_JWKS && !settings.AUTH_AUDIENCE,
      "any_audience",
      "Tokens that their issuer made for other services count too: set AUTH_AUDIENCE",
    ],
    [
      isDeployed && !settings.REDIS_URL,
      "split",
      "Rooms are split over the instances of Deno Deploy: set REDIS_URL",
    ],
  ];
  return warnings.flatMap(([isDue, event, text]) => isDue ? [{ event, text }] : []);
}
