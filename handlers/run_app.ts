/** What a program does with a Parley, over an app that is put together. */
import { guardMemory } from "./access/memory_guard.ts";
import type { App } from "./app.ts";
import { isRefusal } from "./engine/engine.ts";
import { historyOf, type HistoryQuery, membersOf } from "./http/rooms.ts";
import { HttpError } from "./protocol/http_error.ts";
import { stateOf } from "./http/state.ts";
import { isBanTime } from "./http/users.ts";
import { publishStats } from "./http/stats.ts";
import { encodeJson, isShallow } from "./protocol/json.ts";
import { isPersonName, isRoomName } from "./protocol/parse.ts";
import type { Cursor, StateCursor } from "./protocol/position.ts";
import { areConditions, isStateKey } from "./protocol/state.ts";
import type { HistoryPage, MemberList, RoomObject, StatePage } from "./protocol/room_event.ts";
import { auditSlots } from "./registry/audit.ts";
import { guardQueues } from "./registry/queue_guard.ts";
import { Program } from "./registry/stream_subscriber.ts";
import { subscribe } from "./registry/membership.ts";
import type { Room } from "./registry/room.ts";
import { createRouter, type Fetch } from "./router.ts";
import { within } from "./util/clock.ts";
import { sha256 } from "./util/digest.ts";

/** Who publishes from code, and under which key. */
export interface PublishOptions {
  /** Whom it is from. @default "Anonymous" */
  sender?: string;
  /** An idempotency key: a repeat within 5 minutes gets the first answer and publishes nothing. */
  key?: string;
}

/** On what condition a key is set, for how long, and whose change it is. */
export interface SetOptions {
  /** The rev that the key must have; 0: it must not be there. Else a `rev_conflict`. */
  if?: number;
  /** Whole seconds, after which the key is removed by itself. */
  ttl?: number;
  /** Whom it is from. @default "Anonymous" */
  sender?: string;
}

/**
 * A Parley without a port. What code does by it passes neither hook nor rights nor rates.
 *
 * Where the engine refuses, a {@link ParleyError} tells its code; after the end all is `unavailable`.
 */
export interface Parley extends AsyncDisposable {
  /** Answers a request, a handshake too: give it to `Deno.serve`. Without `info` no limit counts by address. */
  readonly fetch: Fetch;
  /** How many clients are connected. */
  readonly clientCount: number;
  /** Publishes any JSON value. */
  publish(room: string, message: unknown, options?: PublishOptions): Promise<Cursor>;
  /** Hands on a message of the moment: it is neither numbered nor kept. */
  note(room: string, message: unknown, options?: { sender?: string }): Promise<void>;
  /** Sets a key of the room's state to any JSON value; null removes it. */
  set(room: string, key: string, value: unknown, options?: SetOptions): Promise<StateCursor>;
  /** The room's state: what changed behind `since` (`epoch:rev`), or all of it. */
  state(room: string, since?: string): Promise<StatePage>;
  /** A page of history: forward behind `after` (`epoch:seq`), backward below `before`, else the newest; at most 1,000. */
  history(room: string, options?: HistoryQuery): Promise<HistoryPage>;
  /** Who has joined. */
  members(room: string): Promise<MemberList>;
  /**
   * Hears a room: `welcome` first, what was missed since `after`, then all that comes. Breaking out of
   * the loop, or the signal, ends it; a program that falls `maxQueueBytes` behind gets an error.
   */
  subscribe(
    room: string,
    options?: { after?: string; state?: boolean; since?: string; signal?: AbortSignal },
  ): AsyncIterable<RoomObject>;
  /**
   * Ends all sockets and streams of a user (`user` of the grants, `sub` of a token), in all processes;
   * for so many whole seconds (0) the user is refused. A later ban replaces it.
   */
  disconnect(user: string, options?: { seconds?: number }): Promise<void>;
  /**
   * Sends all clients away, spread over some seconds (`drainSeconds`), and takes nobody in any more.
   * Done when all are gone or the time is over. A second call waits for the same drain.
   */
  drain(options?: { seconds?: number }): Promise<void>;
}

/** What could not be done, as a code of `handlers/README.md`. */
export class ParleyError extends Error {
  /** The kind of error. */
  override name = "ParleyError";

  /** Makes the error of a code. */
  constructor(readonly code: string, what: string) {
    super(`Cannot ${what}: ${code}`);
  }
}

/** How long the clients get to answer a drain's Close frames. */
const GRACE_MS = 500;
/** How long the engine gets to end. */
const CLOSE_MS = 300;

/** Starts what an app does by itself, and gives it the face that {@link createParley} promises. */
export function runApp(app: App): Parley {
  const { registry, clock } = app;
  const watches = [
    guardMemory(registry),
    auditSlots(registry),
    guardQueues(registry),
    publishStats(app),
    ...(app.authorize ? [registry.bans.start()] : []),
  ];
  const programs = new Set<Program>();
  let drained: Promise<void> | undefined;
  let hasEnded = false;
  const drain = (seconds?: number) =>
    drained ??= registry.drain(seconds)
      .then(() => within(clock, GRACE_MS, registry.allReleased()));

  function roomOf(name: string): Room {
    if (!isRoomName(name)) throw new TypeError(`Cannot use room ${JSON.stringify(name)}: no name`);
    // A closed engine might begin anew, and keep nothing.
    if (hasEnded) {
      throw new ParleyError("unavailable", `use room ${name} of a Parley that has ended`);
    }
    return registry.room(name);
  }

  return {
    fetch: createRouter(app),
    get clientCount() {
      return registry.clients.size;
    },
    async publish(name, message, { sender, key } = {}) {
      const room = roomOf(name);
      const draft = { sender: senderOf(sender), message: encode(message) };
      const digest = key === undefined ? "" : sha256(JSON.stringify(draft));
      const known = key === undefined ? undefined : { session: "program", id: key, digest };
      return granted(await room.submit({ ...draft, key: known }), `publish in ${name}`);
    },
    async note(name, message, { sender } = {}) {
      await roomOf(name).submitNote(senderOf(sender), encode(message));
    },
    async set(name, key, value, { sender, ...conditions } = {}) {
      const room = roomOf(name);
      if (!isStateKey(key)) throw new TypeError(`Cannot use key ${JSON.stringify(key)}: no key`);
      if (!areConditions(conditions)) {
        throw new TypeError(`Cannot set ${key}: if must be a rev, ttl whole seconds`);
      }
      const { if: rev, ttl: ttlSeconds } = conditions;
      const change = { key, value: encode(value), sender: senderOf(sender), if: rev, ttlSeconds };
      return granted(await room.change(change), `set ${key} in ${name}`);
    },
    async state(name, since) {
      roomOf(name);
      return JSON.parse(granted(await stateOf(registry, name, since), `read the state of ${name}`));
    },
    async history(name, options = {}) {
      roomOf(name);
      const page = await historyOf(registry, name, options).catch((error) => {
        throw error instanceof HttpError
          ? new TypeError(`Cannot read ${name}: ${error.message}`)
          : error;
      });
      return JSON.parse(granted(page, `read ${name}`));
    },
    async members(name) {
      roomOf(name);
      return granted(await membersOf(registry, name), `tell who is in ${name}`);
    },
    subscribe(name, { signal, ...wanted } = {}) {
      const room = roomOf(name);
      const stop = () => program.stop();
      const program = new Program(registry, () => {
        programs.delete(program);
        signal?.removeEventListener("abort", stop);
      });
      programs.add(program);
      signal?.addEventListener("abort", stop, { once: true });
      if (signal?.aborted) stop();
      const opened = Promise.try(() => subscribe(room, program, wanted));
      opened.then((refusal) => {
        if (refusal) program.fail(new ParleyError(refusal.refused, `subscribe to ${name}`));
      }).catch((error) => program.fail(error));
      return program.objects();
    },
    async disconnect(user, { seconds = 0 } = {}) {
      if (!isBanTime(seconds)) throw new TypeError(`Cannot ban for ${seconds}: no whole seconds`);
      granted(await registry.bans.disconnect(user, seconds), "disconnect a user");
    },
    async drain({ seconds } = {}) {
      if (seconds !== undefined && !(seconds >= 0)) {
        throw new TypeError(`Cannot drain in ${seconds} seconds`);
      }
      await drain(seconds);
    },
    async [Symbol.asyncDispose]() {
      await drain();
      hasEnded = true;
      for (const program of programs) program.stop();
      for (const stop of watches) stop();
      await within(clock, CLOSE_MS, registry.close());
    },
  };
}

function senderOf(sender = "Anonymous"): string {
  if (isPersonName(sender)) return sender;
  throw new TypeError(`Cannot use sender ${JSON.stringify(sender)}: no name`);
}

function encode(message: unknown): string {
  const text = isShallow(message) ? encodeJson(message) : undefined;
  if (text === undefined) throw new TypeError("Cannot send the message: it is no JSON value");
  return text;
}

function granted<T>(result: T, what: string): Exclude<T, { refused: string }> {
  if (isRefusal(result)) throw new ParleyError(result.refused, what);
  return result as Exclude<T, { refused: string }>;
}
