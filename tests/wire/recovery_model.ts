/**
 * A model of rooms: the one order of what was published, and listeners that check against it,
 * message by message, that what they hear is a piece without gap or repeat.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { Draft, Engine } from "../../handlers/engine/engine.ts";
import type { Cursor } from "../../handlers/protocol/position.ts";
import type { Registry } from "../../handlers/registry/registry.ts";
import type { Fields } from "../support/clients.ts";
import type { FakeSocket } from "../support/fakes.ts";
import { TestSubscriber } from "../support/subscriber.ts";

/** A client sends again within 4 minutes; the server remembers for 5. */
const RESEND_MS = 240_000;

/** What was published, where and when. */
export class Order {
  /** How many messages came again and were known. */
  repeatCount = 0;
  readonly #texts = new Map<string, { text: string; time: number }>();
  readonly #places = new Map<string, string>();

  /** @param now Unix ms */
  constructor(readonly engine: Engine, readonly now: () => number) {
    const publish = engine.publish.bind(engine);
    engine.publish = (room: string, draft: Draft) => {
      const place = publish(room, draft) as Cursor;
      this.#record(`${room} ${place.epoch} ${place.seq}`, draft.message);
      return place;
    };
  }

  /** Where a room stands that somebody hears. */
  head(room: string): Cursor {
    const { epoch, seq } = this.engine.read(room) as Cursor;
    return { epoch, seq };
  }

  /** Checks that a message has its place. */
  check(room: string, { epoch, seq }: Cursor, message: unknown): void {
    const key = `${room} ${epoch} ${seq}`;
    assertEquals(JSON.stringify(message), this.#texts.get(key)?.text, `the message at ${key}`);
  }

  /** When the messages behind a cursor were published, and their size; nothing for a strange cursor. */
  since(room: string, after: Cursor): { times: number[]; bytes: number } | undefined {
    const { epoch, seq } = this.head(room);
    if (after.epoch !== epoch || after.seq > seq) return undefined;
    const times: number[] = [];
    let bytes = 0;
    for (let next = after.seq + 1; next <= seq; next++) {
      const { time, text } = this.#texts.get(`${room} ${epoch} ${next}`)!;
      times.push(time);
      bytes += text.length + 300;
    }
    return { times, bytes };
  }

  #record(key: string, text: string): void {
    const known = this.#texts.get(key);
    assert(!known || known.text === text, `${key} is the place of two messages`);
    const place = this.#places.get(text);
    assert(place === undefined || place === key, `one message has the places ${place} and ${key}`);
    this.#places.set(text, key);
    if (known) this.repeatCount++;
    else this.#texts.set(key, { text, time: this.now() });
  }
}

/** A message that was not acked. */
interface Unacked {
  room: string;
  text: string;
  epoch: string;
  sentAt: number;
}

/** A listener of `parley.v1`, or of events: what it saw last in each room outlives its connections. */
export class Viewer {
  /** The last message seen of each room. */
  readonly views = new Map<string, Cursor>();
  /** Where this connection is in each room whose welcome came. */
  readonly pieces = new Map<string, Cursor>();
  /** Rooms that this connection hears. */
  readonly rooms = new Set<string>();
  readonly unacked = new Map<string, Unacked>();
  socket?: FakeSocket;
  /** An event stream, in place of a socket. */
  stream?: TestSubscriber;
  readonly #asked = new Map<string, ((Cursor & { isComplete: boolean }) | undefined)[]>();
  readonly #said = new Map<string, string>();

  constructor(readonly order: Order, readonly session: string) {}

  /**
   * Notes that it asks for a room, with the place where it was if it resumes.
   *
   * @param isComplete tells whether all behind a place must come
   * @returns `after`
   */
  ask(
    room: string,
    isResuming: boolean,
    isComplete: (view: Cursor) => boolean,
  ): string | undefined {
    const view = isResuming ? this.views.get(room) : undefined;
    this.rooms.add(room);
    const asked = view && { ...view, isComplete: isComplete(view) };
    this.#asked.set(room, [...this.#asked.get(room) ?? [], asked]);
    return view && `${view.epoch}:${view.seq}`;
  }

  /** A line that says `text`, to be sent now and until it is acked. */
  say(room: string, text: string): Fields {
    const id = String(this.#said.size + 1);
    this.#said.set(id, text);
    const { epoch } = this.pieces.get(room)!;
    this.unacked.set(id, { room, text, epoch, sentAt: this.order.now() });
    return { type: "chat", room, id, message: text };
  }

  /** An event stream for a room, in place of a socket. */
  openStream(registry: Registry): TestSubscriber {
    return this.stream = new TestSubscriber(registry);
  }

  /** Reads the next frames; what comes with a welcome is asked for again. Answers lines to send. */
  read(count: number): Fields[] {
    const lines = (this.socket?.frames.splice(0, count) ?? [])
      .flatMap((frame) => String(frame).split("\n")).map((line) => JSON.parse(line));
    const again: Fields[] = [];
    for (const [object, id] of this.stream?.events.slice(0, count) ?? []) {
      const [epoch, seq] = id.split(":");
      assertEquals(object.seq, Number(seq));
      lines.push({ ...object, epoch });
    }
    this.stream?.sent.splice(0, count);
    for (const object of lines) {
      this.#handle(object);
      if (object.type === "welcome") again.push(...this.#sendAgain(object.room));
    }
    return again;
  }

  /** Its connection is gone, and what was on its way with it. */
  forget(): void {
    this.socket = this.stream = undefined;
    this.pieces.clear();
    this.rooms.clear();
    this.#asked.clear();
  }

  // deno-lint-ignore no-explicit-any -- an object of the server: the checks are below
  #handle(object: any): void {
    const { type, room, epoch, seq, message, recovered, id } = object;
    if (type === "welcome") {
      const asked = this.#asked.get(room)?.shift();
      if (recovered) assertEquals([epoch, seq], [asked?.epoch, asked?.seq], "the place in welcome");
      else assertEquals(recovered, asked?.isComplete, `recovered in ${room}`);
      if (!recovered) this.views.set(room, { epoch, seq });
      this.pieces.set(room, { epoch, seq });
    } else if (type === "chat") {
      const piece = this.pieces.get(room);
      const view = this.views.get(room);
      assert(piece && view, `a chat of ${room} before its welcome`);
      assertEquals(seq, piece.seq + 1, `the place in ${room} after ${piece.seq}`);
      if (epoch !== undefined) assertEquals(epoch, piece.epoch);
      piece.seq = seq;
      this.order.check(room, piece, message);
      // What came twice was asked for twice: it left, and came back from an older place.
      if (seq > view.seq) assertEquals(seq, ++view.seq, `a silent gap in ${room}`);
    } else if (type === "ack") {
      this.order.check(room, { epoch, seq }, this.#said.get(id));
      this.unacked.delete(id);
    } else assertEquals(type, "status", JSON.stringify(object));
  }

  #sendAgain(room: string): Fields[] {
    const again: Fields[] = [];
    for (const [id, { room: where, text, epoch, sentAt }] of this.unacked) {
      if (where !== room || !this.rooms.has(room)) continue;
      const isKnown = epoch === this.pieces.get(room)?.epoch &&
        this.order.now() - sentAt < RESEND_MS;
      if (isKnown) again.push({ type: "chat", room, id, message: text });
      else this.unacked.delete(id);
    }
    return again;
  }
}

/** A listener of the plain dialect: no number, no past. */
export class PlainViewer {
  #at: Cursor;

  constructor(readonly order: Order, readonly room: string, readonly socket: FakeSocket) {
    this.#at = order.head(room);
  }

  /** Reads all frames. */
  read(): void {
    for (const object of this.socket.objects as Fields[]) {
      if (object.type !== "chat") continue;
      this.#at.seq++;
      this.order.check(this.room, this.#at, object.message);
    }
    this.socket.take();
  }

  /** Checks that nothing more is to come. */
  finish(): void {
    this.read();
    assertEquals(this.#at, this.order.head(this.room));
  }
}
