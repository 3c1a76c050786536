/**
 * One subscriber in one room, from its request on: its place in the room's order, and its name there.
 */
import { isRefusal, type Refusal } from "../engine/engine.ts";
import { type Dialect, encodeEvent } from "../protocol/encode.ts";
import { type Page, replay, type Span } from "../protocol/page.ts";
import {
  type Head,
  isWithin,
  parseCursor,
  parseStateCursor,
  type Wanted,
} from "../protocol/position.ts";
import type { RoomEvent, StateSpan } from "../protocol/room_event.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import type { Audience } from "./audience.ts";
import type { Room } from "./room.ts";
import { bytesOf } from "./state_listener.ts";
import type { Subscriber } from "./subscriber.ts";

/** How long a subscriber waits before its replay is read again, in ms. */
const RETRY_MS = 250;
/** How long one that is behind waits before its state, in ms. */
const CATCH_UP_MS = 50;

/** A subscription. It is over when its subscriber's `rooms` has it no more. */
export class Subscription {
  /** The name that it has joined under. This is the one place that knows. */
  name?: string;
  /** A join is on its way to the engine. */
  isJoining = false;
  /** How it is spoken to here: what stands for the state depends on how far its subscriber is. */
  dialect: Dialect;
  /** Why the room cannot be opened, once it is known. */
  refusal: MaybePromise<Refusal | undefined>;
  /** Where the subscriber waits for its replay. */
  #from: Head;
  /** Events behind that place, each with the room's epoch; nothing once the subscriber is live. */
  #held: [event: RoomEvent, at: Head][] | undefined = [];

  constructor(
    readonly audience: Audience,
    readonly subscriber: Subscriber,
    readonly wanted: Wanted,
  ) {
    this.#from = { ...audience.head };
    this.dialect = wanted.state && subscriber.dialect.stateful || subscriber.dialect;
  }

  get hasState(): boolean {
    return this.wanted.state === true && this.subscriber.dialect.stateful !== undefined;
  }

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

  hold(event: RoomEvent): void {
    if (event.type === "status" && (event.to ?? this.subscriber.id) !== this.subscriber.id) return;
    this.#held?.push([event, { ...this.audience.head }]);
  }

  /** Begins at the room's head of now: `welcome` first, then what was missed, then all that comes. */
  begin(): void {
    if (!this.isCurrent) return;
    const { room, subscriber } = this;
    this.#from = { ...this.audience.head };
    // It may have joined while it waited: it hears of that behind the welcome.
    this.#held = this.#held?.filter(([event]) => this.#isOwnJoin(event));
    const { clock, queueLimit } = room.registry;
    if (this.hasState) {
      const { state } = this.audience;
      if (!state.isReady) return void chain(state.load(), () => this.begin());
      // The state of many rooms at once would close it.
      if (subscriber.unsentBytes > queueLimit / 8) {
        return void clock.after(CATCH_UP_MS, () => this.begin());
      }
      const since = parseStateCursor(this.wanted.since);
      if (since?.epoch === this.#from.epoch && !state.map.knows(since.rev)) {
        return void chain(room.engine.state(room.name, since), (span) => {
          this.#readReplay(isRefusal(span) ? undefined : span);
        });
      }
    }
    this.#readReplay();
  }

  #isOwnJoin(event: RoomEvent): boolean {
    const { user } = this.subscriber.rights;
    return event.type === "status" && event.event === "join" && event.name === this.name &&
      event.user === user;
  }

  #readReplay(state?: StateSpan): void {
    if (!this.isCurrent) return;
    const { room, wanted: { after, history = 0 }, subscriber } = this;
    if (!subscriber.dialect.hasPositions || (after === undefined && history === 0)) {
      return this.#start(undefined, state);
    }
    const cursor = parseCursor(after);
    chain(room.engine.read(room.name, cursor), (span) => {
      // What others know already, this cursor too, may still be on its way here.
      const isHere = !isRefusal(span) && span.epoch === this.#from.epoch &&
        (isWithin(this.#from, cursor) || !isWithin(span, cursor));
      if (isHere) this.#start(span, state);
      else room.registry.clock.after(RETRY_MS, () => this.begin());
    });
  }

  #start(span?: Span, state?: StateSpan): void {
    if (!this.isCurrent || this.#held === undefined) return;
    const { audience, subscriber } = this;
    const isHere = () => this.#from.epoch === audience.head.epoch && audience.state.isReady;
    if (this.hasState && !isHere()) return this.begin();
    const page = this.#page(span);
    const frames = this.hasState ? this.#stateFrames(page.seq, state) : [];
    const stateBytes = bytesOf(frames);
    const { clock, queueLimit, limits: { maxQueueBytes } } = this.room.registry;
    // Near QUEUE_MB the state alone could close it.
    if (queueLimit < maxQueueBytes && subscriber.unsentBytes + stateBytes > queueLimit / 2) {
      return void clock.after(CATCH_UP_MS, () => this.begin());
    }
    if (subscriber.dialect.hasPositions) this.#replay(page, frames);
    if (subscriber.hasEnded) return;
    const held = this.#held;
    this.#held = undefined;
    if (this.hasState) audience.state.add(this, subscriber.dialect.stateful!, stateBytes);
    audience.makeLive(this);
    for (const [event, at] of held) this.give(event, at);
  }

  #replay(page: Page, stateFrames: string[]): void {
    const { room, subscriber, wanted } = this;
    const { counters } = room.registry;
    const isResuming = wanted.after !== undefined;
    if (isResuming) counters.recoveries[page.recovered ? "complete" : "partial"]++;
    const { dialect } = this;
    const { members } = this.audience.head;
    const rev = this.hasState ? this.audience.state.map.rev : this.audience.head.rev;
    const position = { ...page, rev, members };
    const recovered = isResuming ? page.recovered : undefined;
    this.#notify(dialect.welcome(room.name, position, recovered, subscriber.firstLimits()));
    for (const frame of stateFrames) this.#notify(frame);
    counters.deliveries += page.chats.length;
    for (const chat of page.chats) this.#notify(dialect.chat(room.name, position, chat));
  }

  /** The state as it is: what changed since it was here, if all of that is known. */
  #stateFrames(seq: number, older?: StateSpan): string[] {
    const { state, head, room } = this.audience;
    const since = parseStateCursor(this.wanted.since);
    let span = state.spanSince(since?.epoch === head.epoch ? since.rev : undefined);
    // The engine may know of more removals than this process, which in turn may know newer changes.
    if (older?.since !== undefined && state.map.knows(older.rev)) {
      const newer = state.map.since(older.rev);
      const keys = new Set(newer.map(({ key }) => key));
      const entries = [...older.entries.filter(({ key }) => !keys.has(key)), ...newer];
      span = { epoch: head.epoch, rev: state.map.rev, since: older.since, entries };
    }
    const { stateful } = this.subscriber.dialect;
    const frames = stateful!.state(room.name, seq, span);
    // Many removals fit no queue: whoever asked for them would be closed again and again.
    const isTooLong = bytesOf(frames) > room.registry.limits.maxQueueBytes;
    return isTooLong ? stateful!.state(room.name, seq, state.spanSince()) : frames;
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

  /** Gives an event of the room to this subscriber alone. */
  give(event: RoomEvent, at: Head): void {
    const { room, subscriber, dialect } = this;
    if (event.type === "binary") {
      return this.audience.handBytes(subscriber, event.bytes, event.from);
    }
    if (event.type === "chat") room.registry.counters.deliveries++;
    const head = this.hasState ? { ...at, rev: this.audience.state.map.rev } : at;
    this.#notify(encodeEvent(dialect, room.name, head, event));
  }

  #notify(object: string | undefined): void {
    if (object !== undefined) this.subscriber.notify(object);
  }
}
