/** Every limit of a server, in one flat object. */
import type { HistoryLimits } from "../engine/room_rules.ts";
import { OptionError } from "../util/option_error.ts";
import { DEFAULT_MAX_KEYS, DEFAULT_MAX_STATE_BYTES } from "../engine/state_map.ts";

/** The limits of a server that sets none. 0 means no limit where the comment says so. */
export const DEFAULT_LIMITS = {
  /** Clients at once; one more is refused with 503. */
  maxConnections: 10_000,
  /** Clients at once from one address (IPv6: one /64); 0 = no limit. */
  maxConnectionsPerIp: 0,
  /** Clients at once of one user; 0 = no limit. */
  maxConnectionsPerUser: 0,
  /** Bytes of a message or of a request's body. */
  maxMessageBytes: 65_536,
  /** Unsent bytes of one client; above, it is closed with 1013. */
  maxQueueBytes: 1_048_576,
  /** Megabytes unsent to all clients of a thread together; near it each may have less. */
  queueMb: 256,
  /** Rooms, empty ones included. */
  maxRooms: 100_000,
  /** Rooms that one socket subscribes to. */
  maxRoomsPerConnection: 100,
  /** Megabytes of the process above which no client is let in; 0 = no limit. */
  maxRssMb: 0,
  /** Messages a second from one connection; 0 = no limit. */
  messageRate: 100,
  /** Messages a second from all connections of one user; 0 = no limit. */
  messageRatePerUser: 0,
  /** Bytes a second from one connection; 0 = no limit. */
  byteRate: 1_048_576,
  /** Joins and listens a second from one connection; 0 = no limit. */
  joinRate: 10,
  /** Requests to publish a second from one user, or address where no token names one, but not from an admin; 0 = no limit. */
  postRate: 100,
  /** Seconds of silence after which a peer that answers no ping is dropped; 0 = never. */
  idleTimeoutSeconds: 30,
  /** Messages kept a room. */
  historySize: 100,
  /** Seconds that messages, and empty rooms, are kept. */
  historySeconds: 3_600,
  /** Megabytes for all rooms together, remembered ids and state included. */
  historyMb: 256,
  /** Keys of a room's state. */
  maxKeys: DEFAULT_MAX_KEYS,
  /** Bytes of a room's keys, encoded; more than a quarter of `maxQueueBytes` counts as that. */
  maxStateBytes: DEFAULT_MAX_STATE_BYTES,
  /** Seconds over which a drain sends clients away. */
  drainSeconds: 4,
};

/** What clients may use, and what the server keeps. */
export type Limits =
  & { -readonly [Name in keyof typeof DEFAULT_LIMITS]: number }
  & Pick<HistoryLimits, "roomRules" | "events">;

/**
 * Limits with those that are missing; a room's state is at most a quarter of what a client may have unsent.
 * @throws {OptionError} if one is no number from 0
 */
export function fullLimits(limits: Partial<Limits> = {}): Limits {
  const given = Object.entries(limits).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    const isNumber = typeof value === "number" && value >= 0;
    if (name in DEFAULT_LIMITS && !isNumber) {
      throw new OptionError(name, `must be a number from 0, is ${value}`);
    }
  }
  const full: Limits = { ...DEFAULT_LIMITS, ...Object.fromEntries(given) };
  return { ...full, maxStateBytes: Math.min(full.maxStateBytes, full.maxQueueBytes / 4) };
}
