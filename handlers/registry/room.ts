/**
 * One room: the one way in. Whatever a client sends to a room, by socket or HTTP, passes here with
 * whom it is from: rate, rights, then the engine.
 */
import type { Change, Draft, Engine, IdempotencyKey, Outcome, Refusal } from "../engine/engine.ts";
import type { From } from "../hooks/hooks.ts";
import { encodeJson } from "../protocol/json.ts";
import { isServerRoom } from "../protocol/parse.ts";
import type { StateCursor } from "../protocol/position.ts";
import type { Members } from "../protocol/room_event.ts";
import { byteLength } from "../util/bytes.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import type { Audience } from "./audience.ts";
import type { Member } from "./membership.ts";
import type { Registry } from "./registry.ts";
import { type Cost, FORBIDDEN, type Rejection, type Sender } from "./sender.ts";
import type { Subscriber } from "./subscriber.ts";

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

/** A room by its name. */
export class Room {
  constructor(readonly name: string, readonly engine: Engine, readonly registry: Registry) {}

  get #audience(): Audience | undefined {
    return this.registry.rooms.get(this.name);
  }

  /** Publishes a client's message. A note is handed on, but neither numbered nor kept: it has no outcome. */
  publish(
    { kind = "chat", message, size, key }: Post,
    from: Sender,
  ): MaybePromise<Outcome | Rejection | undefined> {
    const { hooks } = this.registry;
    const text = encodeJson(message);
    // A number like 1e20 is longer as it goes out. Plain sockets hear no notes.
    const frames = kind === "chat" ? this.#audience?.countDirect() : 0;
    const cost = { size: Math.max(size, byteLength(text)), frames };
    return this.charge(from, cost, () => {
      const send = (text: string) => {
        const sender = from.nameIn(this.name)!;
        return this.checkSender(from) ??
          (kind === "note"
            ? this.submitNote(sender, text)
            : this.submit({ sender, message: text, key, address: from.address }));
      };
      // On a message's way nothing is made for a hook that is not there.
      if (!hooks.has("onMessage")) return this.#enter(from, cost, () => send(text));
      return this.#ask(from, cost, (as) => hooks.message(as, message, kind, text), send);
    });
  }

  /** Goes on as soon as its sender's line and the turn let a message in. */
  #enter<T>(
    from: Sender,
    { size }: Cost,
    next: () => MaybePromise<T | Rejection>,
  ): MaybePromise<T | Rejection> {
    const entered = this.registry.intake.enter(from, size, () => this.#take(size));
    if (entered instanceof Promise) {
      from.line.enteringCount++;
      entered.then(() => from.line.enteringCount--);
    }
    return chain<void | Rejection, T | Rejection>(entered, (refusal) => refusal ?? next());
  }

  /** What nobody hears fills no queue. */
  #take(size: number): Promise<void> | undefined {
    return this.#audience && this.registry.intake.take(size);
  }

  /** Asks a hook what becomes of what a sender says, and goes on with that if it is not refused. */
  #ask<T>(
    from: Sender,
    { size }: Cost,
    hook: (from: From) => MaybePromise<string | Rejection>,
    next: (text: string) => MaybePromise<T | Rejection>,
  ): MaybePromise<T | Rejection> {
    const ask = () => {
      const { via, rights: { user } } = from;
      return this.checkSender(from) ??
        hook({ room: this.name, name: from.nameIn(this.name)!, user, via });
    };
    // Many answers may come in one turn: what they let through is counted in behind them.
    const take = (text: string | Rejection) =>
      typeof text !== "string" ? text : chain(this.#take(byteLength(text)), () => text);
    const task = () => chain<string | Rejection, string | Rejection>(ask(), take);
    const asked = this.registry.intake.enter(from, size, task);
    return chain<string | Rejection, T | Rejection>(asked, (text) => {
      // It checks the sender again, who may have left while the hook took its time.
      return typeof text === "string" ? next(text) : text;
    });
  }

  /** Publishes what the server's own code says: here no right, rate or hook is asked. */
  submit(draft: Draft): MaybePromise<Outcome> {
    const written = this.registry.counters.timeFanOut();
    const outcome = this.engine.publish(this.name, draft);
    if (!written) return outcome;
    if (outcome instanceof Promise) outcome.then(written, written);
    else written();
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
    const text = encodeJson(value);
    const frames = this.#audience?.countDirect(true);
    const cost = { size: Math.max(size, byteLength(text)), frames };
    return this.charge(from, cost, () => {
      const set = (value: string) => {
        const sender = from.nameIn(this.name)!;
        const owner = from.rights.user ?? from.address;
        return this.checkSender(from) ?? this.change({ ...change, value, sender, owner });
      };
      if (!hooks.has("onSet")) return this.#enter(from, cost, () => set(text));
      return this.#ask(from, cost, (as) => hooks.set(as, change.key, value, text), set);
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
    const cost = { size: bytes.byteLength, frames: this.#audience?.subscriberCount };
    return this.charge(from, cost, () =>
      this.#enter(from, cost, () => {
        // A hook on messages could not read bytes.
        if (this.registry.hooks.has("onMessage")) return FORBIDDEN;
        const refusal = this.checkSender(from);
        if (refusal) return refusal;
        const event = { bytes: new Uint8Array(bytes), from: from.id } as const;
        this.engine.relay(this.name, { type: "binary", ...event });
      }));
  }

  /** Who has joined; a socket must be subscribed to ask. */
  members(from?: Member): MaybePromise<Members | Rejection> {
    if (from && !from.rooms.has(this.name)) return { refused: "not_joined" };
    return this.engine.members(this.name);
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
  charge<T>(
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
}
