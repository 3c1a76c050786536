/**
 * Settings from flags and variables.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { closestString } from "@std/text/closest-string";
import { SettingError } from "../util/setting_error.ts";
import {
  defaultSettings,
  flagOf,
  type Name,
  type Setting,
  SETTINGS,
  type Settings,
} from "./settings.ts";

/** What Deno Deploy's smallest instance, of 512 MB, has room for. */
const DEPLOY_DEFAULTS = { HISTORY_MB: 64, MAX_RSS_MB: 400 };

/** What was asked on the command line: to run with these settings, or to print something. */
export type Command = { print: "help" | "version" } | { settings: Settings };

/** Whether a server with these variables runs on Deno Deploy. */
export function isOnDeploy(env: (name: string) => string | undefined): boolean {
  try {
    return Boolean(env("DENO_DEPLOYMENT_ID") || env("DENO_DEPLOY"));
  } catch {
    // Only a machine of one's own grants so few permissions.
    return false;
  }
}

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
  const flags = parseArgs(joinNegatives(args), {
    string: names.map(flagOf),
    boolean: ["help", "version"],
    alias: { h: "help" },
    unknown: notUnderstood,
  });
  if (flags.help) return { print: "help" };
  if (flags.version) return { print: "version" };
  const defaults = { ...defaultSettings(), ...(isOnDeploy(env) && DEPLOY_DEFAULTS) };
  const settings: Record<string, unknown> = {};
  for (const name of names) {
    const setting: Setting<unknown> = SETTINGS[name];
    // An empty variable is none; a flag without a value is a slip.
    const text = flags[flagOf(name)] ?? (env(name) || undefined);
    const value = text === undefined ? defaults[name] : setting.read(String(text));
    if (value === undefined) {
      cannotUse(name, `must be ${setting.kind}, is ${JSON.stringify(text)}`);
    }
    settings[name] = value;
  }
  if (flags.port !== undefined && settings.SOCKET_PATH) {
    cannotUse("PORT", `SOCKET_PATH ${settings.SOCKET_PATH} is set too, it listens in one place`);
  }
  checkTogether(settings as Settings);
  return { settings: settings as Settings };
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
  const { TLS_CERT, TLS_KEY, SOCKET_PATH, MAX_QUEUE_BYTES, MAX_MESSAGE_BYTES } = settings;
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
}
