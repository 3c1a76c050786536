/** Which ids a room has seen, by session, so that a message that is sent again counts once. */
import type { Budget, Droppable, FairShare } from "./budget.ts";
import type { IdempotencyKey } from "./engine.ts";
import type { RoomJournal } from "./journal.ts";

/** How long an id is remembered, in ms. */
export const DEDUPE_MS = 5 * 60_000;
/** How many ids without a digest are remembered of one session and room. */
export const IDS_PER_SESSION = 1_000;

interface SeenId {
  seq: number;
  /** When it is forgotten, Unix ms. */
  expiresAt: number;
  /** With one it is pinned: it stays until it expires, in the share for keys. */
  digest?: string;
  /** Whose part of that share it uses. */
  address?: string;
  /** The number of its row, where there is a journal. */
  row?: number;
}

/** The ids of one session, in the order they came; its own bytes are counted as those of `first`. */
interface Session {
  ids: Map<string, SeenId>;
  first: SeenId;
}

/** The ids of one room, by session. */
export class DedupeTable implements Droppable {
  /** When the last id with a digest expires, Unix ms: a room is not dropped before. */
  pinnedUntil = 0;
  /** When the last id expires, Unix ms: an empty room does not expire before. */
  knownUntil = 0;
  /** Of the ids without a digest. */
  bytes = 0;
  #sessions = new Map<string, Session>();

  constructor(readonly budget: Budget, readonly journal?: RoomJournal) {}

  /** The number of the first message with this id; `conflict` if its digest differs; nothing if the id is new. */
  find(key: IdempotencyKey, now: number): { seq: number } | "conflict" | undefined {
    const seen = this.#sessions.get(key.session)?.ids.get(key.id);
    if (!seen || seen.expiresAt <= now) return undefined;
    return seen.digest === key.digest ? { seq: seen.seq } : "conflict";
  }

  /** Whether one more id fits into its share of the budget. */
  hasSpace({ id, digest }: IdempotencyKey, address?: string): boolean {
    const bytes = costOf(id, digest) + SESSION_BYTES;
    return this.#shareOf(digest).hasSpace(bytes, digest === undefined ? undefined : address);
  }

  /** Remembers an id for {@link DEDUPE_MS}. Beyond {@link IDS_PER_SESSION}, the session's oldest is forgotten, unless it has a digest. */
  remember(key: IdempotencyKey, seq: number, now: number, address?: string): void {
    const expiresAt = now + DEDUPE_MS;
    const row = this.journal?.addId(key, seq, expiresAt);
    this.#add(key, { seq, expiresAt, row, address });
  }

  restore(key: IdempotencyKey, seq: number, expiresAt: number, row: number): void {
    this.#add(key, { seq, expiresAt, row });
  }

  expire(now: number): void {
    for (const [session, { ids }] of this.#sessions) {
      for (const [id, { expiresAt }] of ids) {
        if (expiresAt > now) break;
        this.#forget(session, id);
      }
    }
  }

  /** Forgets the oldest id of the first session, unless it has a digest; tells whether there was one. */
  dropOldest(): boolean {
    for (const [session, { ids }] of this.#sessions) {
      const id = firstOf(ids);
      if (ids.get(id)!.digest !== undefined) continue;
      this.#forget(session, id);
      return true;
    }
    return false;
  }

  clear(): void {
    this.expire(Infinity);
  }

  #add({ session: name, id, digest }: IdempotencyKey, values: Omit<SeenId, "digest">): void {
    const isPinned = digest !== undefined;
    const seen = { ...values, digest, address: isPinned ? values.address : undefined };
    this.#forget(name, id);
    let session = this.#sessions.get(name);
    if (!session) {
      session = { ids: new Map(), first: seen };
      this.#sessions.set(name, session);
      this.#count(SESSION_BYTES, seen);
    }
    session.ids.set(id, seen);
    this.#countId(costOf(id, digest), seen);
    this.knownUntil = Math.max(this.knownUntil, seen.expiresAt);
    if (isPinned) this.pinnedUntil = Math.max(this.pinnedUntil, seen.expiresAt);
    else if (session.ids.size > IDS_PER_SESSION) this.#forget(name, firstOf(session.ids));
  }

  #forget(name: string, id: string): void {
    const session = this.#sessions.get(name);
    const seen = session?.ids.get(id);
    if (!session || !seen) return;
    session.ids.delete(id);
    this.#countId(-costOf(id, seen.digest), seen);
    if (seen.row !== undefined) this.journal?.delete(seen.row);
    if (session.ids.size > 0) return;
    this.#sessions.delete(name);
    this.#count(-SESSION_BYTES, session.first);
  }

  #countId(bytes: number, seen: SeenId): void {
    this.#count(bytes, seen);
    if (seen.digest === undefined) this.budget.tables.count(this, bytes);
  }

  #count(bytes: number, { digest, address }: SeenId): void {
    this.#shareOf(digest).count(bytes, address);
  }

  #shareOf(digest?: string): FairShare {
    return digest === undefined ? this.budget.ids : this.budget.pinnedIds;
  }
}

/** A session's map and its key. */
const SESSION_BYTES = 300;

/** The texts of an id, in V8's wide form at worst, and its entry in the map. */
function costOf(id: string, digest = ""): number {
  return 2 * (id.length + digest.length) + 120;
}

function firstOf(ids: Map<string, SeenId>): string {
  return ids.keys().next().value!;
}
