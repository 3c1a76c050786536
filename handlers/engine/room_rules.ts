/** What is kept of each room: the limits of all, or what a rule says of its name. */
import { isObject } from "../protocol/json.ts";
import { isRoomName, isServerRoom, isSharedRoom } from "../protocol/parse.ts";
import { OptionError } from "../util/option_error.ts";
import type { MemberEvent } from "./member_events.ts";
import { DEFAULT_MAX_KEYS, DEFAULT_MAX_STATE_BYTES } from "./state_map.ts";

/** What is kept of the rooms that a rule names; what is missing is as for all. */
export interface RoomRule {
  /** Messages a room. */
  history?: number;
  /** How long they, and empty rooms, are kept. */
  seconds?: number;
  /** Keys of its state. */
  keys?: number;
}

/** Rules by a room's name or `prefix*`; the first that fits counts. */
export type RoomRules = Record<string, RoomRule>;

/** What is kept of one room. */
export interface RoomLimits {
  /** Messages. */
  historySize: number;
  /** How long messages, and empty rooms, are kept. */
  historySeconds: number;
  /** Keys of its state. */
  maxKeys?: number;
  /** Bytes of them, encoded. */
  maxStateBytes?: number;
}

/** How much an engine keeps; see the settings of the same names. */
export interface HistoryLimits extends RoomLimits {
  /** What is kept of some rooms in place of that. */
  roomRules?: RoomRules;
  /** What the room `_events` says of members; nothing if missing. */
  events?: readonly MemberEvent[];
  /** Megabytes for all rooms together, remembered ids and state included. */
  historyMb: number;
  /** Rooms, empty ones included. */
  maxRooms: number;
}

/** A hundred years. */
const FOREVER_SECONDS = 3_155_760_000;
/** What a backend that was away can catch up on. */
const SHARED_ROOM_LIMITS: Required<RoomLimits> = {
  historySize: 10_000,
  historySeconds: FOREVER_SECONDS,
  maxKeys: Infinity,
  maxStateBytes: Infinity,
};

/**
 * Makes the function that tells what is kept of a room. No rule counts for the server's own rooms.
 * @throws {OptionError} if a rule is none
 */
export function roomLimits(
  { roomRules = {}, ...limits }: RoomLimits & Pick<HistoryLimits, "roomRules">,
): (room: string) => Required<RoomLimits> {
  const { maxKeys = DEFAULT_MAX_KEYS, maxStateBytes = DEFAULT_MAX_STATE_BYTES } = limits;
  const all = { ...limits, maxKeys, maxStateBytes };
  const rules = Object.entries(checkRoomRules(roomRules)).map(([name, rule]) => {
    const { history = all.historySize, seconds = all.historySeconds, keys = maxKeys } = rule;
    const own = { ...all, historySize: history, historySeconds: seconds, maxKeys: keys };
    return { name, limits: own };
  });
  return (room) => {
    if (isSharedRoom(room)) return SHARED_ROOM_LIMITS;
    if (isServerRoom(room)) return all;
    const rule = rules.find(({ name }) =>
      name.endsWith("*") ? room.startsWith(name.slice(0, -1)) : room === name
    );
    return rule?.limits ?? all;
  };
}

/** Reads rules from what may be anything. @throws {OptionError} if one is none */
export function checkRoomRules(rules: unknown): RoomRules {
  if (!isObject(rules)) throw cannotUse(`must be an object of rules by room, is ${show(rules)}`);
  for (const [name, rule] of Object.entries(rules)) {
    // A prefix leaves space for one letter at least.
    if (!isRoomName(name.replace(/\*$/, "x")) || isServerRoom(name)) {
      throw cannotUse(`${show(name)} is no room's name and no prefix*`);
    }
    if (!isObject(rule)) throw cannotUse(`${name} must be an object, is ${show(rule)}`);
    for (const [part, count] of Object.entries(rule)) {
      if (!PARTS.includes(part)) {
        throw cannotUse(`${name} has ${show(part)}, a rule has ${PARTS.join(", ")}`);
      }
      if (!Number.isInteger(count) || Number(count) < 0 || Number(count) > MAX_COUNT) {
        const must = `must be a whole number from 0 to ${MAX_COUNT}`;
        throw cannotUse(`${part} of ${name} ${must}, is ${show(count)}`);
      }
    }
  }
  return rules as RoomRules;
}

const PARTS = ["history", "seconds", "keys"];
const MAX_COUNT = 1_000_000_000;
const show = JSON.stringify;

function cannotUse(why: string): OptionError {
  return new OptionError("roomRules", why);
}
