/** Every limit of a server, in one flat object. */
import type { HistoryLimits } from "../engine/room_rules.ts";
import { OptionError } from "../util/option_error.ts";
import { DEFAULT_MAX_KEYS, DEFAULT_MAX_STATE_BYTES } from "../engine/state_map.ts";

/** What clients may use, and what the server keeps. 0 means no limit where the comment says so. */
export interface Limits extends HistoryLimits {
  /** Clients at once; one more is refused with 503. */
  maxConnections: number;
  /** Clients at once from one address (IPv6: one /64); 0 = no limit. */
  maxConnectionsPerIp: number;
  /** Clients at once of one user; 0 = no limit. */
  maxConnectionsPerUser: number;
  /** Bytes of a message or of a request's body. */
  maxMessageBytes: number;
  /** Unsent bytes of one client; above, it is closed with 1013. */
  maxQueueBytes: number;
  /** Megabytes unsent to all clients of a thread together; near it each may have less. */
  queueMb: number;
  /** Keys of a room's state. */
  maxKeys: number;
  /** Bytes of a room's keys, encoded; more than a quarter of `maxQueueBytes` counts as that. */
  maxStateBytes: number;
  /** Rooms that one socket subscribes to. */
  maxRoomsPerConnection: number;
  /** Megabytes of the process above which no client is let in; 0 = no limit. */
  maxRssMb: number;
  /** Messages a second from one connection; 0 = no limit. */
  messageRate: number;
  /** Messages a second from all connections of one user; 0 = no limit. */
  messageRatePerUser: number;
  /** Bytes a second from one connection; 0 = no limit. */
  byteRate: number;
  /** Joins and listens a second from one connection; 0 = no limit. */
  joinRate: number;
  /** Requests to publish a second from one user, or address where no token names one, but not from an admin; 0 = no limit. */
  postRate: number;
  /** Seconds of silence after which a peer that answers no ping is dropped; 0 = never. */
  idleTimeoutSeconds: number;
  /** Seconds over which a drain sends clients away. */
  drainSeconds: number;
}

/** The limits of a server that sets none. */
export const DEFAULT_LIMITS: Readonly<Limits> = {
  maxConnections: 10_000,
  maxConnectionsPerIp: 0,
  maxConnectionsPerUser: 0,
  maxMessageBytes: 65_536,
  maxQueueBytes: 1_048_576,
  queueMb: 256,
  maxRooms: 100_000,
  maxRoomsPerConnection: 100,
  maxRssMb: 0,
  messageRate: 100,
  messageRatePerUser: 0,
  byteRate: 1_048_576,
  joinRate: 10,
  postRate: 100,
  idleTimeoutSeconds: 30,
  historySize: 100,
  historySeconds: 3_600,
  historyMb: 256,
  maxKeys: DEFAULT_MAX_KEYS,
  maxStateBytes: DEFAULT_MAX_STATE_BYTES,
  drainSeconds: 4,
};

/**
 * Limits with those that are missing; a room's state is at most a quarter of what a client may have unsent.
 *
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
