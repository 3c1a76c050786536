/**
 * One room in this process: its listeners, and how a message reaches them in one order.
 *
 * @module
 */
import { type Engine, type Host, isRefusal, type Refusal } from "../engine/engine.ts";
import { plainChat, plainStatus, v1Chat, v1Status, welcome } from "../protocol/encode.ts";
import { type Page, replay, type Span } from "../protocol/page.ts";
import { type Head, isWithin, parseCursor } from "../protocol/position.ts";
import type { Chat, RoomEvent } from "../protocol/room_event.ts";
import { byteLength } from "../util/bytes.ts";
import type { Clock } from "../util/clock.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import { GROUP_SIZE, ListenerGroup } from "./batch.ts";
import type { Connection } from "./connection.ts";
import type { Counters } from "./counters.ts";
import type { DueRoom, Turn } from "./flush.ts";
import {
  type Listener,
  type Reader,
  tellBytes,
  tellChat,
  tellEvent,
  tellWelcome,
} from "./listener.ts";

/** What a listener wants of the past: all since `after` (unchecked), or the last `history` messages. */
export interface Wanted {
  after?: unknown;
  history?: number;
}

/** What a room needs from outside. */
export interface RoomOptions {
  engine: Engine;
  clock: Clock;
  turn: Turn;
  counters: Counters;
  /** A replay is cut to its newest messages: all that a listener has to read fits half of it. */
  maxQueueBytes: number;
  /** Called when the last listener has gone. */
  onEmpty: () => void;
}

/** How long a listener waits before its replay is asked for again, in ms. */
const RETRY_MS = 250;

/** A listener whose replay has not come yet, from where it waits, and what came meanwhile. */
interface Waiting {
  epoch: string;
  seq: number;
  events: RoomEvent[];
}

/** The listeners of a room, and the frame that the turn is filling for those who merge. */
export class Room implements Host, DueRoom {
  #head: Head = { epoch: "", seq: 0, members: 0 };
  #plain = new Set<Connection>();
  #merged = new Map<Connection, ListenerGroup>();
  #groups: ListenerGroup[] = [];
  /** The group that is written to next. */
  #nextGroup = 0;
  #isDue = false;
  #readers = new Set<Reader>();
  #waiting = new Map<Listener, Waiting>();
  #opened: MaybePromise<Refusal | undefined>;
  /** Events that a delivery itself caused: they wait until everybody has the one before. */
  #queued: RoomEvent[] = [];
  #isDelivering = false;

  constructor(readonly name: string, readonly options: RoomOptions) {
    this.#opened = chain(
      this.engine.host(name, this),
      (head): Refusal | undefined => {
        if (isRefusal(head)) return head;
        this.#head = head;
      },
    );
  }

  /** The engine that orders this room. */
  get engine(): Engine {
    return this.options.engine;
  }

  /** Everybody who hears it, those who wait for their replay included. */
  get listenerCount(): number {
    return this.#plain.size + this.#merged.size + this.#readers.size +
      this.#waiting.size;
  }

  /** Adds a listener: `welcome` first, then what it missed, then all that comes. */
  listen(listener: Listener, wanted: Wanted): MaybePromise<Refusal | undefined> {
    this.#waiting.set(listener, { ...this.#head, events: [] });
    return chain<Refusal | undefined, Refusal | undefined>(this.#opened, (refusal) => {
      if (refusal) this.#waiting.delete(listener);
      else this.#attach(listener, wanted);
      this.#leaveIfEmpty();
      return refusal;
    });
  }

  /** Takes a listener out; it still gets what was due before. */
  unlisten(listener: Listener): void {
    if (listener.dialect === "v1") this.#leaveGroup(listener);
    else if (listener.dialect === "plain") this.#plain.delete(listener);
    else if (listener.dialect === "events") this.#readers.delete(listener);
    this.#waiting.delete(listener);
    this.#leaveIfEmpty();
  }

  /** Hears an event from the engine. One at a time: everybody sees the same order. */
  deliver(event: RoomEvent): void {
    if (this.#isDelivering) {
      this.#queued.push(event);
      return;
    }
    this.#isDelivering = true;
    for (let next: RoomEvent | undefined = event; next; next = this.#queued.shift()) {
      this.#hand(next);
    }
    this.#isDelivering = false;
  }

  /** Sends what is due to all who merge. */
  flush(): void {
    for (const group of this.#groups) group.flush();
  }

  /** Sends what is due to one group of those who merge, or to several small ones; tells whether more is due. */
  flushSome(): boolean {
    const groups = this.#groups;
    const first = this.#nextGroup;
    let count = 0;
    for (let i = 0; i < groups.length && count < GROUP_SIZE; i++) {
      const at = (first + i) % groups.length;
      if (!groups[at].isDue) continue;
      count += groups[at].size;
      groups[at].flush();
      this.#nextGroup = at + 1;
    }
    return this.#isDue = groups.some(({ isDue }) => isDue);
  }

  #attach(listener: Listener, wanted: Wanted): void {
    if (!this.#waiting.has(listener)) return;
    const from = { ...this.#head, events: [] };
    this.#waiting.set(listener, from);
    const limit = wanted.after === undefined ? wanted.history ?? 0 : Infinity;
    if (limit === 0 || listener.dialect === "plain") {
      return this.#start(listener, wanted);
    }
    const after = parseCursor(wanted.after);
    chain(this.engine.read(this.name, after), (span) => {
      // What others know already, the listener's place too, may be on its way here.
      const isHere = !isRefusal(span) && span.epoch === from.epoch &&
        (isWithin(from, after) || !isWithin(span, after));
      if (isHere) this.#start(listener, wanted, span);
      else this.options.clock.after(RETRY_MS, () => this.#attach(listener, wanted));
    });
  }

  #start(listener: Listener, wanted: Wanted, span?: Span): void {
    const waiting = this.#waiting.get(listener);
    if (!waiting) return;
    this.#waiting.delete(listener);
    if (listener.dialect !== "plain") {
      // What it still has to read from other rooms counts: one that asks for many would be evicted.
      const unsent = listener.dialect === "v1" ? listener.unsentBytes : 0;
      const maxBytes = this.options.maxQueueBytes / 2 - unsent;
      const page = this.#replay(waiting, wanted, maxBytes, span);
      const isAsked = wanted.after !== undefined;
      const { counters } = this.options;
      if (isAsked) counters.recoveries[page.recovered ? "complete" : "partial"]++;
      const place = { ...page, members: this.#head.members };
      tellWelcome(listener, this.name, place, isAsked ? page.recovered : undefined);
      counters.deliveries += page.chats.length;
      for (const chat of page.chats) tellChat(listener, this.name, page.epoch, chat);
    }
    if (listener.hasEnded) return this.#leaveIfEmpty();
    if (listener.dialect === "plain") this.#plain.add(listener);
    else if (listener.dialect === "events") this.#readers.add(listener);
    for (const event of waiting.events) {
      if (event.type === "chat") this.options.counters.deliveries++;
      tellEvent(listener, this.name, this.#head.epoch, event);
    }
    if (listener.dialect !== "v1" || listener.hasEnded) return;
    this.#joinGroup(listener);
  }

  /** The part of a span that ends where the listener began to wait. */
  #replay(
    { epoch, seq }: Waiting,
    wanted: Wanted,
    maxBytes: number,
    span?: Span,
  ): Page {
    let chats = span?.chats ?? [];
    if (chats.at(-1)?.seq !== seq) chats = chats.filter((chat) => chat.seq <= seq);
    if (chats.at(-1)?.seq !== seq) chats = [];
    const limit = wanted.after === undefined ? wanted.history ?? 0 : Infinity;
    const after = parseCursor(wanted.after);
    return replay({ epoch, seq, chats }, after, limit, maxBytes);
  }

  #hand(event: RoomEvent): void {
    for (const { events } of this.#waiting.values()) events.push(event);
    if (event.type === "chat") this.#handChat(event.chat);
    else if (event.type === "binary") this.#relay(event.bytes, event.from);
    else if (event.type === "status") {
      this.#head.members = event.members;
      if (this.#merged.size > 0) this.#merge(v1Status(this.name, event));
      if (this.#plain.size > 0) this.#sendPlain(plainStatus(event));
    } else {
      const { epoch, seq, members } = event;
      this.#head = { epoch, seq, members };
      if (this.#merged.size > 0) this.#merge(welcome(this.name, event, members, false));
      for (const reader of this.#readers) tellWelcome(reader, this.name, event, false);
    }
  }

  #handChat(chat: Chat): void {
    const { epoch } = this.#head;
    this.#head.seq = chat.seq;
    if (this.#merged.size > 0) this.#merge(v1Chat(this.name, chat));
    this.options.counters.deliveries += this.#readers.size;
    for (const reader of this.#readers) tellChat(reader, this.name, epoch, chat);
    if (this.#plain.size > 0) this.#sendPlain(plainChat(chat));
  }

  #sendPlain(frame: string): void {
    this.options.counters.deliveries += this.#plain.size;
    for (const connection of this.#plain) connection.send(frame);
  }

  #relay(bytes: Uint8Array, from: string): void {
    this.options.turn.flush();
    for (const connection of [...this.#plain, ...this.#merged.keys()]) {
      tellBytes(connection, this.name, bytes, from);
    }
  }

  #merge(object: string): void {
    const bytes = byteLength(object);
    for (const group of this.#groups) group.push(object, bytes);
    if (this.#isDue) return;
    this.#isDue = true;
    this.options.turn.addRoom(this);
  }

  #joinGroup(connection: Connection): void {
    let group = this.#groups.find(({ size }) => size < GROUP_SIZE);
    if (!group) this.#groups.push(group = new ListenerGroup(this.options.counters));
    group.add(connection);
    this.#merged.set(connection, group);
    connection.roomCount++;
  }

  #leaveGroup(connection: Connection): void {
    const group = this.#merged.get(connection);
    if (!group) return;
    this.#merged.delete(connection);
    connection.roomCount--;
    group.delete(connection);
    if (group.size === 0) this.#groups = this.#groups.filter((other) => other !== group);
  }

  #leaveIfEmpty(): void {
    if (this.listenerCount === 0) this.options.onEmpty();
  }
}
