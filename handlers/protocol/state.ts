/** The wire form of a room's state: keys, what subscribers ask for, and the objects they get. Pure. */
import { byteLength } from "../util/bytes.ts";
import type { Entry, StateSpan } from "./room_event.ts";

const KEY = /^[A-Za-z0-9._:/-]{1,128}$/;
/** A segment that a URL would fold away. */
const NO_SEGMENT = /(?:^|\/)\.{0,2}(?:\/|$)/;
const MAX_TTL_SECONDS = 31_536_000;
const MIN_EVERY_MS = 10;
const MAX_EVERY_MS = 60_000;
/** A `state` is split where a frame would be longer, what stands around its entries included. */
const MAX_ENTRIES_BYTES = 65_536 - 256;

/** What a subscriber wants of a room's state. */
export type WantedState = {
  /** Whether it subscribes to the state. */
  state?: boolean;
  /** Where it was: `epoch:rev`, unchecked. Of a bad one it gets the whole state. */
  since?: string;
  /** It gets changes together, at most each so many ms. */
  every?: number;
};

/** What a `set` asks of a change besides its key and value. */
export type Conditions = {
  /** The rev that the key must have; 0: it must not be there. */
  if?: number;
  /** Whole seconds until it is removed by itself. */
  ttl?: number;
};

/** Whether a text is a key of a room's state. */
export function isStateKey(value: unknown): value is string {
  return typeof value === "string" && KEY.test(value) && !NO_SEGMENT.test(value);
}

function isWhole(value: unknown, min: number, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
}

/** Whether `if` and `ttl` are whole numbers in their bounds, or missing. */
export function areConditions(
  conditions: { if?: unknown; ttl?: unknown },
): conditions is Conditions {
  const { if: rev, ttl } = conditions;
  return (rev === undefined || isWhole(rev, 0, Number.MAX_SAFE_INTEGER)) &&
    (ttl === undefined || isWhole(ttl, 1, MAX_TTL_SECONDS));
}

/** Whether `state`, `since` and `every` are of their types and in their bounds, or missing. */
export function isWantedState(
  wanted: { state?: unknown; since?: unknown; every?: unknown },
): wanted is WantedState {
  const { state, since, every } = wanted;
  return (state === undefined || typeof state === "boolean") &&
    (since === undefined || typeof since === "string") &&
    (every === undefined || isWhole(every, MIN_EVERY_MS, MAX_EVERY_MS));
}

/** An entry as it stands in a `state`. */
export function encodeEntry({ key, value, sender, time, rev }: Entry): string {
  const name = JSON.stringify(sender);
  return `{"key":"${key}","value":${value},"sender":${name},"time":${time},"rev":${rev}}`;
}

/** The object `set`. */
export function encodeSet(room: string, { key, value, sender, time, rev }: Entry): string {
  const name = JSON.stringify(sender);
  return `{"type":"set","room":"${room}","rev":${rev},"time":${time},"sender":${name},"key":"${key}","value":${value}}`;
}

/** The objects `state`: as many as frames of 64 kB need, all but the last with `more`. */
export function encodeState(room: string, { entries, ...span }: StateSpan): string[] {
  const { epoch, rev, since } = span;
  const head = JSON.stringify({ type: "state", room, epoch, rev, since }).slice(0, -1);
  const parts: string[][] = [[]];
  let bytes = 0;
  for (const text of entries.map(encodeEntry)) {
    const size = byteLength(text) + 1;
    if (bytes > 0 && bytes + size > MAX_ENTRIES_BYTES) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1)!.push(text);
    bytes += size;
  }
  return parts.map((part, index) => {
    const more = index < parts.length - 1 ? `,"more":true` : "";
    return `${head},"entries":[${part.join(",")}]${more}}`;
  });
}
