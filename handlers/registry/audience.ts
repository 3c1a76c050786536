/** A room's subscribers in this process: every event reaches all of them in one order. */
import { type Host, isRefusal, type Refusal } from "../engine/engine.ts";
import { type Dialect, encodeEvent, events } from "../protocol/encode.ts";
import { isServerRoom } from "../protocol/parse.ts";
import type { Head, Wanted } from "../protocol/position.ts";
import type { RoomEvent } from "../protocol/room_event.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import { DirectFanOut, type FanOut, MergedFanOut } from "./batch.ts";
import type { Room } from "./room.ts";
import { StateListeners } from "./state_listeners.ts";
import type { Subscriber } from "./subscriber.ts";
import { Subscription } from "./subscription.ts";

/** In larger rooms plain sockets may miss a `status` while the server is behind. */
const MAX_STATUS_SUBSCRIBERS = 100;

/** The subscribers of one room, and what reaches them. */
export class Audience implements Host {
  /** The room as of the last event. */
  head: Head = { epoch: "", seq: 0, rev: 0, members: 0 };
  /** All of them by subscriber, also those who wait for the room to open or for their replay. */
  readonly #subscriptions = new Map<string, Subscription>();
  #waitingCount = 0;
  /** Those who are live, by dialect. */
  readonly fanOuts: Map<Dialect, FanOut> = new Map();
  /** Events that a delivery itself caused: they wait until everybody has the one before. */
  readonly #queue: RoomEvent[] = [];
  #isDelivering = false;

  /** Why the engine does not host the room, once it is known. */
  #refusal?: MaybePromise<Refusal | undefined>;

  /** Those who subscribe to the state; there only while somebody does. */
  #state?: StateListeners;

  constructor(readonly room: Room) {}

  get state(): StateListeners {
    return this.#state ??= new StateListeners(this);
  }

  /** How many subscribers there are, those that wait included. */
  get subscriberCount(): number {
    return this.#subscriptions.size;
  }

  /** How many get each message, or each change of the state, by a frame of their own. */
  countDirect(ofState = false): number {
    let count = 0;
    for (const [dialect, { size }] of this.fanOuts) {
      if (!dialect.isMerged && (!ofState || "set" in dialect)) count += size;
    }
    return count;
  }

  /** How many clients hear this room and none but the server's own, by their kind. */
  exclusiveCounts(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { subscriber: { kind, rooms, isOpen } } of this.#subscriptions.values()) {
      if (isOpen && rooms.keys().every(isServerRoom)) counts[kind] = (counts[kind] ?? 0) + 1;
    }
    return counts;
  }

  /** Adds a subscriber, and has the engine host the room for the first one. */
  subscribe(subscriber: Subscriber, wanted: Wanted): MaybePromise<Refusal | undefined> {
    const { engine, name } = this.room;
    const subscription = new Subscription(this, subscriber, wanted);
    subscriber.rooms.set(name, subscription);
    this.#subscriptions.set(subscriber.id, subscription);
    this.#waitingCount++;
    if (subscription.hasState) this.state.count++;
    if (this.subscriberCount === 1) {
      this.#refusal = chain(engine.host(name, this, subscriber.address), (head) => {
        if (isRefusal(head)) return head;
        this.head = head;
      });
    }
    return subscription.refusal = chain(this.#refusal, (refusal) => {
      if (!subscription.isCurrent) return;
      if (refusal) this.unsubscribe(subscription);
      else subscription.begin();
      return refusal;
    });
  }

  /** Gives a subscription what comes from now on, along with the others of its dialect. */
  makeLive({ subscriber, dialect }: Subscription): void {
    this.#waitingCount--;
    this.fanOutOf(dialect).add(subscriber);
  }

  /** Takes a subscription out; its subscriber still gets what was pending before. */
  unsubscribe(subscription: Subscription): void {
    const { subscriber } = subscription;
    subscriber.rooms.delete(this.room.name);
    this.#subscriptions.delete(subscriber.id);
    if (subscription.isLive) this.fanOutOf(subscription.dialect).delete(subscriber);
    else this.#waitingCount--;
    if (subscription.hasState) {
      this.state.delete(subscription);
      if (--this.state.count === 0) {
        this.state.stop();
        this.#state = undefined;
      }
    }
    if (this.subscriberCount === 0) this.room.registry.closeAudience(this);
  }

  /** Delivers an event of the engine. One at a time: everybody sees the same order. */
  deliver(event: RoomEvent): void {
    this.#queue.push(event);
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      try {
        this.#dispatch(next);
      } catch (error) {
        this.room.registry.log.error(`Cannot deliver in ${this.room.name}: ${error}`, {
          event: "error",
        });
      }
    }
    this.#isDelivering = false;
  }

  /** Gives bytes to one subscriber, unless they came from there or its URL has another room. */
  handBytes(subscriber: Subscriber, bytes: Uint8Array, from: string): void {
    if (subscriber.homeRoom !== this.room.name || subscriber.id === from) return;
    subscriber.flush();
    subscriber.send(bytes as Uint8Array<ArrayBuffer>);
  }

  #dispatch(event: RoomEvent): void {
    const { head } = this;
    if (event.type === "set") {
      head.rev = event.entry.rev;
      return this.#state?.change(event.entry);
    }
    if (event.type === "reset") {
      const { epoch, seq, rev, members } = event;
      this.head = { epoch, seq, rev, members };
      // No message was missed.
      if (epoch === head.epoch && seq === head.seq) return this.#state?.catchUp();
    }
    if (this.#waitingCount > 0) {
      for (const subscription of this.#subscriptions.values()) subscription.hold(event);
    }
    if (event.type === "binary") return this.#relay(event.bytes, event.from);
    if (event.type === "status" && event.to !== undefined) return this.#tell(event, event.to);
    if (event.type === "chat") head.seq = event.chat.seq;
    else if (event.type === "status") head.members = event.members;
    const { load } = this.room.registry;
    // Joins are n² frames in a room of n: a server that is behind leaves them out where it may.
    const isSpared = event.type === "status" && this.subscriberCount > MAX_STATUS_SUBSCRIBERS &&
      load.isBehind;
    if (event.type === "status" && !isSpared) load.add(this.countDirect());
    for (const [dialect, fanOut] of this.fanOuts) {
      if (fanOut.size === 0 || (isSpared && !dialect.isMerged)) continue;
      // From an event's id a stream resumes: it must name no change that somebody has not heard.
      const isBehind = event.type === "chat" && dialect === events.stateful.withheld;
      const at = isBehind ? { ...this.head, rev: this.state.oldestTold } : this.head;
      const object = encodeEvent(dialect, this.room.name, at, event);
      if (object !== undefined) fanOut.push(object);
    }
    if (event.type === "reset") this.#state?.reset();
  }

  /** Gives an event to one subscriber, behind the text before. */
  #tell(event: RoomEvent, to: string): void {
    const subscription = this.#subscriptions.get(to);
    if (!subscription?.isLive) return;
    this.fanOutOf(subscription.dialect).flush();
    subscription.give(event, this.head);
  }

  #relay(bytes: Uint8Array, from: string): void {
    // The text before goes out before, in this room alone.
    for (const fanOut of this.fanOuts.values()) fanOut.flush();
    for (const subscription of this.#subscriptions.values()) {
      if (!subscription.isLive) continue;
      try {
        this.handBytes(subscription.subscriber, bytes, from);
      } catch (error) {
        this.room.registry.fail(subscription.subscriber, error);
      }
    }
  }

  /** What reaches those who are live in a dialect, made for the first of them. */
  fanOutOf(dialect: Dialect): FanOut {
    let fanOut = this.fanOuts.get(dialect);
    if (fanOut) return fanOut;
    fanOut = new (dialect.isMerged ? MergedFanOut : DirectFanOut)(this.room.registry);
    this.fanOuts.set(dialect, fanOut);
    return fanOut;
  }
}
