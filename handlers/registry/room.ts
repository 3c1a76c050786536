/**
 * One room: the one way in. Whatever a client sends to a room, by socket or HTTP, passes here with
 * whom it is from: rate, rights, then the engine.
 */
import type { Change, Draft, Engine, IdempotencyKey, Outcome, Refusal } from "../engine/engine.ts";
import type { From } from "../hooks/hooks.ts";
import type { ErrorCode } from "../protocol/encode.ts";
import { BANS_ROOM, isServerRoom } from "../protocol/parse.ts";
import type { StateCursor, Wanted } from "../protocol/position.ts";
import type { Members } from "../protocol/room_event.ts";
import { byteLength } from "../util/bytes.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import type { Audience } from "./audience.ts";
import type { Registry } from "./registry.ts";
import type { Cost, Sender } from "./sender.ts";
import type { Subscriber } from "./subscriber.ts";

/** Why something was not done. `retry` is in ms. */
export interface Rejection {
  refused: ErrorCode | Refusal["refused"];
  retry?: number;
  /** Of `rev_conflict`: the rev of the key. */
  rev?: number;
  /** The text of a hook, in place of the code's own. */
  text?: string;
}

/** What the hook on messages is told of one: notes are not kept. */
export type Kind = "chat" | "note";

/** A message as a client sent it. */
export interface Post {
  /** @default "chat" */
  kind?: Kind;
  /** Any JSON value. */
  message: unknown;
  /** What the client sent for it, in bytes. */
  size: number;
  key?: IdempotencyKey;
}

/** A change of the state as a client sent it. */
export interface StatePost extends Pick<Change, "key" | "if" | "ttlSeconds" | "member" | "id"> {
  /** Any JSON value; null removes. */
  value: unknown;
  /** What the client sent for it, in bytes. */
  size: number;
}

/** A sender that also subscribes: a socket. */
export type Member = Sender & Subscriber;

const FORBIDDEN: Rejection = { refused: "forbidden" };

/** A room by its name. */
export class Room {
  constructor(readonly name: string, readonly engine: Engine, readonly registry: Registry) {}

  /** The room's subscribers in this process, if it has any. */
  get #audience(): Audience | undefined {
    return this.registry.rooms.get(this.name);
  }

  /** Publishes a client's message. A note is handed on, but neither numbered nor kept: it has no outcome. */
  publish(
    { kind = "chat", message, size, key }: Post,
    from: Sender,
  ): MaybePromise<Outcome | Rejection | undefined> {
    const { hooks } = this.registry;
    const text = JSON.stringify(message);
    // A number like 1e20 is longer as it goes out. Plain sockets hear no notes.
    const frames = kind === "chat" ? this.#audience?.directCount : 0;
    const cost = { size: Math.max(size, byteLength(text)), frames };
    return this.#charge(from, cost, () => {
      const send = (text: string) => this.#send(kind, text, key, from);
      // On a message's way nothing is made for a hook that is not there.
      if (!hooks.has("onMessage")) return from.line.run(() => send(text));
      return this.#ask(from, (as) => hooks.message(as, message, kind), send);
    });
  }

  /** Asks a hook what becomes of what a sender says, and goes on with that if it is not refused. */
  #ask<T>(
    from: Sender,
    hook: (from: From) => MaybePromise<string | Rejection>,
    next: (text: string) => MaybePromise<T | Rejection>,
  ): MaybePromise<T | Rejection> {
    const asked = from.line.hold<string | Rejection>(() =>
      this.checkSender(from) ?? hook(this.#from(from, from.nameIn(this.name)!))
    );
    return chain<string | Rejection, T | Rejection>(asked, (text) => {
      if (typeof text !== "string") return text;
      // The sender may have lost its rights, or left, while the hook took its time.
      return this.checkSender(from) ?? next(text);
    });
  }

  #send(
    kind: Kind,
    message: string,
    key: IdempotencyKey | undefined,
    from: Sender,
  ): MaybePromise<Outcome | Rejection | undefined> {
    const refusal = this.checkSender(from);
    if (refusal) return refusal;
    const sender = from.nameIn(this.name)!;
    if (kind === "note") return this.submitNote(sender, message);
    return this.submit({ sender, message, key, address: from.address });
  }

  /** Publishes what the server's own code says: here no right, rate or hook is asked. */
  submit(draft: Draft): MaybePromise<Outcome> {
    const written = this.registry.counters.timeFanOut();
    const outcome = this.engine.publish(this.name, draft);
    if (written) chain(outcome, written);
    return outcome;
  }

  /** Hands on a note of the server's own code. `message` is JSON text. */
  submitNote(sender: string, message: string): undefined {
    const time = this.registry.clock.now();
    this.engine.relay(this.name, { type: "note", note: { time, sender, message } });
  }

  /** Makes a client's change of the state. */
  set(
    { value, size, ...change }: StatePost,
    from: Sender,
  ): MaybePromise<StateCursor | Rejection> {
    const { hooks } = this.registry;
    const text = JSON.stringify(value);
    const frames = this.#audience?.directStateCount;
    return this.#charge(from, { size: Math.max(size, byteLength(text)), frames }, () => {
      const set = (value: string) => {
        const sender = from.nameIn(this.name)!;
        const owner = from.rights.user ?? from.address;
        return this.checkSender(from) ?? this.change({ ...change, value, sender, owner });
      };
      if (!hooks.has("onSet")) return from.line.run(() => set(text));
      return this.#ask(from, (as) => hooks.set(as, change.key, value), set);
    });
  }

  /** Makes a change that the server's own code asks for: here no right, rate or hook is asked. */
  change(change: Change): MaybePromise<StateCursor | Refusal> {
    return this.engine.set(this.name, change);
  }

  /** What a subscriber says that it has applied of the state. */
  got(rev: number, subscriber: Subscriber): void {
    const subscription = subscriber.rooms.get(this.name);
    if (subscription?.hasState) subscription.audience.state.got(subscription, rev);
  }

  /** Relays a socket's bytes to the others of the room; they are not kept. */
  relay(bytes: ArrayBuffer, from: Member): MaybePromise<Rejection | undefined> {
    const cost = { size: bytes.byteLength, frames: this.#audience?.listenerCount };
    return this.#charge(from, cost, () =>
      from.line.run(() => {
        // A hook on messages could not read bytes.
        if (this.registry.hooks.has("onMessage")) return FORBIDDEN;
        const refusal = this.checkSender(from);
        if (refusal) return refusal;
        const event = { bytes: new Uint8Array(bytes), from: from.id } as const;
        this.engine.relay(this.name, { type: "binary", ...event });
      }));
  }

  /** Makes a socket a member under a name, subscribed if it was not. Refused, it stays as it was. */
  join(
    { name: asked, size, ...wanted }: Wanted & { name?: string; size: number },
    from: Member,
  ): MaybePromise<Rejection | undefined> {
    const enter = () => from.line.hold(() => this.#join(asked, wanted, from));
    return this.#charge(from, { size, opensRoom: true }, enter);
  }

  /** Who has joined; a socket must be subscribed to ask. */
  members(from?: Member): MaybePromise<Members | Rejection> {
    if (from && !from.rooms.has(this.name)) return { refused: "not_joined" };
    return this.engine.members(this.name);
  }

  /** Subscribes: `welcome` first, then what was missed, then all that comes. */
  subscribe(subscriber: Subscriber, wanted: Wanted): MaybePromise<Rejection | undefined> {
    // What waited behind a join is dropped when its socket ends.
    if (subscriber.hasEnded) return { refused: "unavailable" };
    if (subscriber.rooms.size >= this.registry.limits.maxRoomsPerConnection) {
      return { refused: "too_many_rooms" };
    }
    // A process hosts a room once, and this one is hosted by its bans.
    const mayHear = this.name !== BANS_ROOM && subscriber.rights.maySubscribe(this.name);
    if (!mayHear) return FORBIDDEN;
    return this.registry.openAudience(this).subscribe(subscriber, wanted);
  }

  /** Ends a subscription, and the membership with it. */
  leave(subscriber: Subscriber): void {
    const subscription = subscriber.rooms.get(this.name);
    if (!subscription) return;
    subscription.audience.unsubscribe(subscription);
    const { name, isJoining } = subscription;
    if (name !== undefined || isJoining) this.engine.leave(this.name, subscriber.id);
    if (name === undefined) return;
    this.registry.removeMember(subscriber, name, this.name);
    const { user } = subscriber.rights;
    this.registry.hooks.leave({ room: this.name, name, user, via: "socket" });
  }

  /** Why a sender may not send here now. */
  checkSender(from: Sender): Rejection | undefined {
    if (from.hasEnded) return { refused: "unavailable" };
    if (isServerRoom(this.name)) return FORBIDDEN;
    if (from.via === "http" && !from.rights.mayPublish) return FORBIDDEN;
    if (!from.rights.maySpeak(this.name)) return FORBIDDEN;
    return from.nameIn(this.name) === undefined ? { refused: "not_joined" } : undefined;
  }

  /** Counts what a client sent, and goes on if the sender may send so much. */
  #charge<T>(
    from: Sender,
    cost: Cost,
    next: () => MaybePromise<T | Rejection>,
  ): MaybePromise<T | Rejection> {
    this.registry.counters.messagesIn++;
    return chain<number, T | Rejection>(
      from.tryConsume(cost),
      (retry) => retry > 0 ? { refused: "rate_limited", retry } : next(),
    );
  }

  #from({ via, rights }: Sender, name: string): From {
    return { room: this.name, name, user: rights.user, via };
  }

  #join(
    asked: string | undefined,
    wanted: Wanted,
    from: Member,
  ): MaybePromise<Rejection | undefined> {
    const { name = asked ?? "Anonymous" } = from.rights;
    const isOther = asked !== undefined && asked !== name;
    if (isOther || !this.#mayJoin(from)) return FORBIDDEN;
    return chain<string | Rejection, Rejection | undefined>(
      this.registry.hooks.join(this.#from(from, name)),
      (name) => {
        if (typeof name !== "string") return name;
        return this.#mayJoin(from) ? this.#joinAs(name, wanted, from) : FORBIDDEN;
      },
    );
  }

  #mayJoin({ rights, hasEnded }: Member): boolean {
    return !isServerRoom(this.name) && rights.maySpeak(this.name) && !hasEnded;
  }

  #joinAs(
    name: string,
    wanted: Wanted,
    subscriber: Subscriber,
  ): MaybePromise<Rejection | undefined> {
    const known = subscriber.rooms.get(this.name);
    const opened = known ? known.refusal : this.subscribe(subscriber, wanted);
    return chain<Rejection | undefined, Rejection | undefined>(opened, (refusal) => {
      const subscription = subscriber.rooms.get(this.name);
      if (refusal || !subscription) return refusal;
      subscription.isJoining = true;
      const { user } = subscriber.rights;
      return chain(this.engine.join(this.name, subscriber.id, name, user), (refusal) => {
        subscription.isJoining = false;
        if (refusal && !known) this.leave(subscriber);
        if (refusal || !subscription.isCurrent) return refusal;
        const isNew = subscription.name === undefined;
        subscription.name = name;
        this.registry.addMember(subscriber, name, this.name, isNew);
      });
    });
  }
}
