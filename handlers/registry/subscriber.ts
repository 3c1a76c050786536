/**
 * What a socket and an event stream have in common: one slot, one expiry, one bounded queue, one end.
 */
import type { Visitor } from "../access/access.ts";
import type { Slot } from "../access/slot.ts";
import type { Rights } from "../access/grants.ts";
import { CLOSE, type Close, MAX_REASON_BYTES } from "../protocol/close_codes.ts";
import type { Dialect } from "../protocol/encode.ts";
import { cutBytes } from "../util/bytes.ts";
import { runAt } from "../util/clock.ts";
import { leave } from "./membership.ts";
import type { Registry } from "./registry.ts";
import type { Subscription } from "./subscription.ts";

/** How a subscriber ended: by a close (`code`), by an error, or by the server. */
export interface End {
  by: "peer" | "error" | "server";
  code: number;
  reason: string;
}

/** What a frame is made of. */
export type Frame = string | Uint8Array<ArrayBuffer> | ArrayBuffer;

/** What a subscriber is counted as. */
export type SubscriberKind = "echo" | Dialect["name"];

/** A client has so long to open, and to answer a close, before its slot is given back; in ms. */
export const SLOT_MS = 10_000;
/** Deno's older kind of signal is aborted on success too, right before the socket opens. */
const ABORT_MS = 250;

/** What each transport is made of. */
export interface SubscriberOptions extends Visitor {
  slot: Slot;
  /** The signal of the request that asks for the subscriber. */
  signal?: AbortSignal;
  dialect: Dialect;
  kind?: SubscriberKind;
  /** The room of a socket's URL, whose binary frames it gets. */
  homeRoom?: string;
}

/** A client that subscribes to rooms: it opens, ends once, and gives its slot back once. */
export abstract class Subscriber {
  /** Unique among the subscribers of all processes. */
  readonly id: string;
  /** The peer's address and port, for the log. */
  readonly remote: string;
  /** What limits count it by. */
  readonly address: string;
  readonly dialect: Dialect;
  readonly kind: SubscriberKind;
  readonly homeRoom?: string;
  /** Its subscriptions, by the name of the room; those that are still being opened, too. */
  readonly rooms: Map<string, Subscription> = new Map();
  hasEnded = false;
  /** Something was sent since nothing was unsent: to ask the runtime of all idle sockets costs more than their pings. */
  mayBeUnsent = true;
  /** Whether it was counted in. */
  isOpen = false;
  #rights: Rights;
  readonly #bansSeen?: number;
  #slot: Slot;
  #stopExpiry?: () => void;
  /** Ends the watch over a slot whose owner is not open yet, or not any more. */
  #stopWatch?: () => void;

  constructor(
    readonly registry: Registry,
    { slot, signal, remote, address, rights, bansSeen, dialect, kind = dialect.name, homeRoom }:
      SubscriberOptions,
  ) {
    this.#slot = slot;
    this.address = address;
    this.id = registry.nextId();
    this.remote = remote;
    this.#rights = rights;
    this.#bansSeen = bansSeen;
    this.dialect = dialect;
    this.kind = kind;
    this.homeRoom = homeRoom;
    registry.holders.add(this);
    this.#watchOpening(signal);
  }

  /** Bytes that the peer has not taken, with what waits to be merged. */
  abstract get unsentBytes(): number;
  /** Sends a frame now; a peer that is too far behind is closed. */
  abstract send(frame: Frame): void;
  /** Ends the transport, behind the end of the subscriber. */
  protected abstract closeTransport(why: keyof typeof CLOSE): void;

  /** What it may do. Fresh rights end it when they expire, no longer when the old ones do. */
  get rights(): Rights {
    return this.#rights;
  }

  set rights(rights: Rights) {
    this.#rights = rights;
    if (this.isOpen) this.#watchExpiry();
  }

  /** The limits that its first `welcome` names; nothing at later calls. */
  firstLimits(): { messageBytes: number } | undefined {
    return undefined;
  }

  /** Gives the peer an object of its own: a transport that merges sends it when the turn ends. */
  notify(object: string): void {
    this.send(object);
  }

  enqueue(objects: string, _bytes: number): void {
    this.send(objects);
  }

  flush(): void {}

  /** Says when to come back, in ms, if the dialect has a word for it. */
  bye(retry: number): void {
    const object = this.dialect.bye(retry);
    if (object !== undefined) this.notify(object);
  }

  /** Closes with a code of the table. It has ended when this returns, whatever the peer does. */
  close(why: keyof typeof CLOSE): void {
    // A peer that is too slow does not get what is pending.
    if (why !== "tooSlow") this.flush();
    // It had ended before, or the flush did it.
    if (this.hasEnded) return;
    const { code, reason }: Close = CLOSE[why];
    this.registry.counters.closes[why]++;
    this.end({ by: "server", code, reason });
    this.closeTransport(why);
    this.#watchClosing();
  }

  /** Counts it in; a server that drains closes it instead of letting it begin. */
  protected open(): boolean {
    this.#stopWatch?.();
    this.#stopWatch = undefined;
    this.isOpen = true;
    this.registry.add(this);
    if (this.registry.isDraining) this.close("goingAway");
    else if (this.registry.bans.has(this.#rights.user, this.#bansSeen)) this.close("notAllowed");
    else this.#watchExpiry();
    return !this.hasEnded;
  }

  /** Takes it out of its rooms and counts it out. Only the first call does something. */
  protected end(end: End): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.#stopExpiry?.();
    for (const { room } of [...this.rooms.values()]) leave(room, this);
    const reason = cutBytes(end.reason, MAX_REASON_BYTES);
    if (this.isOpen) this.registry.remove(this, { ...end, reason });
  }

  /** Gives the slot back. Only the first call does something. */
  protected release(): void {
    this.#stopWatch?.();
    this.registry.holders.delete(this);
    this.#slot.release();
  }

  /** Gives the slot back when the client gives up or takes too long: no event may ever tell. */
  #watchOpening(signal?: AbortSignal): void {
    const { clock } = this.registry;
    const giveUp = () => {
      this.end({ by: "error", code: 1006, reason: "not opened" });
      this.release();
    };
    const stopLimit = clock.after(SLOT_MS, giveUp);
    let stopAbort: (() => void) | undefined;
    const onAbort = () => stopAbort = clock.after(ABORT_MS, giveUp);
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
    this.#stopWatch = () => {
      stopLimit();
      stopAbort?.();
      signal?.removeEventListener("abort", onAbort);
    };
  }

  /** Gives the slot back though the peer does not answer the close, unless it holds unsent bytes. */
  #watchClosing(): void {
    if (!this.registry.holders.has(this)) return;
    this.#stopWatch = this.registry.clock.after(SLOT_MS, () => {
      if (this.unsentBytes === 0) this.release();
      else this.#watchClosing();
    });
  }

  #watchExpiry(): void {
    this.#stopExpiry?.();
    const { expiresAt } = this.#rights;
    this.#stopExpiry = expiresAt === undefined
      ? undefined
      : runAt(this.registry.clock, expiresAt, () => this.close("tokenExpired"));
  }
}
