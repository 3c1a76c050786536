/**
 * One room in this process: its listeners, and how a message reaches them in one order.
 *
 * @module
 */
import {
  type Answer,
  type Chat,
  type Engine,
  type Head,
  type Host,
  isRefusal,
  type Refusal,
  type RoomEvent,
  type Span,
  whenAnswered,
} from "../engine/engine.ts";
import { type Page, parseCursor, replay } from "../engine/page.ts";
import { byteLength } from "../text.ts";
import { type Connection, MAX_FRAME_BYTES } from "./connection.ts";
import type { Counters } from "./counters.ts";
import { plainChat, plainStatus, v1Chat, v1Status, welcome } from "./messages.ts";
import type { Due, Turn } from "./turn.ts";

/** A listener that takes the room event by event: Server-Sent Events. */
export interface Reader {
  readonly dialect: "events";
  hasEnded: boolean;
  /** The room's `welcome`, with the place behind which the messages begin. */
  welcome(object: string, epoch: string, seq: number): void;
  /** A message as a v1 object, with its place. */
  chat(object: string, epoch: string, seq: number): void;
}

/** Whoever hears a room. */
export type Listener = Connection | Reader;

/** What a listener wants of the past: all since `after` (unchecked), or the last `history` messages. */
export interface Wanted {
  after?: unknown;
  history?: number;
}

/** What a room needs from outside. */
export interface RoomOptions {
  engine: Engine;
  turn: Turn;
  counters: Counters;
  /** A replay is cut to its newest messages: all that a listener has to read fits half of it. */
  maxQueueBytes: number;
  /** Called when the last listener has gone. */
  onEmpty: () => void;
}

/** A listener whose replay has not come yet, from where it waits, and what came meanwhile. */
interface Waiting {
  epoch: string;
  seq: number;
  events: RoomEvent[];
}

/** The listeners of a room, and the frame that the turn is filling for those who merge. */
export class Room implements Host, Due {
  #head: Head = { epoch: "", seq: 0, members: 0 };
  #plain = new Set<Connection>();
  #merged = new Set<Connection>();
  #readers = new Set<Reader>();
  #waiting = new Map<Listener, Waiting>();
  #opened: Answer<Refusal | undefined>;
  /** Objects due at the end of the turn, joined; who came meanwhile starts at an offset. */
  #due = "";
  #dueBytes = 0;
  #dueCount = 0;
  #late = new Map<Connection, number>();
  /** Events that a delivery itself caused: they wait until everybody has the one before. */
  #queued: RoomEvent[] = [];
  #isDelivering = false;

  constructor(readonly name: string, readonly options: RoomOptions) {
    this.#opened = whenAnswered(
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
  listen(listener: Listener, wanted: Wanted): Answer<Refusal | undefined> {
    this.#waiting.set(listener, { ...this.#head, events: [] });
    return whenAnswered<Refusal | undefined, Refusal | undefined>(this.#opened, (refusal) => {
      if (refusal) this.#waiting.delete(listener);
      else this.#attach(listener, wanted);
      this.#leaveIfEmpty();
      return refusal;
    });
  }

  /** Takes a listener out; it still gets what was due before. */
  unlisten(listener: Listener): void {
    if (listener.dialect === "v1" && this.#merged.delete(listener)) {
      if (this.#due !== "" && !listener.hasEnded) {
        this.#takePart(listener, this.#due);
      }
      this.#late.delete(listener);
      listener.roomCount--;
    } else if (listener.dialect === "plain") this.#plain.delete(listener);
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
    for (
      let next: RoomEvent | undefined = event;
      next;
      next = this.#queued.shift()
    ) {
      this.#hand(next);
    }
    this.#isDelivering = false;
  }

  /** Sends the turn's frame to all who merge. */
  flush(): void {
    if (this.#due === "") return;
    const frame = this.#due;
    const bytes = this.#dueBytes;
    const { counters } = this.options;
    counters.batchSizes.add(this.#dueCount);
    counters.deliveries += this.#dueCount * this.#merged.size;
    const late = this.#late;
    this.#due = "";
    this.#dueCount = 0;
    if (late.size === 0) {
      for (const connection of this.#merged) connection.take(frame, bytes);
      return;
    }
    for (const connection of this.#merged) {
      if (late.has(connection)) this.#takePart(connection, frame);
      else connection.take(frame, bytes);
    }
    late.clear();
  }

  #attach(listener: Listener, wanted: Wanted): void {
    if (!this.#waiting.has(listener)) return;
    this.#waiting.set(listener, { ...this.#head, events: [] });
    const limit = wanted.after === undefined ? wanted.history ?? 0 : Infinity;
    if (limit === 0 || listener.dialect === "plain") {
      return this.#start(listener, wanted);
    }
    const span = this.engine.read(this.name, parseCursor(wanted.after));
    whenAnswered(span, (span) => this.#start(listener, wanted, span));
  }

  #start(listener: Listener, wanted: Wanted, span?: Span | Refusal): void {
    const waiting = this.#waiting.get(listener);
    if (!waiting) return;
    this.#waiting.delete(listener);
    if (listener.dialect !== "plain") {
      // What it still has to read from other rooms counts: one that asks for many would be evicted.
      const unsent = listener.dialect === "v1" ? listener.unsentBytes : 0;
      const maxBytes = this.options.maxQueueBytes / 2 - unsent;
      const page = this.#replay(waiting, wanted, maxBytes, span);
      const isAsked = wanted.after !== undefined;
      if (isAsked) {
        this.options.counters
          .recoveries[page.recovered ? "complete" : "partial"]++;
      }
      this.#tellWelcome(listener, page, isAsked ? page.recovered : undefined);
      for (const chat of page.chats) this.#tellChat(listener, page.epoch, chat);
    }
    if (listener.hasEnded) return this.#leaveIfEmpty();
    if (listener.dialect === "plain") this.#plain.add(listener);
    else if (listener.dialect === "events") this.#readers.add(listener);
    for (const event of waiting.events) this.#handTo(listener, event);
    if (listener.dialect !== "v1" || listener.hasEnded) return;
    this.#merged.add(listener);
    listener.roomCount++;
    if (this.#due !== "") this.#late.set(listener, this.#due.length + 1);
  }

  /** The part of a span that ends where the listener began to wait. */
  #replay(
    { epoch, seq }: Waiting,
    wanted: Wanted,
    maxBytes: number,
    span?: Span | Refusal,
  ): Page {
    let chats: Chat[] = [];
    if (span && !isRefusal(span) && span.epoch === epoch) {
      chats = span.chats.at(-1)?.seq === seq
        ? span.chats
        : span.chats.filter((chat) => chat.seq <= seq);
      if (chats.at(-1)?.seq !== seq) chats = [];
    }
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
      this.#head = {
        epoch: event.epoch,
        seq: event.seq,
        members: event.members,
      };
      if (this.#merged.size > 0) {
        this.#merge(welcome(this.name, event, event.members, false));
      }
      for (const reader of this.#readers) {
        this.#tellWelcome(reader, event, false);
      }
    }
  }

  #handChat(chat: Chat): void {
    const { epoch } = this.#head;
    this.#head.seq = chat.seq;
    if (this.#merged.size > 0) this.#merge(v1Chat(this.name, chat));
    for (const reader of this.#readers) this.#tellChat(reader, epoch, chat);
    if (this.#plain.size > 0) this.#sendPlain(plainChat(chat));
  }

  /** An event for one listener, when its replay has come. */
  #handTo(listener: Listener, event: RoomEvent): void {
    const { epoch } = this.#head;
    if (listener.dialect === "events") {
      if (event.type === "chat") this.#tellChat(listener, epoch, event.chat);
      else if (event.type === "reset") {
        this.#tellWelcome(listener, event, false);
      }
    } else if (event.type === "binary") {
      if (listener.homeRoom === this.name && listener.id !== event.from) {
        listener.flush();
        listener.send(event.bytes as Uint8Array<ArrayBuffer>);
      }
    } else if (listener.dialect === "v1") {
      if (event.type === "chat") this.#tellChat(listener, epoch, event.chat);
      else if (event.type === "status") {
        listener.tell(v1Status(this.name, event));
      } else listener.tell(welcome(this.name, event, event.members, false));
    } else if (event.type === "chat") listener.send(plainChat(event.chat));
    else if (event.type === "status") listener.send(plainStatus(event));
  }

  #tellWelcome(
    listener: Connection | Reader,
    at: { epoch: string; seq: number },
    recovered?: boolean,
  ): void {
    const object = welcome(this.name, at, this.#head.members, recovered);
    if (listener.dialect === "events") {
      listener.welcome(object, at.epoch, at.seq);
    } else listener.tell(object);
  }

  #tellChat(listener: Connection | Reader, epoch: string, chat: Chat): void {
    const object = v1Chat(this.name, chat);
    this.options.counters.deliveries++;
    if (listener.dialect === "events") listener.chat(object, epoch, chat.seq);
    else listener.tell(object);
  }

  #sendPlain(frame: string): void {
    this.options.counters.deliveries += this.#plain.size;
    for (const connection of this.#plain) connection.send(frame);
  }

  #relay(bytes: Uint8Array, from: string): void {
    this.options.turn.flush();
    for (const connection of [...this.#plain, ...this.#merged]) {
      this.#handTo(connection, { type: "binary", bytes, from });
    }
  }

  #merge(object: string): void {
    const bytes = byteLength(object);
    if (this.#due !== "" && this.#dueBytes + 1 + bytes > MAX_FRAME_BYTES) {
      this.flush();
    }
    if (this.#due === "") {
      this.options.turn.addRoom(this);
      this.#due = object;
      this.#dueBytes = bytes;
    } else {
      this.#due += "\n" + object;
      this.#dueBytes += 1 + bytes;
    }
    this.#dueCount++;
  }

  /** Gives a connection that came in the middle of the turn its part of the frame. */
  #takePart(connection: Connection, frame: string): void {
    const part = frame.slice(this.#late.get(connection) ?? 0);
    if (part !== "") connection.take(part, byteLength(part));
  }

  #leaveIfEmpty(): void {
    if (this.listenerCount === 0) this.options.onEmpty();
  }
}
