/** The engine of another thread, over a `MessagePort`: that thread shares it (`shared.ts`). */
import type { Head } from "../protocol/position.ts";
import { type Clock, systemClock } from "../util/clock.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import { Channel } from "./channel.ts";
import { type Engine, isRefusal } from "./engine.ts";
import type { IdempotencyKey, Outcome, Refusal } from "./engine.ts";
import { type FlatEvent, flatten, unflatten } from "./flat_event.ts";
import { HostGate } from "./host_gate.ts";

/** What the owner answers. A hosting has an id, so that events of an ended one are told from a new one's. */
export interface OwnerCalls
  extends Pick<Engine, "set" | "state" | "join" | "leave" | "members" | "read" | "rooms"> {
  host(room: string, id: number, listeners: number, address?: string): MaybePromise<Head | Refusal>;
  release(room: string, id: number): void;
  publish(room: string, ...draft: FlatDraft): MaybePromise<Outcome>;
  relay(room: string, ...event: FlatEvent): void;
  /** Once a second: the listeners of each hosting where they changed, id and count by turns. */
  report(listeners: number[]): void;
}

/** What a remote engine is told. */
export interface RemoteCalls {
  event(hosting: number, ...event: FlatEvent): void;
  /** At the start, and in answer to each report. */
  state(name: Engine["name"], isReady: boolean, isFull?: boolean): void;
}

/** A draft's values; `key` is seldom there. */
type FlatDraft = [sender: string, message: string, address?: string, key?: IdempotencyKey];

const REPORT_MS = 1_000;
/** With more of them unanswered the owner hangs. */
const MAX_UNANSWERED_REPORTS = 2;

interface Hosting {
  id: number;
  gate: HostGate;
  /** The listeners that the owner knows of. */
  subscriberCount: number;
}

/** The engine that another thread shares over this port. It is ready when the owner has said so. */
export function remoteEngine(port: MessagePort, clock: Clock = systemClock): Engine {
  const byRoom = new Map<string, Hosting>();
  const byId = new Map<number, Hosting>();
  let lastId = 0;
  let name: Engine["name"] = "memory";
  let isReady = false;
  let isFull: boolean | undefined;
  let unansweredReports = 0;
  const channel = new Channel<RemoteCalls, OwnerCalls>(port, {
    calls: {
      event: (hosting, ...event) => byId.get(hosting)?.gate.deliver(unflatten(event)),
      state(...state) {
        unansweredReports = 0;
        [name, isReady, isFull] = state;
      },
    },
    onClose: () => end(),
  });
  const stopReports = clock.every(REPORT_MS, () => {
    const changed: number[] = [];
    for (const hosting of byId.values()) {
      const { subscriberCount } = hosting.gate;
      if (subscriberCount === hosting.subscriberCount) continue;
      hosting.subscriberCount = subscriberCount;
      changed.push(hosting.id, subscriberCount);
    }
    unansweredReports++;
    channel.notify("report", changed);
  });

  function forget(name: string, hosting: Hosting): void {
    hosting.gate.close();
    byId.delete(hosting.id);
    if (byRoom.get(name) === hosting) byRoom.delete(name);
  }

  function end(): void {
    isReady = false;
    stopReports();
    for (const [name, hosting] of byRoom) forget(name, hosting);
  }

  return {
    get name() {
      return name;
    },
    async host(name, host, address) {
      const { subscriberCount } = host;
      const hosting = { id: ++lastId, gate: new HostGate(host), subscriberCount };
      byRoom.set(name, hosting);
      byId.set(hosting.id, hosting);
      const head = await channel.call("host", name, hosting.id, subscriberCount, address);
      if (isRefusal(head)) forget(name, hosting);
      else hosting.gate.open();
      return head;
    },
    release(name) {
      const hosting = byRoom.get(name);
      if (!hosting) return;
      forget(name, hosting);
      channel.notify("release", name, hosting.id);
    },
    publish: (room, { sender, message, address, key }) =>
      channel.call("publish", room, sender, message, address, key),
    set: (room, change) => channel.call("set", room, change),
    state: (room, since) => channel.call("state", room, since),
    relay(room, event) {
      if (!channel.isFull) channel.notify("relay", room, ...flatten(event));
    },
    join: (room, member, name, user) => channel.call("join", room, member, name, user),
    leave: (room, member) => channel.notify("leave", room, member),
    members: (room) => channel.call("members", room),
    read: (...args) => channel.call("read", ...args),
    rooms: (after, limit) => channel.call("rooms", after, limit),
    isReady: () => isReady && unansweredReports <= MAX_UNANSWERED_REPORTS,
    // The owner counts the rooms and bytes.
    stats: () => ({ rooms: 0, historyBytes: 0, isFull }),
    close() {
      end();
      channel.close();
      return Promise.resolve();
    },
  };
}
