/**
 * One subscriber in one room, from its request on: its place in the room's order, and its name there.
 */
import { isRefusal, type Refusal } from "../engine/engine.ts";
import { encodeEvent } from "../protocol/encode.ts";
import { type Page, replay, type Span } from "../protocol/page.ts";
import { type Head, isWithin, parseCursor, type Wanted } from "../protocol/position.ts";
import type { RoomEvent } from "../protocol/room_event.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import type { Audience } from "./audience.ts";
import type { Room } from "./room.ts";
import type { Subscriber } from "./subscriber.ts";

/** How long a subscriber waits before its replay is read again, in ms. */
const RETRY_MS = 250;

/** A subscription. It is over when its subscriber's `rooms` has it no more. */
export class Subscription {
  /** The name that it has joined under. This is the one place that knows. */
  name?: string;
  /** A join is on its way to the engine. */
  isJoining = false;
  /** Why the room cannot be opened, once it is known. */
  refusal: MaybePromise<Refusal | undefined>;
  /** Where the subscriber waits for its replay. */
  #from: Head;
  /** Events behind that place, each with the room's epoch; nothing once the subscriber is live. */
  #held: [event: RoomEvent, epoch: string][] | undefined = [];

  constructor(
    readonly audience: Audience,
    readonly subscriber: Subscriber,
    readonly wanted: Wanted,
  ) {
    this.#from = { ...audience.head };
  }

  /** The room. */
  get room(): Room {
    return this.audience.room;
  }

  /** Whether the subscriber is spoken to along with the others. */
  get isLive(): boolean {
    return this.#held === undefined;
  }

  /** Whether the subscriber is still in the room by this subscription. */
  get isCurrent(): boolean {
    return this.subscriber.rooms.get(this.room.name) === this;
  }

  /** Keeps an event for a subscriber that is not live yet. */
  hold(event: RoomEvent): void {
    this.#held?.push([event, this.audience.head.epoch]);
  }

  /** Begins at the room's head of now: `welcome` first, then what was missed, then all that comes. */
  begin(): void {
    if (!this.isCurrent) return;
    const { room, wanted: { after, history = 0 }, subscriber } = this;
    this.#from = { ...this.audience.head };
    this.#held = [];
    if (!subscriber.dialect.hasPositions || (after === undefined && history === 0)) {
      return this.#start();
    }
    const cursor = parseCursor(after);
    chain(room.read(cursor), (span) => {
      // What others know already, this cursor too, may still be on its way here.
      const isHere = !isRefusal(span) && span.epoch === this.#from.epoch &&
        (isWithin(this.#from, cursor) || !isWithin(span, cursor));
      if (isHere) this.#start(span);
      else room.registry.clock.after(RETRY_MS, () => this.begin());
    });
  }

  #start(span?: Span): void {
    if (!this.isCurrent || this.#held === undefined) return;
    const { audience, subscriber } = this;
    if (subscriber.dialect.hasPositions) this.#replay(span);
    if (subscriber.hasEnded) return;
    const held = this.#held;
    this.#held = undefined;
    audience.makeLive(this);
    for (const [event, epoch] of held) this.#hand(event, epoch);
  }

  #replay(span?: Span): void {
    const { room, subscriber, wanted } = this;
    const { counters } = room.registry;
    const page = this.#page(span);
    const isResuming = wanted.after !== undefined;
    if (isResuming) counters.recoveries[page.recovered ? "complete" : "partial"]++;
    const { dialect } = subscriber;
    const { rev, members } = this.audience.head;
    const position = { ...page, rev, members };
    const recovered = isResuming ? page.recovered : undefined;
    this.#notify(dialect.welcome(room.name, position, recovered, subscriber.firstLimits()));
    counters.deliveries += page.chats.length;
    for (const chat of page.chats) this.#notify(dialect.chat(room.name, page.epoch, chat));
  }

  /** The part of a span that ends where the subscriber began to wait. */
  #page(span?: Span): Page {
    const { epoch, seq } = this.#from;
    const { after, history = 0 } = this.wanted;
    let chats = span?.chats ?? [];
    if (chats.at(-1)?.seq !== seq) chats = chats.filter((chat) => chat.seq <= seq);
    if (chats.at(-1)?.seq !== seq) chats = [];
    const limit = after === undefined ? history : Infinity;
    // What it still has to read from other rooms counts: one that asks for many would be closed.
    const maxBytes = this.room.registry.queueLimit / 2 - this.subscriber.unsentBytes;
    return replay({ epoch, seq, chats }, parseCursor(after), limit, maxBytes);
  }

  #hand(event: RoomEvent, epoch: string): void {
    const { room, subscriber } = this;
    if (event.type === "binary") {
      return this.audience.handBytes(subscriber, event.bytes, event.from);
    }
    if (event.type === "chat") room.registry.counters.deliveries++;
    this.#notify(encodeEvent(subscriber.dialect, room.name, epoch, event));
  }

  #notify(object: string | undefined): void {
    if (object !== undefined) this.subscriber.notify(object);
  }
}
