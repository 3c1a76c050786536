/**
 * One room on one node: what the node has received of it, and who has joined it here.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Cursor, Head } from "../../protocol/position.ts";
import type { Chat, Entry as StateEntry, Person, Transient } from "../../protocol/room_event.ts";
import { byteLength } from "../../util/bytes.ts";
import type { Clock } from "../../util/clock.ts";
import type { Host, Refusal } from "../engine.ts";
import type { RedisConnection, ScriptName } from "./connection.ts";

/** The node that a room is on. */
export interface RedisNode {
  readonly id: string;
  readonly clock: Clock;
  /** The nodes with a lease, as one text, and the Unix ms at which that was seen; 0: not to be used. */
  readonly live: { nodes: string; seenAt: number };
  /** Runs a script in a room; resolves to `undefined` if no answer came. */
  run(
    script: ScriptName,
    keys: readonly string[],
    args: string[],
    hasTimeout?: boolean,
  ): Promise<unknown>;
  /** What `_events` is to hear; empty for nothing. */
  readonly events: string;
  /** Publishes what the room's outbox has. */
  flush(room: RedisRoom): Promise<void>;
  /** Called when a sync failed without which the room delivers nothing: it must be tried again. */
  onStale(room: RedisRoom): void;
  /** Called when a key of the room's state ends at its `endsAt`: it must be synced then. */
  onTimed(room: RedisRoom): void;
}

/** An entry of a room's log as Redis gives it: its id `{seq}-{run}`, a field's name and its value. */
export type Entry = [id: string, field: [name: string, value: string]];

/** What `compare` says of a room: its head, and whether it needs a sync whatever that is. */
export type CompareAnswer = [epoch: string, seq: number, isDue: number, rev: number];

/** A key of the state with its last change, as Redis gives it: see {@link toEntry}. */
export type ChangedKey = [key: string, rev: number, time: number, senderAndValue: string];

type SyncAnswer = [
  epoch: string,
  seq: number,
  members: number,
  version: number,
  wasUnknown: number,
  hasMore: number,
  entries: Entry[],
  rev: number,
  changes: ChangedKey[],
  endsInMs: number,
];

/** What Redis keeps of a member, `text`, and whose member it is. */
interface Joined {
  text: string;
  user?: string;
}

/** A member on this node: by the last join, and by the last one confirmed. */
interface Member {
  latest: Joined;
  confirmed?: Joined;
}

/** A room that the node hosts, or in which it has members. */
export class RedisRoom {
  /** The connection to the server that has the room, if it is known. */
  connection?: RedisConnection;
  /** The address of whoever opened it. */
  openedBy?: string;
  /** How many listeners Redis knows of here; -1: the node does not host the room. */
  reportedListeners = -1;
  /** When the next key of the state ends, in Unix ms. */
  endsAt = Infinity;
  readonly #members = new Map<string, Member>();
  /** Whether Redis has the members as they are here, or will have once it answers. */
  #isRegistered = true;
  #view?: RoomView;
  #opened?: (head: Head | Refusal) => void;

  /** @param slot in which of the rounds the room is compared with Redis */
  constructor(
    readonly name: string,
    readonly keys: readonly string[],
    readonly slot: number,
    readonly node: RedisNode,
  ) {}

  /** Who receives the room's events here. */
  get host(): Host | undefined {
    return this.#view?.host;
  }

  /** The number of the last message that the host received. */
  get seq(): number {
    return this.#view?.seq ?? 0;
  }

  /** How many people have joined here. */
  get memberCount(): number {
    return new Set(this.#members.entries().map(([id, { latest }]) => latest.user ?? id)).size;
  }

  /** Whether nobody on this node uses the room any more. */
  get isIdle(): boolean {
    return !this.#view && this.#members.size === 0 && this.#isRegistered;
  }

  /** Starts hosting; the node must be subscribed to the channel. Resolves as soon as Redis answers. */
  open(host: Host): Promise<Head | Refusal> {
    this.#view = new RoomView(host, () => this.sync(), (ms) => this.#expectEnd(ms));
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
  push(payload: Buffer): void {
    this.#view?.push(payload);
  }

  /** How many listeners the host has here; -1 without a host. */
  get listeners(): number {
    return this.#view?.host.listenerCount ?? -1;
  }

  /**
   * Begins to compare the room's head with Redis, with many others in one command: what is to be
   * called with the answer. Events and answers have one order, so an event that is missing then is lost.
   */
  compare(): (answer: CompareAnswer | undefined) => void {
    const view = this.#view;
    view?.expectSync();
    this.reportedListeners = this.listeners;
    return (answer) => {
      if (!answer) return this.#failSync(view);
      const [epoch, seq, isDue, rev] = answer;
      const isBehind = view && (view.epoch !== epoch || view.seq < seq || view.rev < rev);
      view?.endSync();
      if (isDue || isBehind || !this.#isRegistered) this.sync();
      else view?.resume();
    };
  }

  /** Fetches what was missed, and tells Redis who is here. */
  async sync(): Promise<void> {
    const view = this.#view;
    view?.expectSync();
    const { id, live } = this.node;
    const position = [view?.epoch ?? "", String(view?.seq ?? 0), String(view?.time ?? "")];
    this.reportedListeners = this.listeners;
    const lease = [id, `${this.listeners}`, live.nodes, `${live.seenAt}`];
    const args = [...position, ...lease, String(view?.rev ?? 0), this.node.events];
    const answer = await this.node.run("sync", this.keys, args, false);
    if (!answer) return this.#failSync(view);
    const [epoch, seq, members, version, wasUnknown, hasMore, entries, rev, changes, endsInMs] =
      answer as SyncAnswer;
    this.node.flush(this);
    if (wasUnknown || !this.#isRegistered) this.register();
    if (hasMore) this.sync();
    if (!view || view !== this.#view) return;
    const changed = changes.map(toEntry).sort((a, b) => a.rev - b.rev);
    view.applySync({
      epoch,
      seq,
      rev,
      members,
      version,
      chats: toChats(entries),
      changes: changed,
    });
    if (endsInMs >= 0) this.#expectEnd(endsInMs);
    this.#opened?.({ epoch, seq, rev, members });
    this.#opened = undefined;
    queueMicrotask(() => view.resume());
    if (view.seq < seq) await this.sync();
  }

  #expectEnd(ms: number): void {
    this.endsAt = Math.min(this.endsAt, this.node.clock.now() + ms);
    this.node.onTimed(this);
  }

  #failSync(view: RoomView | undefined): void {
    view?.failSync();
    if (view?.isStale && view === this.#view) this.node.onStale(this);
  }

  /** The connection is new: delivers nothing before {@link catchUp}. */
  pause(): void {
    this.#view?.pause();
  }

  /** Fetches what was missed, if nothing can be delivered without it. */
  async catchUp(): Promise<void> {
    if (this.#view?.isStale) await this.sync();
  }

  /** Adds a member, or renames one. If this is refused, the last confirmed name stays. */
  async join(id: string, name: string, user?: string): Promise<Refusal | undefined> {
    const owner = user === undefined ? "" : pack(user);
    const text = owner && `=${byteLength(owner)} ${owner}`;
    const join = { text: text + pack(name), user };
    const member: Member = this.#members.get(id) ?? { latest: join };
    this.#members.set(id, member);
    member.latest = join;
    const args = [this.node.id, id, join.text, this.node.events];
    const answer = await this.node.run("join", this.keys, args);
    if (answer !== undefined) {
      member.confirmed = join;
      this.node.flush(this);
      return;
    }
    this.#isRegistered = false;
    if (member.latest === join) {
      if (member.confirmed) member.latest = member.confirmed;
      else if (this.#members.get(id) === member) this.#members.delete(id);
    }
    return { refused: "unavailable" };
  }

  /** Removes a member. */
  async leave(id: string): Promise<void> {
    if (!this.#members.delete(id)) return;
    const answer = await this.node.run("leave", this.keys, [this.node.id, id, this.node.events]);
    if (answer === undefined) this.#isRegistered = false;
    else await this.node.flush(this);
  }

  /** Tells Redis which members are on this node. */
  async register(): Promise<void> {
    if (this.#members.size === 0 && this.#isRegistered) return;
    this.#isRegistered = true;
    const members = [...this.#members].flatMap(([id, { latest }]) => [id, latest.text]);
    const args = [this.node.id, ...members, this.node.events];
    const answer = await this.node.run("register", this.keys, args, false);
    if (answer === undefined) this.#isRegistered = false;
    else await this.node.flush(this);
  }

  /** Ends hosting, and removes the node's members. */
  async end(): Promise<void> {
    this.close();
    if (this.#members.size === 0) return;
    this.#members.clear();
    this.#isRegistered = false;
    await this.register();
  }
}

/** The head of a room, and its messages since the position that was asked for. */
export interface Synced extends Head {
  /** Counts the changes of who has joined. */
  version: number;
  chats: Chat[];
  /** The keys that changed, in the order of their last changes; none where that is not known. */
  changes: StateEntry[];
}

/** Delivers a room's events to its host in order: none twice, and none left out without a reset. */
export class RoomView implements Cursor {
  epoch = "";
  seq = 0;
  rev = 0;
  /** The time of the last message, if one was received. */
  time?: number;
  /** The epoch before this one: messages of it that still arrive are ignored. */
  #lastEpoch = "";
  #version = 0;
  /** What came since a sync became necessary, to be delivered behind it. */
  #queue?: Buffer[] = [];
  #pendingSyncs = 0;

  /**
   * @param onGap called when something was missed, to start a sync
   * @param onTtl called with the ms until a key of the state ends
   */
  constructor(
    readonly host: Host,
    readonly onGap: () => void,
    readonly onTtl: (ms: number) => void,
  ) {}

  /** Whether it delivers nothing, and no sync is on its way that would change that. */
  get isStale(): boolean {
    return this.#queue !== undefined && this.#pendingSyncs === 0;
  }

  /** Delivers nothing before the next sync. */
  pause(): void {
    this.#queue = [];
  }

  /** A sync was sent. */
  expectSync(): void {
    this.#pendingSyncs++;
  }

  /** A comparison found nothing to deliver, or a sync follows at once. */
  endSync(): void {
    this.#pendingSyncs--;
  }

  /** A sync got no answer. What has come since may have gaps, and the next sync brings it anyway. */
  failSync(): void {
    this.#pendingSyncs--;
    if (this.isStale) this.pause();
  }

  /** Delivers what a sync brought. The first one says where the room begins. */
  applySync({ epoch, seq, rev, members, version, chats, changes }: Synced): void {
    this.#pendingSyncs--;
    const start = chats.length > 0 ? chats[0].seq - 1 : seq;
    if (this.epoch !== epoch || start > this.seq) {
      const isFirst = this.epoch === "";
      if (this.epoch !== epoch) this.#lastEpoch = this.epoch;
      this.epoch = epoch;
      this.seq = start;
      this.rev = rev;
      this.time = undefined;
      this.#version = version;
      if (!isFirst) this.host.deliver({ type: "reset", epoch, seq: start, rev, members });
    }
    for (const chat of chats) this.#deliverChat(chat);
    // A change that a later one of its key replaced cannot be told any more.
    const missed = changes.filter((entry) => entry.rev > this.rev);
    if (missed.length === rev - this.rev) missed.forEach((entry) => this.#deliverSet(entry));
    else {
      this.rev = rev;
      this.host.deliver({ type: "reset", epoch, seq: this.seq, rev, members });
    }
  }

  /** Delivers what was queued, unless another sync is on its way. */
  resume(): void {
    const queue = this.#queue;
    if (!queue || this.#pendingSyncs > 0) return;
    this.#queue = undefined;
    for (const payload of queue) this.push(payload);
  }

  /** Takes what the room's channel brings, in its order. */
  push(payload: Buffer): void {
    if (!this.#queue) this.#accept(payload);
    else if (!this.isStale) this.#queue.push(payload);
  }

  /**
   * One of `c{epoch} {seq} {entry}`, `s{epoch} {version} {members} j{name}{old name}{user}{to}`, where
   * what is missing is empty, the same with `l`, `k{epoch} {rev} {ms until it ends, or 0} {time} {key} {sender}{value}`,
   * `n{entry}`, and `b{name}{bytes}`; names are packed.
   */
  #accept(payload: Buffer): void {
    if (payload[0] === BINARY) return this.#deliverBinary(payload);
    const text = payload.toString();
    if (payload[0] === NOTE) {
      const { time, sender, message } = toChat(0, text.slice(1));
      return this.host.deliver({ type: "note", note: { time, sender, message } });
    }
    const afterEpoch = text.indexOf(" ");
    const afterNumber = text.indexOf(" ", afterEpoch + 1);
    const epoch = text.slice(1, afterEpoch);
    const number = Number(text.slice(afterEpoch + 1, afterNumber));
    const rest = text.slice(afterNumber + 1);
    if (epoch === this.#lastEpoch) return;
    if (epoch !== this.epoch) this.#onGap();
    else if (payload[0] === STATUS) this.#deliverStatus(number, rest);
    else if (payload[0] === SET) this.#acceptSet(number, rest);
    else if (number > this.seq + 1) this.#onGap();
    else this.#deliverChat(toChat(number, rest));
  }

  /** A sync sent from now on includes everything that came until now. */
  #onGap(): void {
    this.pause();
    this.onGap();
  }

  #deliverChat(chat: Chat): void {
    if (chat.seq !== this.seq + 1) return;
    this.seq = chat.seq;
    this.time = chat.time;
    this.host.deliver({ type: "chat", chat });
  }

  #acceptSet(rev: number, text: string): void {
    if (rev > this.rev + 1) return this.#onGap();
    const [ms, time, key] = text.split(" ", 3);
    if (Number(ms) > 0) this.onTtl(Number(ms));
    const start = ms.length + time.length + key.length + 3;
    this.#deliverSet(toEntry([key, rev, Number(time), text.slice(start)]));
  }

  #deliverSet(entry: StateEntry): void {
    if (entry.rev !== this.rev + 1) return;
    this.rev = entry.rev;
    this.host.deliver({ type: "set", entry });
  }

  #deliverStatus(version: number, text: string): void {
    if (version <= this.#version) return;
    this.#version = version;
    const space = text.indexOf(" ");
    const [name, was, user, to] = unpackAll(text, space + 2);
    this.host.deliver({
      type: "status",
      event: text[space + 1] === "j" ? "join" : "leave",
      name,
      user: user || undefined,
      was: was || undefined,
      members: Number(text.slice(0, space)),
      to,
    });
  }

  #deliverBinary(payload: Buffer): void {
    const space = payload.indexOf(" ");
    const end = space + 1 + Number(payload.toString("latin1", 1, space));
    const from = payload.toString("utf8", space + 1, end);
    this.host.deliver({ type: "binary", bytes: new Uint8Array(payload.subarray(end)), from });
  }
}

const BINARY = "b".charCodeAt(0);
const NOTE = "n".charCodeAt(0);
const STATUS = "s".charCodeAt(0);
const SET = "k".charCodeAt(0);

/** What is published of an event that is not kept: `n{time} {packed sender}{message}`, or `b{packed from}{bytes}`. */
export function toPayload(event: Transient): string | Buffer {
  if (event.type === "note") {
    const { time, sender, message } = event.note;
    return `n${time} ${pack(sender)}${encodeText(message)}`;
  }
  const from = Buffer.from(event.from);
  return Buffer.concat([Buffer.from(`b${from.length} `), from, event.bytes]);
}

/** Marks a text that UTF-8 cannot carry, as it has half of a surrogate pair: JSON follows. */
const MARK = "\x01";

/** A text as Redis can carry it, told apart from every other one. */
export function encodeText(text: string): string {
  return text.isWellFormed() && text[0] !== MARK ? text : MARK + JSON.stringify(text);
}

function decodeText(text: string): string {
  return text[0] === MARK ? JSON.parse(text.slice(1)) : text;
}

/** Packs a text of any content so that more can follow: `{length} {text}`. */
export function pack(text: string): string {
  const encoded = encodeText(text);
  return `${encoded.length} ${encoded}`;
}

/** The text packed at `start`, and where it ends. */
export function unpack(packed: string, start = 0): { text: string; end: number } {
  const space = packed.indexOf(" ", start);
  const end = space + 1 + Number(packed.slice(start, space));
  return { text: decodeText(packed.slice(space + 1, end)), end };
}

/** All texts that are packed from `start` on. */
export function unpackAll(packed: string, start = 0): string[] {
  const texts: string[] = [];
  while (start < packed.length) {
    const { text, end } = unpack(packed, start);
    texts.push(text);
    start = end;
  }
  return texts;
}

/** One of the people of a room: `{sockets} {name}{user}`. */
export function toPerson(packed: string): Person {
  const space = packed.indexOf(" ");
  const [name, user] = unpackAll(packed, space + 1);
  const sockets = Number(packed.slice(0, space));
  return user === undefined ? { name, sockets } : { name, user, sockets };
}

/** The message of a log entry's value, `{time} {packed sender}{message}`. */
export function toChat(seq: number, entry: string): Chat {
  const space = entry.indexOf(" ");
  const { text: sender, end } = unpack(entry, space + 1);
  return {
    seq,
    time: Number(entry.slice(0, space)),
    sender,
    message: decodeText(entry.slice(end)),
  };
}

/** The last change of a key of the state. */
export function toEntry([key, rev, time, senderAndValue]: ChangedKey): StateEntry {
  const { text: sender, end } = unpack(senderAndValue);
  return { key, value: decodeText(senderAndValue.slice(end)), sender, time, rev };
}

/** The messages of log entries; of several entries of one number the last one counts. */
export function toChats(entries: Entry[]): Chat[] {
  const chats: Chat[] = [];
  for (const [id, [, value]] of entries) {
    const chat = toChat(parseInt(id), value);
    if (chats.at(-1)?.seq === chat.seq) chats.pop();
    chats.push(chat);
  }
  return chats;
}
