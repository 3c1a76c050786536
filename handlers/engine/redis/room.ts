/**
 * One room on one node: what the node has heard of it, and who has joined it here.
 *
 * @module
 */
import type { Head } from "../../protocol/position.ts";
import type { Host, Refusal } from "../engine.ts";
import type { ScriptName } from "./connection.ts";
import { type Entry, pack, RoomView, toChats } from "./view.ts";

/** The node that a room is on. */
export interface RedisNode {
  readonly id: string;
  /** Whether other nodes have had their time to come back, so that silence means death. */
  readonly mayBury: boolean;
  /** Runs a script in a room; no answer: `undefined`. */
  run(
    script: ScriptName,
    keys: readonly string[],
    args: string[],
    isPatient?: boolean,
  ): Promise<unknown>;
}

type SyncAnswer = [
  epoch: string,
  seq: number,
  members: number,
  version: number,
  wasGone: number,
  hasMore: number,
  entries: Entry[],
];

/** A room that the node hosts, or in which it has members. */
export class RedisRoom {
  /** Names and their members here, packed as Redis has them. */
  readonly #members = new Map<string, { name: string }>();
  /** Whether Redis knows the members as they are here, or is about to. */
  #isRegistered = true;
  #view?: RoomView;
  #opened?: (head: Head | Refusal) => void;

  /** In every so-manieth tick, `slot` says in which, the room is compared with Redis. */
  constructor(
    readonly name: string,
    readonly keys: readonly string[],
    readonly slot: number,
    readonly node: RedisNode,
  ) {}

  /** Who hears the room here. */
  get host(): Host | undefined {
    return this.#view?.host;
  }

  /** How far the host has heard. */
  get seq(): number {
    return this.#view?.seq ?? 0;
  }

  /** How many have joined here. */
  get memberCount(): number {
    return this.#members.size;
  }

  /** Whether nobody here has to do with it any more. */
  get isIdle(): boolean {
    return !this.#view && this.#members.size === 0 && this.#isRegistered;
  }

  /** Starts hosting; the room's channel must be heard already. Answers as soon as Redis does. */
  open(host: Host): Promise<Head | Refusal> {
    this.#view = new RoomView(host, () => this.sync());
    const opened = new Promise<Head | Refusal>((resolve) => this.#opened = resolve);
    this.sync();
    return opened;
  }

  /** Ends hosting. */
  close(): void {
    this.#opened?.({ refused: "unavailable" });
    this.#opened = undefined;
    this.#view = undefined;
  }

  /** Takes what the room's channel brings. */
  push(payload: Parameters<RoomView["push"]>[0]): void {
    this.#view?.push(payload);
  }

  /** Compares with Redis, fetches what was missed, and holds the node's lease in the room. */
  async sync(): Promise<void> {
    const view = this.#view;
    view?.expectSync();
    const { id, mayBury } = this.node;
    const place = [view?.epoch ?? "", String(view?.seq ?? 0), String(view?.time ?? "")];
    const listeners = String(view?.host.listenerCount ?? -1);
    const answer = await this.node.run(
      "sync",
      this.keys,
      [...place, id, listeners, mayBury ? "1" : "0"],
      true,
    );
    if (!answer) return view?.failSync();
    const [epoch, seq, members, version, wasGone, hasMore, entries] = answer as SyncAnswer;
    if (wasGone || !this.#isRegistered) this.register();
    if (hasMore) this.sync();
    if (!view || view !== this.#view) return;
    view.applySync({ epoch, seq, members, version, chats: toChats(entries) });
    this.#opened?.({ epoch, seq, members });
    this.#opened = undefined;
    queueMicrotask(() => view.resume());
    if (view.seq < seq) await this.sync();
  }

  /** The connection is new: nothing is handed out before {@link catchUp}. */
  hold(): void {
    this.#view?.hold();
  }

  /** Fetches what was missed, if that is due. */
  async catchUp(): Promise<void> {
    if (this.#view?.isStale) await this.sync();
  }

  /** Makes a member known. */
  async join(member: string, as: string): Promise<Refusal | undefined> {
    const before = this.#members.get(member);
    const now = { name: pack(as) };
    this.#members.set(member, now);
    const answer = await this.node.run("join", this.keys, [this.node.id, member, now.name]);
    if (answer !== undefined) return;
    this.#isRegistered = false;
    if (this.#members.get(member) === now) {
      if (before) this.#members.set(member, before);
      else this.#members.delete(member);
    }
    return { refused: "unavailable" };
  }

  /** Ends a membership. */
  async leave(member: string): Promise<void> {
    if (!this.#members.delete(member)) return;
    const answer = await this.node.run("leave", this.keys, [this.node.id, member]);
    if (answer === undefined) this.#isRegistered = false;
  }

  /** Makes Redis's members of this node those that are here. */
  async register(): Promise<void> {
    if (this.#members.size === 0 && this.#isRegistered) return;
    this.#isRegistered = true;
    const members = [...this.#members].flatMap(([member, { name }]) => [member, name]);
    const answer = await this.node.run("register", this.keys, [this.node.id, ...members], true);
    if (answer === undefined) this.#isRegistered = false;
  }

  /** The node goes: its members leave, and it hosts no more. */
  async end(): Promise<void> {
    this.close();
    if (this.#members.size > 0) {
      this.#members.clear();
      this.#isRegistered = false;
      await this.register();
    }
    await this.node.run("release", this.keys, [this.node.id]);
  }
}
