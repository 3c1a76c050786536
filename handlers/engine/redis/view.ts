/** What a node has received of a room. */
import type { Buffer } from "node:buffer";
import type { Cursor, Head } from "../../protocol/position.ts";
import type { Chat, Entry } from "../../protocol/room_event.ts";
import type { Host } from "../engine.ts";
import { toEntry, toNote, unpackAll } from "./encoding.ts";

/** The first byte of what a channel carries. */
const [BINARY, NOTE, STATUS, SET] = new TextEncoder().encode("bnsk");

/** The head of a room, and its messages since the position that was asked for. */
export interface Synced extends Head {
  /** Counts the changes of who has joined. */
  version: number;
  chats: Chat[];
  /** The keys that changed, in the order of their last changes; none where that is not known. */
  changes: Entry[];
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

  /** Whether it delivers what comes. */
  get isLive(): boolean {
    return this.#queue === undefined;
  }

  /** Delivers nothing before the next sync. */
  pause(): void {
    this.#queue = [];
  }

  expectSync(): void {
    this.#pendingSyncs++;
  }

  /** A sync brought nothing. If it failed, what has come since may have gaps; the next one brings it anyway. */
  endSync(hasFailed = false): void {
    this.#pendingSyncs--;
    if (hasFailed && this.isStale) this.pause();
  }

  /** Delivers what a sync brought. The first one says where the room begins. */
  applySync({ epoch, seq, rev, members, version, chats, changes }: Synced): void {
    this.#pendingSyncs--;
    const start = chats.length > 0 ? chats[0].seq - 1 : seq;
    if (this.epoch !== epoch || start > this.seq) {
      const isFirst = this.epoch === "";
      if (this.epoch !== epoch) this.#lastEpoch = this.epoch;
      Object.assign(this, { epoch, seq: start, rev, time: undefined });
      this.#version = version;
      if (!isFirst) this.host.deliver({ type: "reset", epoch, seq: start, rev, members });
    }
    for (const chat of chats) this.#deliverChat(chat);
    for (const entry of changes) this.#deliverSet(entry);
    // A later change of the same key has replaced one, which can be told to nobody any more.
    if (rev > this.rev) {
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
   * One of `c{epoch} {seq} {entry}`, `s{epoch} {version} {members} j{name}{old name}{user}{to}` (what is
   * missing is empty), the same with `l`, `k{epoch} {rev} {ms until it ends, or 0} {time} {key}
   * {sender}{value}`, `n{entry}`, and `b{name}{bytes}`; names are packed.
   */
  #accept(payload: Buffer): void {
    const kind = payload[0];
    if (kind === BINARY) return this.#deliverBinary(payload);
    const text = payload.toString();
    if (kind === NOTE) return this.host.deliver({ type: "note", note: toNote(text.slice(1)) });
    const afterEpoch = text.indexOf(" ");
    const afterNumber = text.indexOf(" ", afterEpoch + 1);
    const epoch = text.slice(1, afterEpoch);
    const number = Number(text.slice(afterEpoch + 1, afterNumber));
    const rest = text.slice(afterNumber + 1);
    if (epoch === this.#lastEpoch) return;
    if (epoch !== this.epoch) this.#onGap();
    else if (kind === STATUS) this.#deliverStatus(number, rest);
    else if (number > (kind === SET ? this.rev : this.seq) + 1) this.#onGap();
    else if (kind === SET) this.#acceptSet(number, rest);
    else this.#deliverChat({ seq: number, ...toNote(rest) });
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
    const [ms, time, key] = text.split(" ", 3);
    if (Number(ms) > 0) this.onTtl(Number(ms));
    const start = ms.length + time.length + key.length + 3;
    this.#deliverSet(toEntry([key, rev, Number(time), text.slice(start)]));
  }

  #deliverSet(entry: Entry): void {
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
