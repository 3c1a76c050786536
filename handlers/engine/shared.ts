/** One engine for several threads: the thread that owns it shares it. */
import type { Head } from "../protocol/position.ts";
import type { RoomEvent, Transient } from "../protocol/room_event.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import { Channel } from "./channel.ts";
import { type Engine, type Host, isRefusal, type Refusal } from "./engine.ts";
import { HostGate } from "./host_gate.ts";
import { flatten, unflatten } from "./flat_event.ts";
import type { OwnerCalls, RemoteCalls } from "./remote.ts";

/** An engine that several threads use. */
export type SharedEngine = ReturnType<typeof shareEngine>;

/** Shares an engine between this thread and others. */
export function shareEngine(engine: Engine) {
  const rooms = new Map<string, SharedRoom>();
  const stops = new Set<() => void>();
  const here = createUse(engine, rooms);
  return {
    /** The engine as this thread uses it; closing it ends only this use. */
    here,
    /**
     * Serves a {@link remoteEngine}. The answer ends that: the other thread hosts nothing any more, and
     * who joined through it leaves.
     * @param onFull the other thread does not take what it is sent, and should be ended
     */
    serve(port: MessagePort, onFull?: () => void): () => void {
      const use = createUse(engine, rooms);
      const hostings = new Map<number, { subscriberCount: number }>();
      const channel = new Channel<OwnerCalls, RemoteCalls>(port, {
        calls: {
          ...use,
          host(room, hosting, subscriberCount, address) {
            const host: Host = {
              subscriberCount,
              deliver: (event) => channel.notify("event", hosting, ...flatten(event)),
            };
            hostings.set(hosting, host);
            return chain(use.host(room, host, address), (head) => {
              if (isRefusal(head)) hostings.delete(hosting);
              return head;
            });
          },
          release(room, hosting) {
            hostings.delete(hosting);
            use.release(room);
          },
          relay: (room, ...event) => use.relay(room, unflatten(event) as Transient),
          publish: (room, sender, message, address, key) =>
            use.publish(room, { sender, message, address, key }),
          report(listeners) {
            for (let i = 0; i < listeners.length; i += 2) {
              const hosting = hostings.get(listeners[i]);
              if (hosting) hosting.subscriberCount = listeners[i + 1];
            }
            tellState();
          },
        },
        onFull,
        onClose: () => stop(),
      });
      const stop = () => {
        stops.delete(stop);
        channel.close();
        use.close();
      };
      const tellState = () =>
        channel.notify("state", engine.name, engine.isReady(), engine.stats().isFull);
      stops.add(stop);
      tellState();
      return stop;
    },
    /** Ends all of it, the engine too. */
    async close() {
      for (const stop of stops) stop();
      await here.close();
      await engine.close();
    },
  };
}

/** The engine as one thread uses it; its end takes its hosts and members along. */
function createUse(engine: Engine, rooms: Map<string, SharedRoom>): Engine {
  /** Who joined here, by room and member: granted, or still asked for. */
  const joined = new Map<string, { isGranted: boolean; pending: number }>();
  const use: Engine = {
    name: engine.name,
    host(name, host, address) {
      const room = rooms.get(name) ?? new SharedRoom(name, engine, address);
      rooms.set(name, room);
      return chain(room.add(use, host), (head) => {
        if (isRefusal(head) && rooms.get(name) === room) rooms.delete(name);
        return head;
      });
    },
    release(name) {
      const room = rooms.get(name);
      if (!room?.hosts.delete(use) || room.hosts.size > 0) return;
      rooms.delete(name);
      engine.release(name);
    },
    publish: (room, draft) => engine.publish(room, draft),
    set: (room, change) => engine.set(room, change),
    state: (room, since) => engine.state(room, since),
    relay: (room, event) => engine.relay(room, event),
    join(room, member, name, user) {
      const key = `${room} ${member}`;
      const known = joined.get(key) ?? { isGranted: false, pending: 0 };
      joined.set(key, known);
      known.pending++;
      return chain(engine.join(room, member, name, user), (refusal) => {
        known.pending--;
        if (!refusal) known.isGranted = true;
        const isOut = !known.isGranted && known.pending === 0;
        if (isOut && joined.get(key) === known) joined.delete(key);
        return refusal;
      });
    },
    leave(room, member) {
      if (joined.delete(`${room} ${member}`)) engine.leave(room, member);
    },
    members: (room) => engine.members(room),
    read: (...args) => engine.read(...args),
    rooms: (after, limit) => engine.rooms(after, limit),
    isReady: () => engine.isReady(),
    stats: () => engine.stats(),
    close() {
      for (const name of rooms.keys()) use.release(name);
      for (const key of joined.keys()) {
        const space = key.indexOf(" ");
        use.leave(key.slice(0, space), key.slice(space + 1));
      }
      return Promise.resolve();
    },
  };
  return use;
}

/** The one host that an engine knows of a room: it stands for the host of each thread. */
class SharedRoom implements Host {
  /** Where the hosts are; none before the engine has answered. */
  #head?: Head;
  readonly #opened: MaybePromise<Head | Refusal>;
  readonly hosts = new Map<Engine, Host>();
  /** Events that a delivery itself caused: they wait until every thread has the one before. */
  readonly #queued: RoomEvent[] = [];

  constructor(name: string, engine: Engine, address?: string) {
    const gate = new HostGate(this);
    const answer = engine.host(name, gate, address);
    this.#opened = chain(answer, (head) => {
      if (isRefusal(head)) return head;
      this.#head = { ...head };
      // An answer that came at once has no promises before it.
      if (head === answer) gate.openNow();
      else gate.open();
      return head;
    });
  }

  get subscriberCount(): number {
    return this.hosts.values().reduce((sum, host) => sum + host.subscriberCount, 0);
  }

  add(use: Engine, host: Host): MaybePromise<Head | Refusal> {
    this.hosts.set(use, host);
    return this.#head ? { ...this.#head } : this.#opened;
  }

  deliver(event: RoomEvent): void {
    if (this.#queued.push(event) > 1) return;
    for (; this.#queued.length > 0; this.#queued.shift()) this.#hand(this.#queued[0]);
  }

  #hand(event: RoomEvent): void {
    const head = this.#head!;
    if (event.type === "chat") head.seq = event.chat.seq;
    else if (event.type === "set") head.rev = event.entry.rev;
    else if (event.type === "status") head.members = event.members;
    else if (event.type === "reset") {
      const { type: _, ...anew } = event;
      this.#head = anew;
    }
    for (const [use, host] of [...this.hosts]) {
      // Who hosts again meanwhile has this event in its head.
      if (this.hosts.get(use) !== host) continue;
      try {
        host.deliver(event);
      } catch (error) {
        // One thread's error must not cost another its message.
        reportError(error);
      }
    }
  }
}
