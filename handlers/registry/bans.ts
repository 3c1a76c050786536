/**
 * Users who were sent away: keys with a ttl in the server's own room `_bans`, heard by every process.
 */
import { createHash } from "node:crypto";
import { type Host, isRefusal, type Refusal } from "../engine/engine.ts";
import { BANS_ROOM } from "../protocol/parse.ts";
import type { StateCursor } from "../protocol/position.ts";
import type { Entry, RoomEvent } from "../protocol/room_event.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import type { Registry } from "./registry.ts";

/** How soon the room is asked for again where the engine does not give it. */
const RETRY_MS = 1_000;
/** How long the room tells of a user who was sent away, so that a process that was cut off hears of it. */
const KEPT_SECONDS = 60;

/** Which users may not come in. */
export class Bans implements Host {
  readonly subscriberCount = 1;
  /** Of each user, by key: when the ban ends, Unix ms, and which of all it is. */
  readonly #ends = new Map<string, { at: number; number: number }>();
  /** How many there have been. */
  count = 0;
  /** Changes that came while the state is read; there only then. */
  #late?: Entry[];
  #isHosted = false;
  /** Reads that failed since one did not. */
  #failures = 0;
  #stopRetry?: () => void;

  constructor(readonly registry: Registry) {}

  /**
   * Whether a user is refused now, or was sent away since the token was checked. Costs nothing while
   * nobody is.
   * @param seen the {@link count} at which it was checked
   */
  has(user: string | undefined, seen = Infinity): boolean {
    if (user === undefined || this.#ends.size === 0) return false;
    const { at, number } = this.#ends.get(keyOf(user)) ?? { at: 0, number: 0 };
    return at > this.registry.clock.now() || number > seen;
  }

  /**
   * Ends all sockets and streams of a user, in all processes.
   * @param seconds whole; so long every token of the user is refused
   */
  disconnect(user: string, seconds: number): MaybePromise<StateCursor | Refusal> {
    const key = keyOf(user);
    const change = { key, value: String(seconds), sender: "parley" };
    // It must not end a ban before its time: who is banned has nothing that could be ended.
    const isBanned = seconds === 0 && this.has(user);
    if (isBanned) return { epoch: "", rev: 0 };
    return this.registry.room(BANS_ROOM).change({
      ...change,
      ttlSeconds: Math.max(seconds, KEPT_SECONDS),
    });
  }

  /** Hears of bans from now on; the answer ends the retries. */
  start(): () => void {
    this.#load();
    return () => {
      this.#late = undefined;
      this.#stopRetry?.();
    };
  }

  deliver(event: RoomEvent): void {
    if (event.type === "reset") this.#load();
    if (event.type !== "set") return;
    if (this.#late) this.#late.push(event.entry);
    else this.#apply([event.entry], this.registry.clock.now());
  }

  /** Reads all bans, again after a gap; those known hold until then. */
  async #load(): Promise<void> {
    this.#stopRetry?.();
    const engine = this.registry.engineOf(BANS_ROOM);
    const late: Entry[] = this.#late = [];
    const head = this.#isHosted ? undefined : await engine.host(BANS_ROOM, this);
    const refusal = isRefusal(head) ? head : undefined;
    this.#isHosted = !refusal;
    const span = refusal ?? await engine.state(BANS_ROOM);
    // A newer read has begun.
    if (this.#late !== late) return;
    this.#late = undefined;
    if (isRefusal(span)) {
      // The first may only be early: threads start before the engine that they share.
      if (++this.#failures === 2) {
        this.registry.log.warn(`Cannot read bans: ${span.refused}; trying again`, {
          event: "bans_unavailable",
        });
      }
      this.#apply(late);
      this.#stopRetry = this.registry.clock.after(RETRY_MS, () => this.#load());
      return;
    }
    this.#failures = 0;
    this.#ends.clear();
    this.#apply([...span.entries, ...late.filter(({ rev }) => rev > span.rev)]);
  }

  /** Takes changes, and sends away whom they ban: all in one pass, as each client costs a hash. */
  #apply(entries: Entry[], start?: number): void {
    const banned = new Set<string>();
    for (const { key, value, time } of entries) {
      this.#ends.delete(key);
      const seconds: unknown = JSON.parse(value);
      if (typeof seconds !== "number") continue;
      const at = seconds && (start ?? time) + seconds * 1_000;
      this.#ends.set(key, { at, number: ++this.count });
      banned.add(key);
    }
    if (banned.size === 0) return;
    for (const client of [...this.registry.holders]) {
      const { user } = client.rights;
      if (client.hasEnded || user === undefined || !banned.has(keyOf(user))) continue;
      try {
        client.close("notAllowed");
      } catch (error) {
        this.registry.fail(client, error);
      }
    }
  }
}

function keyOf(user: string): string {
  return createHash("sha256").update(user).digest("base64url");
}
