/**
 * The contract that every engine keeps (`tests/engine/contract.ts`): it numbers a room's messages, keeps
 * them, and hands them to every process that hosts the room. The memory engine answers at once, the
 * others with a promise. No method throws or rejects: a {@link Refusal} says why.
 */
import type { Span } from "../protocol/page.ts";
import type { Cursor, Head, StateCursor } from "../protocol/position.ts";
import type {
  Members,
  RoomEvent,
  RoomSummary,
  StateSpan,
  Transient,
} from "../protocol/room_event.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";

/** What makes a message known when it is sent again: within a room and session an `id` counts once. */
export interface IdempotencyKey {
  /** Whose ids they are. */
  session: string;
  /** Counts once in the session. */
  id: string;
  /** With it, a repeat that carries another digest is refused as `conflict`; without, ids beyond the last 1,000 of the session are forgotten. */
  digest?: string;
}

/** A message to publish. */
export interface Draft {
  /** The sender's name. */
  sender: string;
  /** JSON text. */
  message: string;
  /** Makes it known when it is sent again. */
  key?: IdempotencyKey;
  /** The sender's address: its share of rooms and keys is limited. Without one, only the whole is. */
  address?: string;
}

/** A change of a room's state. */
export interface Change {
  /** The key; the grammar is checked before. */
  key: string;
  /** JSON text; `null` removes the key. */
  value: string;
  /** Whose change it is. */
  sender: string;
  /** The rev that the key must have; 0: it must not be there. */
  if?: number;
  /** Whole seconds, after which the key is removed by itself. */
  ttlSeconds?: number;
  /** The member with whose end the key is removed; `bind` of the contract. */
  member?: string;
  /** Makes it known when it is sent again. */
  id?: IdempotencyKey;
  /** The user's or address's share of all state is limited. Without one, only the whole is. */
  owner?: string;
}

/** Why an engine did not do it. `unavailable` leaves the outcome unknown. */
export interface Refusal {
  /** A code of `handlers/README.md`. */
  refused: "unavailable" | "too_many_rooms" | "conflict" | "too_many_keys" | "rev_conflict";
  /** Of `rev_conflict`: the rev that the key has, 0 if it is not there. */
  rev?: number;
}

/** Nobody knows whether it was done. */
export const UNAVAILABLE: Refusal = { refused: "unavailable" };

/** What became of a message: its place in the order, the first one's for a repeat. */
export type Outcome = Cursor | Refusal;

/** Tells a {@link Refusal} from a result. */
export function isRefusal(value: unknown): value is Refusal {
  return typeof value === "object" && value !== null && "refused" in value;
}

/** A process's end of a room. */
export interface Host {
  /** Hears the room's events, in order, from the {@link Head} that `host` answered with. */
  deliver(event: RoomEvent): void;
  /** How many subscribers this process has in the room. */
  readonly subscriberCount: number;
}

/** Figures of an engine, for the metrics. */
export interface EngineStats {
  /** Rooms known, empty ones with history included. */
  rooms: number;
  /** Bytes that history, remembered ids and state are counted with. */
  historyBytes: number;
  /** Whether `maxRooms` are in use, so that no room can be added until a host goes. */
  isFull?: boolean;
  /** Of an engine that talks to servers. */
  remote?: RemoteStats;
}

/** What an engine has had to do with servers since its start. */
export interface RemoteStats {
  /** Commands sent. */
  commands: number;
  /** Connections that were made again. */
  reconnects: number;
  /** Round trips that were measured. */
  roundTrips: number;
  /** Their sum. */
  roundTripSeconds: number;
}

/** The contract. Calls that come from one caller take effect in the order they were made. */
export interface Engine {
  /** Which engine it is. */
  readonly name: "memory" | "durable" | "redis";

  /**
   * Starts hosting a room in this process, once: events begin right behind the head that it answers
   * with. Of all rooms the `address` of who opens them has a limited share.
   */
  host(room: string, host: Host, address?: string): MaybePromise<Head | Refusal>;

  /** Ends hosting. An empty room keeps its history and epoch for `historySeconds`. */
  release(room: string): void;

  /** Numbers, keeps and hands out a message. An answer with a place means: kept. */
  publish(room: string, draft: Draft): MaybePromise<Outcome>;

  /**
   * Changes a key of the room's state, in one order with the messages; hosts hear `set`. Removing a
   * key that is not there changes nothing: the answer is the room's rev.
   */
  set(room: string, change: Change): MaybePromise<StateCursor | Refusal>;

  /**
   * The room's state: what changed behind `since`, or all of it where `since` is missing, of another
   * epoch, beyond the newest or too long ago.
   */
  state(room: string, since?: StateCursor): MaybePromise<StateSpan | Refusal>;

  /** Hands an event to every host of the room, behind all that was published before; keeps nothing. */
  relay(room: string, event: Transient): void;

  /**
   * Makes `member` (unique in the whole system) known under a name; hosts hear a `status`. A user's
   * members are one person.
   */
  join(room: string, member: string, name: string, user?: string): MaybePromise<
    Refusal | undefined
  >;

  /** Ends a membership; hosts hear a `status` if its person has no other. Unknown members are ignored. */
  leave(room: string, member: string): void;

  /** The people who have joined, over all processes. */
  members(room: string): MaybePromise<Members | Refusal>;

  /**
   * The kept messages behind `after`, or all that are kept where `after` is missing, of another
   * epoch or beyond the newest. A room that nobody knows answers with a fresh epoch and nothing kept.
   * Where all would be, `newest` of them are enough: an engine may leave out the others.
   */
  read(room: string, after?: Cursor, newest?: number): MaybePromise<Span | Refusal>;

  /** Rooms with listeners, by name, those behind `after`, at most `limit`. */
  rooms(after: string, limit: number): MaybePromise<RoomSummary[] | Refusal>;

  /** Whether it can take messages now: `/readyz`. */
  isReady(): boolean;

  /** Figures for the metrics, of this process. */
  stats(): EngineStats;

  /** Ends it: no event, timer or connection is left. */
  close(): Promise<void>;
}
