/**
 * Which ids a room has seen, by session, so that a message that is sent again counts once.
 *
 * @module
 */
import type { Budget, Droppable, FairShare } from "./budget.ts";
import type { IdempotencyKey } from "./engine.ts";
import type { RoomJournal } from "./journal.ts";

/** How long an id is remembered, in ms. */
export const DEDUPE_MS = 5 * 60_000;
/** How many ids without a digest are remembered of one session and room. */
export const IDS_PER_SESSION = 1_000;

/** Which share of the budget something is counted in. */
interface Counted {
  /** It has a digest, so that it stays until it expires. */
  isPinned: boolean;
  /** Whose share it is, where it is pinned. */
  address?: string;
}

/** An id that a room has seen. */
interface SeenId extends Counted {
  seq: number;
  /** When it is forgotten, Unix ms. */
  expiresAt: number;
  digest?: string;
  /** The number of its row, where there is a journal. */
  row?: number;
}

/** The ids of one session, in the order they came; counted where its first id is. */
interface Session extends Counted {
  ids: Map<string, SeenId>;
}

/** The ids of one room, by session. */
export class DedupeTable implements Droppable {
  /** When the last id with a digest expires, Unix ms: a room is not dropped before. */
  pinnedUntil = 0;
  /** When the last id expires, Unix ms: an empty room does not expire before. */
  knownUntil = 0;
  #sessions = new Map<string, Session>();
  /** Bytes of the ids without a digest. */
  #droppable = 0;

  constructor(readonly budget: Budget, readonly journal?: RoomJournal) {}

  /** The number of the first message with this id; `conflict` if its digest differs; nothing if the id is new. */
  find(key: IdempotencyKey, now: number): { seq: number } | "conflict" | undefined {
    const seen = this.#sessions.get(key.session)?.ids.get(key.id);
    if (!seen || seen.expiresAt <= now) return undefined;
    return seen.digest === key.digest ? { seq: seen.seq } : "conflict";
  }

  /** Whether one more id fits into its share of the budget. */
  hasSpace({ id, digest }: IdempotencyKey, address?: string): boolean {
    const isPinned = digest !== undefined;
    const bytes = costOf(id, digest) + SESSION_BYTES;
    return this.#shareOf(isPinned).hasSpace(bytes, isPinned ? address : undefined);
  }

  /** Remembers an id for {@link DEDUPE_MS}. Beyond {@link IDS_PER_SESSION}, the session's oldest is forgotten, unless it has a digest. */
  remember(key: IdempotencyKey, seq: number, now: number, address?: string): void {
    const expiresAt = now + DEDUPE_MS;
    const row = this.journal?.addId(key, seq, expiresAt);
    this.#add(key, { seq, expiresAt, row, address });
  }

  /** Remembers an id that was known before. */
  restore(key: IdempotencyKey, seq: number, expiresAt: number, row: number): void {
    this.#add(key, { seq, expiresAt, row });
  }

  /** Forgets what is older than {@link DEDUPE_MS}. */
  expire(now: number): void {
    for (const [name, session] of this.#sessions) {
      for (const [id, seen] of session.ids) {
        if (seen.expiresAt > now) break;
        this.#forget(session.ids, id);
      }
      this.#dropIfEmpty(name, session);
    }
  }

  /** Forgets the oldest id of the first session, unless it has a digest; tells whether there was one. */
  dropOldest(): boolean {
    for (const [name, session] of this.#sessions) {
      const [id, { isPinned }] = session.ids.entries().next().value!;
      if (isPinned) continue;
      this.#forget(session.ids, id);
      this.#dropIfEmpty(name, session);
      return true;
    }
    return false;
  }

  /** Gives all its bytes back to the budget. */
  clear(): void {
    this.expire(Infinity);
  }

  #add(
    { session: name, id, digest }: IdempotencyKey,
    from: Pick<SeenId, "seq" | "expiresAt" | "row" | "address">,
  ): void {
    const isPinned = digest !== undefined;
    const seen: SeenId = {
      ...from,
      address: isPinned ? from.address : undefined,
      digest,
      isPinned,
    };
    let session = this.#sessions.get(name);
    if (!session) {
      session = { ids: new Map(), isPinned, address: seen.address };
      this.#sessions.set(name, session);
      this.#count(SESSION_BYTES, session);
    }
    const { ids } = session;
    if (ids.has(id)) this.#forget(ids, id);
    ids.set(id, seen);
    this.knownUntil = Math.max(this.knownUntil, seen.expiresAt);
    if (isPinned) this.pinnedUntil = Math.max(this.pinnedUntil, seen.expiresAt);
    this.#countId(costOf(id, digest), seen);
    if (ids.size > IDS_PER_SESSION && !isPinned) this.#forget(ids, ids.keys().next().value!);
  }

  #forget(ids: Map<string, SeenId>, id: string): void {
    const seen = ids.get(id)!;
    ids.delete(id);
    if (seen.row !== undefined) this.journal?.delete(seen.row);
    this.#countId(-costOf(id, seen.digest), seen);
  }

  #dropIfEmpty(name: string, session: Session): void {
    if (session.ids.size > 0) return;
    this.#sessions.delete(name);
    this.#count(-SESSION_BYTES, session);
  }

  #countId(bytes: number, seen: SeenId): void {
    this.#count(bytes, seen);
    if (seen.isPinned) return;
    const from = this.#droppable;
    this.#droppable += bytes;
    this.budget.tables.move(this, from, this.#droppable);
  }

  #count(bytes: number, { isPinned, address }: Counted): void {
    this.budget.bytes += bytes;
    this.#shareOf(isPinned).count(bytes, address);
  }

  #shareOf(isPinned: boolean): FairShare {
    return isPinned ? this.budget.pinnedIds : this.budget.ids;
  }
}

/** A session's map and its key. */
const SESSION_BYTES = 300;

/** The texts of an id, in V8's wide form at worst, and its entry in the map. */
function costOf(id: string, digest = ""): number {
  return 2 * (id.length + digest.length) + 120;
}
