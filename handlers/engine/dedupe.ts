/**
 * Which ids a room has seen, by session: what makes a repeated message known.
 *
 * @module
 */
import type { RepeatKey } from "./engine.ts";
import type { Budget, Droppable } from "./history.ts";

/** How long an id is remembered. */
export const REPEAT_MS = 5 * 60_000;
/** How many ids of one session and room are remembered. */
export const REPEATS_PER_SESSION = 1_000;

interface Remembered {
  seq: number;
  until: number;
  digest?: string;
}

/** The ids of one room. Within a session they stand in the order they came. */
export class RepeatTable implements Droppable {
  /** Until when an id with a digest must be known, Unix ms: a room does not go before. */
  keepUntil = 0;
  /** Until when any id must be known, Unix ms: an empty room does not go by its time before. */
  knownUntil = 0;
  #sessions = new Map<string, Map<string, Remembered>>();
  /** Bytes of the ids without a digest. */
  #droppable = 0;

  constructor(readonly budget: Budget) {}

  /** The first message of this id; `conflict` if it had another digest; nothing if it is new. */
  find(key: RepeatKey, now: number): { seq: number } | "conflict" | undefined {
    const known = this.#sessions.get(key.session)?.get(key.id);
    if (!known || known.until <= now) return undefined;
    return known.digest === key.digest ? { seq: known.seq } : "conflict";
  }

  /** Whether one more id fits into the ids' share of the budget. */
  hasSpace(key: RepeatKey): boolean {
    const more = cost(key.id) + SESSION_BYTES;
    return this.budget.idBytes + more <= this.budget.maxBytes / 4;
  }

  /** Remembers an id for {@link REPEAT_MS}. Beyond {@link REPEATS_PER_SESSION}, a session's oldest goes, but for ids with a digest. */
  remember(key: RepeatKey, seq: number, now: number): void {
    let ids = this.#sessions.get(key.session);
    if (!ids) {
      ids = new Map();
      this.#sessions.set(key.session, ids);
      this.#count(SESSION_BYTES);
    }
    const { id, digest } = key;
    if (ids.has(id)) this.#forget(ids, id);
    ids.set(id, { seq, until: now + REPEAT_MS, digest });
    this.knownUntil = now + REPEAT_MS;
    if (digest !== undefined) this.keepUntil = this.knownUntil;
    this.#countId(cost(id), digest);
    if (ids.size > REPEATS_PER_SESSION && digest === undefined) {
      this.#forget(ids, ids.keys().next().value!);
    }
  }

  /** Forgets what is older than {@link REPEAT_MS}. */
  expire(now: number): void {
    for (const [session, ids] of this.#sessions) {
      for (const [id, known] of ids) {
        if (known.until > now) break;
        this.#forget(ids, id);
      }
      this.#leaveIfEmpty(session, ids);
    }
  }

  /** Forgets the oldest id of the session that came first, unless it has a digest; tells whether there was one. */
  dropOldest(): boolean {
    for (const [session, ids] of this.#sessions) {
      const [id, { digest }] = ids.entries().next().value!;
      if (digest !== undefined) continue;
      this.#forget(ids, id);
      this.#leaveIfEmpty(session, ids);
      return true;
    }
    return false;
  }

  /** Gives all its bytes back to the budget. */
  clear(): void {
    this.expire(Infinity);
  }

  #forget(ids: Map<string, Remembered>, id: string): void {
    const digest = ids.get(id)?.digest;
    ids.delete(id);
    this.#countId(-cost(id), digest);
  }

  #leaveIfEmpty(session: string, ids: Map<string, Remembered>): void {
    if (ids.size > 0) return;
    this.#sessions.delete(session);
    this.#count(-SESSION_BYTES);
  }

  #countId(bytes: number, digest?: string): void {
    this.#count(bytes);
    if (digest !== undefined) return;
    const from = this.#droppable;
    this.#droppable += bytes;
    this.budget.tables.move(this, from, this.#droppable);
  }

  #count(bytes: number): void {
    this.budget.bytes += bytes;
    this.budget.idBytes += bytes;
  }
}

/** Bounds the ids that one process has others remember: those of the last two spans of {@link REPEAT_MS}. */
export class RepeatBudget {
  #span = 0;
  #bytes = 0;
  #lastBytes = 0;

  constructor(readonly maxBytes: number) {}

  /** Counts an id in; tells whether there was space. */
  take(key: RepeatKey, now: number): boolean {
    const span = Math.floor(now / REPEAT_MS);
    if (span !== this.#span) {
      this.#lastBytes = span === this.#span + 1 ? this.#bytes : 0;
      this.#bytes = 0;
      this.#span = span;
    }
    const { session, id, digest = "" } = key;
    const more = session.length + id.length + digest.length + REMOTE_BYTES;
    if (this.#bytes + this.#lastBytes + more > this.maxBytes) return false;
    this.#bytes += more;
    return true;
  }
}

/** An entry of a Redis hash beside its texts. */
const REMOTE_BYTES = 200;

/** A session's map and its key. */
const SESSION_BYTES = 300;

/** An id's text and its entry in the map. */
function cost(id: string): number {
  return 2 * id.length + 120;
}
