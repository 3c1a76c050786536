/** The settings, one a line: parsing, `--help` and the table of `handlers/README.md` follow it. */
import { fullLimits } from "../access/limits.ts";
import { OriginRules, SAME_ORIGIN } from "../access/origins.ts";
import { MEMBER_EVENTS } from "../engine/member_events.ts";
import { checkRoomRules } from "../engine/room_rules.ts";
import { HOOK_EVENTS } from "../hooks/hooks.ts";
import { LOG_LEVELS } from "./log.ts";
import { LARGE, limit, number, oneOf, type Setting, someOf, text } from "./setting_kinds.ts";

const HOST_NAME = /^(\[?[\da-f:.]+\]?|[a-z\d](\.?[a-z\d-])*)$/i;
const HTTP_URL = /^https?:\/\/[^\s/]+\S*$/i;

/** Every setting, by the name of its variable. */
export const SETTINGS = {
  PORT: number(8000, "TCP port; 0 takes a free one", 65_535),
  HOST: text("address to listen on", "0.0.0.0", HOST_NAME, "an IP address or a host name"),
  SOCKET_PATH: text("listen on this Unix domain socket instead of a port"),
  TLS_CERT: text("PEM file of the certificate: with TLS_KEY it serves wss:// and https://"),
  TLS_KEY: text("PEM file of the private key"),
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
  AUTH_SECRET: text("secret of HS256 tokens, 32 bytes or more, or base64:…; clients need one"),
  AUTH_JWKS: text("file or URL of the public keys of tokens (JWKS) in its place"),
  AUTH_ISSUER: text("iss that a token must have"),
  AUTH_AUDIENCE: text("aud that a token must have"),
  MAX_TOKEN_SECONDS: number(0, "seconds after its iat at which a token ends; 0 = any"),
  TRUST_PROXY: number(0, "proxies in front, whose X-Forwarded-For is believed", 100),
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
  IDLE_TIMEOUT: limit("idleTimeoutSeconds", "seconds until a silent peer goes; 0 = never", 2147483),
  HISTORY_SIZE: limit("historySize", "messages kept a room"),
  HISTORY_SECONDS: limit("historySeconds", "seconds that messages and empty rooms are kept"),
  HISTORY_MB: limit("historyMb", "megabytes of history, all rooms together", LARGE, 1),
  MAX_KEYS: limit("maxKeys", "keys of a room's state"),
  MAX_STATE_BYTES: limit("maxStateBytes", "bytes of them; at most a quarter of MAX_QUEUE_BYTES"),
  ROOM_RULES: {
    default: {},
    shown: "off",
    meaning: 'what some rooms keep: {"user:*":{"history":9,"seconds":60,"keys":5}}',
    kind: "a JSON object",
    limit: "roomRules" as const,
    read(text: string) {
      try {
        return checkRoomRules(JSON.parse(text));
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
      }
    },
  },
  MAX_ROOMS: limit("maxRooms", "rooms, empty ones with history included"),
  DATA_FILE: text("file that rooms are kept in over restarts, also if the machine fails"),
  REDIS_URL: text("URL of Redis, a Redis Cluster or Sentinel: rooms live there, for many machines"),
  HOOK_URL: text("URL that is asked before a join, message or change", "", HTTP_URL, "a URL"),
  HOOK_EVENTS: someOf(["join", "chat", "set"], HOOK_EVENTS, "what it is asked about"),
  HOOK_MS: number(1_000, "ms that it may take", 10_000, 1),
  HOOK_SECRET: text("secret that signs what it is asked"),
  EVENTS: { ...someOf([], MEMBER_EVENTS, "what the room _events says"), limit: "events" as const },
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
} satisfies Record<string, Setting<unknown>>;

/** The name of a setting. */
export type Name = keyof typeof SETTINGS;

/** The groups that `--help` shows, by the setting that each begins with. */
export const GROUPS: Partial<Record<Name, string>> = {
  PORT: "Where it listens",
  ALLOWED_ORIGINS: "Who may connect",
  MAX_CONNECTIONS: "What a client may use",
  HISTORY_SIZE: "What it keeps",
  HOOK_URL: "What a backend decides and hears",
  LOG_LEVEL: "How it runs",
};

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
