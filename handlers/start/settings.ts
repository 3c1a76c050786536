/** The settings, one a line: parsing, `--help` and the table of `handlers/README.md` follow it. */
import { DEFAULT_LIMITS, fullLimits, type Limits } from "../access/limits.ts";
import { OriginRules, SAME_ORIGIN } from "../access/origins.ts";
import { MEMBER_EVENTS } from "../engine/member_events.ts";
import { checkRoomRules, type RoomRules } from "../engine/room_rules.ts";
import { HOOK_EVENTS } from "../hooks/hooks.ts";
import { OptionError } from "../util/option_error.ts";
import { LOG_LEVELS } from "./log.ts";

/** One setting: its variable is NAME, its flag `--name`. */
export interface Setting<T> {
  default: T;
  /** What it means, with its unit. */
  meaning: string;
  /** How the default is shown, where it is not the value itself. */
  shown?: string;
  /** The value; nothing if the text is none. */
  read(text: string): T | undefined;
  /** What a text must be: "a whole number from 0 to 65535". */
  kind: string;
  /** Its name among the {@link Limits}. */
  limit?: keyof Limits;
}

/** The {@link Limits} that are numbers. */
type NumericLimit = {
  [Name in keyof Limits]-?: Limits[Name] extends number ? Name : never;
}[keyof Limits];

const LARGE = 1e15 - 1;
const HTTP_URL = /^https?:\/\/[^\s/]+\S*$/i;

/** Every setting by the name of its variable, in the groups that `--help` shows. */
export const GROUPS = {
  "Where it listens": {
    PORT: number(8000, "TCP port; 0 takes a free one", 65_535),
    HOST: text("address to listen on", "0.0.0.0", /^(\[?[\da-f:.]+\]?|[a-z\d](\.?[a-z\d-])*)$/i),
    SOCKET_PATH: text("listen on this Unix domain socket instead of a port"),
    TLS_CERT: text("PEM file of the certificate: with TLS_KEY it serves wss:// and https://"),
    TLS_KEY: text("PEM file of the private key"),
  },
  "Who may connect": {
    ALLOWED_ORIGINS: {
      default: SAME_ORIGIN,
      meaning: "pages that may connect: same, https://a.example, *.example.com, …; * = any",
      kind: "a list of texts",
      read(text: string) {
        const items = text.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean);
        // Throws where no browser sends such an origin.
        new OriginRules(items);
        return items.length > 0 ? items : SAME_ORIGIN;
      },
    },
    AUTH_SECRET: text("secret of HS256 tokens, 32 bytes or more; with it clients need one"),
    AUTH_JWKS: text("file or URL of the public keys of tokens (JWKS) in its place"),
    AUTH_ISSUER: text("iss that a token must have"),
    AUTH_AUDIENCE: text("aud that a token must have"),
    MAX_TOKEN_SECONDS: number(0, "seconds after its iat at which a token ends; 0 = any"),
    TRUST_PROXY: number(0, "proxies in front, whose X-Forwarded-For is believed", 100),
  },
  "What a client may use": {
    MAX_CONNECTIONS: limit("maxConnections", "clients at once; one more gets 503"),
    MAX_CONNECTIONS_PER_IP: limit("maxConnectionsPerIp", "clients from one address; 0 = any"),
    MAX_CONNECTIONS_PER_USER: limit("maxConnectionsPerUser", "clients of one user; 0 = any"),
    MAX_MESSAGE_BYTES: limit("maxMessageBytes", "bytes of a message or a request's body"),
    MAX_QUEUE_BYTES: limit("maxQueueBytes", "unsent bytes at which a client is closed with 1013"),
    QUEUE_MB: limit("queueMb", "megabytes unsent to all; near it each may have less", LARGE, 1),
    MAX_ROOMS_PER_CONNECTION: limit("maxRoomsPerConnection", "rooms that one socket hears"),
    MESSAGE_RATE: limit("messageRate", "messages a second from one socket; 0 = any"),
    MESSAGE_RATE_PER_USER: limit("messageRatePerUser", "messages a second of one user; 0 = any"),
    BYTE_RATE: limit("byteRate", "bytes a second from one socket; 0 = any"),
    JOIN_RATE: limit("joinRate", "joins and listens a second from one socket; 0 = any"),
    POST_RATE: limit(
      "postRate",
      "POSTs a second of a user, or address without one; not of an admin; 0 = any",
    ),
    // The runtime's timers hold at most 2^31 ms.
    IDLE_TIMEOUT: limit(
      "idleTimeoutSeconds",
      "seconds until a silent peer goes; 0 = never",
      2147483,
    ),
  },
  "What it keeps": {
    HISTORY_SIZE: limit("historySize", "messages kept a room"),
    HISTORY_SECONDS: limit("historySeconds", "seconds that messages and empty rooms are kept"),
    HISTORY_MB: limit("historyMb", "megabytes of history, all rooms together", LARGE, 1),
    MAX_KEYS: limit("maxKeys", "keys of a room's state"),
    MAX_STATE_BYTES: limit("maxStateBytes", "bytes of them; at most a quarter of MAX_QUEUE_BYTES"),
    ROOM_RULES: roomRules('what some rooms keep: {"user:*":{"history":9,"seconds":60,"keys":5}}'),
    MAX_ROOMS: limit("maxRooms", "rooms, empty ones with history included"),
    DATA_FILE: text("file that rooms are kept in over restarts, also if the machine fails"),
    REDIS_URL: text(
      "URL of Redis, a Redis Cluster or Sentinel: rooms live there, for many machines",
    ),
  },
  "What a backend decides and hears": {
    HOOK_URL: text("URL that is asked before a join, message or change", "", HTTP_URL, "a URL"),
    HOOK_EVENTS: someOf(["join", "chat", "set"], HOOK_EVENTS, "what it is asked about"),
    HOOK_MS: number(1_000, "ms that it may take", 10_000, 1),
    EVENTS: {
      ...someOf([], MEMBER_EVENTS, "what the room _events says"),
      limit: "events" as const,
    },
    HOOK_SECRET: text("secret that signs what it is asked"),
  },
  "How it runs": {
    LOG_LEVEL: oneOf("info", LOG_LEVELS, "least severe level that is logged"),
    LOG_FORMAT: oneOf("text", ["text", "json"], "lines of text, or of JSON"),
    WORKERS: {
      default: 1,
      meaning: "threads that serve one port; auto: one a core",
      kind: "auto or a whole number from 1 to 64",
      read(text: string) {
        if (text === "auto") return navigator.hardwareConcurrency;
        return /^\d{1,2}$/.test(text) && +text >= 1 && +text <= 64 ? +text : undefined;
      },
    },
    MAX_RSS_MB: limit("maxRssMb", "megabytes above which no client is let in; 0 = any"),
    DRAIN_SECONDS: limit("drainSeconds", "seconds over which clients are sent away at the end"),
  },
};

/** Every setting, by the name of its variable. */
export const SETTINGS = {
  ...GROUPS["Where it listens"],
  ...GROUPS["Who may connect"],
  ...GROUPS["What a client may use"],
  ...GROUPS["What it keeps"],
  ...GROUPS["What a backend decides and hears"],
  ...GROUPS["How it runs"],
} satisfies Record<string, Setting<unknown>>;

/** The name of a setting. */
export type Name = keyof typeof SETTINGS;

/** The settings' values, by the name of their variables. */
export type Settings = {
  -readonly [K in Name]: typeof SETTINGS[K] extends Setting<infer T> ? T : never;
};

/** The flag of a setting: `MAX_ROOMS` is `max-rooms`. */
export function flagOf(name: string): string {
  return name.toLowerCase().replaceAll("_", "-");
}

/** All defaults. */
export function defaultSettings(): Settings {
  const all = Object.entries(SETTINGS).map(([name, setting]) => [name, setting.default]);
  return Object.fromEntries(all) as Settings;
}

/** What settings say of limits and access, as `createParley` takes it. */
export function limitsAndAccess(settings: Settings) {
  const limits = Object.entries<Setting<unknown>>(SETTINGS)
    .flatMap(([name, { limit }]) => limit ? [[limit, settings[name as Name]]] : []);
  return {
    limits: fullLimits(Object.fromEntries(limits)),
    allowedOrigins: settings.ALLOWED_ORIGINS,
    trustedProxies: settings.TRUST_PROXY,
  };
}

/** A whole number from `min` to `max`. */
function number(value: number, meaning: string, max = LARGE, min = 0): Setting<number> {
  return {
    default: value,
    meaning,
    kind: `a whole number from ${min} to ${max}`,
    read(text) {
      const number = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
      return number >= min && number <= max ? number : undefined;
    },
  };
}

/** One of the {@link Limits}. */
function limit(
  name: NumericLimit,
  meaning: string,
  max?: number,
  min?: number,
): Setting<number> {
  return { ...number(DEFAULT_LIMITS[name], meaning, max, min), limit: name };
}

/** Rules by room, as JSON. */
function roomRules(meaning: string): Setting<RoomRules> {
  return {
    default: {},
    meaning,
    shown: "off",
    kind: "a JSON object",
    limit: "roomRules",
    read(text) {
      try {
        return checkRoomRules(JSON.parse(text));
      } catch (error) {
        if (error instanceof OptionError) throw error;
      }
    },
  };
}

/** A text; off where it is empty and has no default. */
function text(
  meaning: string,
  value = "",
  form?: RegExp,
  kind = "an IP address or a host name",
): Setting<string> {
  return {
    default: value,
    meaning,
    shown: value || "off",
    kind: form ? kind : "a text",
    read: (text) => !form || form.test(text) ? text : undefined,
  };
}

/** Some of a few words, with commas between them. */
function someOf<const T extends string>(
  value: T[],
  all: readonly T[],
  meaning: string,
): Setting<T[]> {
  const isOne = (word: string): word is T => all.some((one) => one === word);
  return {
    default: value,
    meaning: `${meaning}: some of ${all.join(",")}`,
    shown: value.join(",") || "off",
    kind: `some of ${all.join(",")}`,
    read(text) {
      const words = text.split(",").map((word) => word.trim());
      return words.every(isOne) ? words : undefined;
    },
  };
}

/** One of a few words, in capitals or not. */
function oneOf<const T extends string>(value: T, all: readonly T[], meaning: string): Setting<T> {
  return {
    default: value,
    meaning: `${meaning}: ${all.join(", ")}`,
    kind: `one of ${all.join(", ")}`,
    read: (text) => all.find((one) => one === text.toLowerCase().replace(/^warning$/, "warn")),
  };
}
