/**
 * What a node has heard of a room that Redis orders: nothing twice, and nothing left out unsaid.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { Cursor, Head } from "../../protocol/position.ts";
import type { Chat } from "../../protocol/room_event.ts";
import type { Host } from "../engine.ts";

/** A text of any content, packed so that more can follow: `{length} {text}`. */
export function pack(text: string): string {
  return `${text.length} ${text}`;
}

/** The text packed at `start`, and where it ends. */
export function unpack(packed: string, start = 0): { text: string; end: number } {
  const space = packed.indexOf(" ", start);
  const end = space + 1 + Number(packed.slice(start, space));
  return { text: packed.slice(space + 1, end), end };
}

/** A message of `{time} {packed sender}{message}`, as a room's log keeps it. */
export function toChat(seq: number, entry: string): Chat {
  const space = entry.indexOf(" ");
  const { text: sender, end } = unpack(entry, space + 1);
  return { seq, time: Number(entry.slice(0, space)), sender, message: entry.slice(end) };
}

/** An entry of a room's log as Redis gives it: its id `{seq}-{run}`, a field's name and its value. */
export type Entry = [id: string, field: [name: string, value: string]];

/** Entries of a room's log as messages; of one number, the last entry counts. */
export function toChats(entries: Entry[]): Chat[] {
  const chats: Chat[] = [];
  for (const [id, [, value]] of entries) {
    const chat = toChat(parseInt(id), value);
    if (chats.at(-1)?.seq === chat.seq) chats.pop();
    chats.push(chat);
  }
  return chats;
}

/** The head of a room, and its messages since the place that was asked with. */
export interface Synced extends Head {
  /** Counts the changes of who has joined. */
  version: number;
  chats: Chat[];
}

/** A node's place in a room. */
export class RoomView implements Cursor {
  epoch = "";
  seq = 0;
  /** The last message's, where one was heard. */
  time?: number;
  /** The epoch before: what is left of it on the way is of no use. */
  #lastEpoch = "";
  #version = 0;
  /** What waits for a sync, where one is needed. */
  #held?: Buffer[] = [];
  #pendingSyncs = 0;

  /** `onGap` is called when something was missed: a sync is needed. */
  constructor(readonly host: Host, readonly onGap: () => void) {}

  /** Whether it hands out nothing, and no sync is on its way that would change that. */
  get isStale(): boolean {
    return this.#held !== undefined && this.#pendingSyncs === 0;
  }

  /** Hands out nothing before the next sync. */
  hold(): void {
    this.#held = [];
  }

  /** A sync is asked for. */
  expectSync(): void {
    this.#pendingSyncs++;
  }

  /** A sync got no answer: what has come since is of no use to the next one. */
  failSync(): void {
    this.#pendingSyncs--;
    if (this.isStale) this.hold();
  }

  /** Hands out what a sync brought. The first one says where the room begins. */
  applySync({ epoch, seq, members, version, chats }: Synced): void {
    this.#pendingSyncs--;
    const start = chats.length > 0 ? chats[0].seq - 1 : seq;
    if (this.epoch !== epoch || start > this.seq) {
      const isFirst = this.epoch === "";
      if (this.epoch !== epoch) this.#lastEpoch = this.epoch;
      this.epoch = epoch;
      this.seq = start;
      this.time = undefined;
      this.#version = version;
      if (!isFirst) this.host.deliver({ type: "reset", epoch, seq: start, members });
    }
    for (const chat of chats) this.#tell(chat);
  }

  /** Hands out what has waited, if no sync is on its way. */
  resume(): void {
    const held = this.#held;
    if (!held || this.#pendingSyncs > 0) return;
    this.#held = undefined;
    for (const payload of held) this.push(payload);
  }

  /** Takes what the room's channel brings, in its order. */
  push(payload: Buffer): void {
    if (!this.#held) this.#accept(payload);
    else if (!this.isStale) this.#held.push(payload);
  }

  /**
   * One of `c{epoch} {seq} {entry}`, `s{epoch} {version} {members} j{name}{old name, if any}`, the
   * same with `l{name}`, and `b{name}{bytes}`; names are packed.
   */
  #accept(payload: Buffer): void {
    if (payload[0] === BINARY) return this.#tellBinary(payload);
    const text = payload.toString();
    const afterEpoch = text.indexOf(" ");
    const afterNumber = text.indexOf(" ", afterEpoch + 1);
    const number = Number(text.slice(afterEpoch + 1, afterNumber));
    const what = text.slice(afterNumber + 1);
    const epoch = text.slice(1, afterEpoch);
    if (epoch === this.#lastEpoch) return;
    if (epoch !== this.epoch) this.#miss();
    else if (payload[0] === STATUS) this.#tellStatus(number, what);
    else if (number > this.seq + 1) this.#miss();
    else if (number > this.seq) this.#tell(toChat(number, what));
  }

  /** A sync asked for from now on has all that came until now. */
  #miss(): void {
    this.hold();
    this.onGap();
  }

  #tell(chat: Chat): void {
    if (chat.seq !== this.seq + 1) return;
    this.seq = chat.seq;
    this.time = chat.time;
    this.host.deliver({ type: "chat", chat });
  }

  #tellStatus(version: number, text: string): void {
    if (version <= this.#version) return;
    this.#version = version;
    const space = text.indexOf(" ");
    const { text: name, end } = unpack(text, space + 2);
    this.host.deliver({
      type: "status",
      event: text[space + 1] === "j" ? "join" : "leave",
      name,
      was: end < text.length ? unpack(text, end).text : undefined,
      members: Number(text.slice(0, space)),
    });
  }

  #tellBinary(payload: Buffer): void {
    const space = payload.indexOf(" ");
    const end = space + 1 + Number(payload.toString("latin1", 1, space));
    const from = payload.toString("utf8", space + 1, end);
    this.host.deliver({ type: "binary", bytes: new Uint8Array(payload.subarray(end)), from });
  }
}

const BINARY = "b".charCodeAt(0);
const STATUS = "s".charCodeAt(0);
