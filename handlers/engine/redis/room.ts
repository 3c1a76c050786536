/** A room that a node hosts, or in which it has members. */
import type { Head } from "../../protocol/position.ts";
import type { Clock } from "../../util/clock.ts";
import type { Host, Refusal } from "../engine.ts";
import type { RedisConnection } from "./connection.ts";
import { type ChangedKey, type Entry, toChats, toEntry } from "./encoding.ts";
import { LocalMembers } from "./members.ts";
import type { RunScript } from "./run_script.ts";
import { slotOf } from "./shards.ts";
import { RoomView } from "./view.ts";

/** What `compare` says of a room: its head, and whether it needs a sync in any case. */
export type CompareAnswer = [epoch: string, seq: number, isDue: number, rev: number];

/** What `sync` answers with. */
type SyncAnswer = [numbers: number[], epoch: string, entries: Entry[], changes: ChangedKey[]];

/** The node that a room is on. */
export interface RedisNode {
  /** Identifies it among all nodes. */
  readonly id: string;
  readonly clock: Clock;
  /** The nodes with a lease, as one text, and the Unix ms at which that was seen; 0: not to be used. */
  readonly live: { nodes: string; seenAt: number };
  /** What `_events` is to hear; empty for nothing. */
  readonly events: string;
  readonly run: RunScript;
  /** Publishes what the room's outbox has. */
  flush(room: RedisRoom): Promise<void>;
  /** Rooms that must be synced: at once if they deliver nothing before, else at their `endsAt`. */
  readonly due: Set<RedisRoom>;
}

/** Keeps what a node knows of a room in step with Redis. */
export class RedisRoom {
  /** The connection to the server that has the room, if it is known. */
  connection?: RedisConnection;
  /** How many listeners Redis knows of here; -1: the node does not host the room. */
  reportedListeners = -1;
  /** When the next key of the state ends, by {@link Clock.elapsedMs}. */
  endsAt = Infinity;
  /** What the node has received, if it hosts the room. */
  view?: RoomView;
  /** In a cluster the slot of its keys. It spreads comparisons over the rounds, too. */
  readonly slot: number;
  readonly members: LocalMembers;
  #opened?: (head: Head | Refusal) => void;

  /** @param openedBy the address of whoever opened it */
  constructor(
    readonly name: string,
    readonly keys: readonly string[],
    readonly node: RedisNode,
    readonly openedBy?: string,
  ) {
    this.members = new LocalMembers(this, node);
    this.slot = slotOf(keys[0]);
  }

  /** How many listeners the host has here; -1 without a host. */
  get listeners(): number {
    return this.view?.host.subscriberCount ?? -1;
  }

  get isIdle(): boolean {
    return !this.view && this.members.size === 0 && this.members.isRegistered;
  }

  /** Starts hosting; the node must be subscribed to the channel. Resolves as soon as Redis answers. */
  open(host: Host): Promise<Head | Refusal> {
    this.view = new RoomView(host, () => this.sync(), (ms) => this.#expectEnd(ms));
    const { promise, resolve } = Promise.withResolvers<Head | Refusal>();
    this.#opened = resolve;
    this.sync();
    return promise;
  }

  close(): void {
    this.#opened?.({ refused: "unavailable" });
    this.#opened = undefined;
    this.view = undefined;
  }

  /**
   * Begins a comparison of the room's head with Redis, and returns what to call with the answer. Events and
   * answers have one order, so an event that is missing then is lost.
   */
  compare(): (answer: CompareAnswer | undefined) => void {
    const view = this.#expectSync();
    const [head] = this.keys;
    return (answer) => {
      if (!answer) return this.#failSync(view);
      const [epoch, seq, isDue, rev] = answer;
      const isBehind = view && (view.epoch !== epoch || view.seq < seq || view.rev < rev);
      view?.endSync();
      if (isBehind && view.isLive) {
        // The server may have ended the subscription.
        this.connection?.unsubscribe(head);
        this.connection?.subscribe([head]);
      }
      if (isDue || isBehind || !this.members.isRegistered) this.sync();
      else view?.resume();
    };
  }

  /** Fetches what was missed, and tells Redis who is here if it does not know. */
  async sync(): Promise<void> {
    const view = this.#expectSync();
    const { endsAt } = this;
    this.endsAt = Infinity;
    const { id, live, events } = this.node;
    const { epoch: at = "", seq: last = 0, rev: lastRev = 0, time = "" } = view ?? {};
    const members = this.members.toArgs();
    const args = [at, last, time, id, this.listeners, live.nodes, live.seenAt, lastRev];
    const answer = await this.node.run("sync", this.keys, [...args, ...members, events], false);
    if (!answer) {
      if (members[0] === "1") this.members.isRegistered = false;
      this.endsAt = Math.min(this.endsAt, endsAt);
      return this.#failSync(view);
    }
    const [numbers, epoch, entries, changes] = answer as SyncAnswer;
    const [seq, rev, count, version, isUnknown, hasMore, endsInMs] = numbers;
    const flushed = this.node.flush(this);
    if (isUnknown) this.members.forget();
    if (hasMore || !this.members.isRegistered) this.sync();
    if (!view || view !== this.view) return await flushed;
    const changed = changes.map(toEntry).sort((a, b) => a.rev - b.rev);
    const head = { epoch, seq, rev, members: count };
    view.applySync({ ...head, version, chats: toChats(entries), changes: changed });
    if (endsInMs >= 0) this.#expectEnd(endsInMs);
    this.#opened?.(head);
    this.#opened = undefined;
    queueMicrotask(() => view.resume());
    if (view.seq < seq) await this.sync();
  }

  /** Fetches what was missed, if nothing can be delivered without it. */
  async catchUp(): Promise<void> {
    if (this.view?.isStale) await this.sync();
  }

  #expectEnd(ms: number): void {
    this.endsAt = Math.min(this.endsAt, this.node.clock.elapsedMs() + ms);
    this.node.due.add(this);
  }

  #expectSync(): RoomView | undefined {
    this.reportedListeners = this.listeners;
    this.view?.expectSync();
    return this.view;
  }

  #failSync(view: RoomView | undefined): void {
    view?.endSync(true);
    const isDue = view?.isStale || this.endsAt < Infinity;
    if (isDue && view === this.view) this.node.due.add(this);
  }
}
