/**
 * One engine for several threads: the thread that owns it shares it, the others reach it over a
 * `MessagePort`.
 *
 * @module
 */
import type { Head } from "../protocol/position.ts";
import type { RoomEvent } from "../protocol/room_event.ts";
import { type Clock, systemClock } from "../util/clock.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import { Channel } from "./channel.ts";
import { type Engine, type Host, isRefusal, type Outcome, type Refusal } from "./engine.ts";

/** An engine that several threads use. */
export interface SharedEngine {
  /** The engine as this thread uses it; closing it ends only this use. */
  readonly here: Engine;
  /**
   * Serves a {@link remoteEngine}. The answer ends that: the other thread hosts nothing any more, and
   * who joined through it leaves.
   *
   * @param onFull the other thread does not take what it is sent, and should be ended
   */
  serve(port: MessagePort, onFull?: () => void): () => void;
  /** Ends all of it, the engine too. */
  close(): Promise<void>;
}

/** What the owner answers. A hosting has an id, so that events of an ended one are told from a new one's. */
interface OwnerCalls {
  host(room: string, hosting: number, listenerCount: number): MaybePromise<Head | Refusal>;
  release(room: string, hosting: number): void;
  publish(
    ...args: [
      room: string,
      sender: string,
      message: string,
      session?: string,
      id?: string,
      digest?: string,
    ]
  ): MaybePromise<Outcome>;
  relay: Engine["relay"];
  join: Engine["join"];
  leave: Engine["leave"];
  members: Engine["members"];
  read: Engine["read"];
  rooms: Engine["rooms"];
  /** Once a second: the listeners of each hosting where they changed, id and count by turns. */
  report(listeners: number[]): void;
}

/** What a remote engine is told. */
interface RemoteCalls {
  event(hosting: number, ...event: FlatEvent): void;
  /** At the start, and in answer to each report. */
  state(name: Engine["name"], isReady: boolean): void;
}

/** A room event's values: an array costs 0.4 of the nested objects to copy. */
type FlatEvent =
  | [type: "chat", seq: number, time: number, sender: string, message: string]
  | [type: "status", event: "join" | "leave", name: string, members: number, was?: string]
  | [type: "binary", bytes: Uint8Array, from: string]
  | [type: "reset", epoch: string, seq: number, members: number];

const REPORT_MS = 1_000;
/** With more of them unanswered the owner hangs. */
const MAX_UNANSWERED_REPORTS = 2;

/** Shares an engine between this thread and others. */
export function shareEngine(engine: Engine): SharedEngine {
  const rooms = new Map<string, SharedRoom>();
  const stops = new Set<() => void>();
  const here = createUse(engine, rooms);
  return {
    here,
    serve(port, onFull) {
      const use = createUse(engine, rooms);
      const hostings = new Map<number, { listenerCount: number }>();
      const channel = new Channel<OwnerCalls, RemoteCalls>(port, {
        calls: {
          ...use,
          host(room, hosting, listenerCount) {
            const host: Host = {
              listenerCount,
              deliver: (event) => channel.notify("event", hosting, ...flatten(event)),
            };
            hostings.set(hosting, host);
            return use.host(room, host);
          },
          release(room, hosting) {
            hostings.delete(hosting);
            use.release(room);
          },
          publish: (room, sender, message, session, id = "", digest) =>
            use.publish(room, {
              sender,
              message,
              key: session === undefined ? undefined : { session, id, digest },
            }),
          report(listeners) {
            for (let i = 0; i < listeners.length; i += 2) {
              const hosting = hostings.get(listeners[i]);
              if (hosting) hosting.listenerCount = listeners[i + 1];
            }
            channel.notify("state", engine.name, engine.isReady());
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
      stops.add(stop);
      channel.notify("state", engine.name, engine.isReady());
      return stop;
    },
    async close() {
      for (const stop of stops) stop();
      await here.close();
      await engine.close();
    },
  };
}

/** The engine as one thread uses it; its end takes its hosts and members along. */
function createUse(engine: Engine, rooms: Map<string, SharedRoom>): Engine {
  /** By room, who joined here, granted or still asked for. */
  const joined = new Map<string, Map<string, { isGranted: boolean; pending: number }>>();
  const use: Engine = {
    name: engine.name,
    host(name, host) {
      const room = rooms.get(name) ?? new SharedRoom(name, engine);
      rooms.set(name, room);
      return chain(room.add(use, host), (head) => {
        if (isRefusal(head) && rooms.get(name) === room) rooms.delete(name);
        return head;
      });
    },
    release(name) {
      const room = rooms.get(name);
      if (!room?.delete(use) || !room.isEmpty) return;
      rooms.delete(name);
      engine.release(name);
    },
    publish: (room, draft) => engine.publish(room, draft),
    relay: (room, bytes, from) => engine.relay(room, bytes, from),
    join(room, member, name) {
      const members = joined.get(room) ?? new Map();
      joined.set(room, members);
      const known = members.get(member) ?? { isGranted: false, pending: 0 };
      members.set(member, known);
      known.pending++;
      return chain(engine.join(room, member, name), (refusal) => {
        known.pending--;
        if (!refusal) known.isGranted = true;
        else if (!known.isGranted && known.pending === 0) forget(room, member, known);
        return refusal;
      });
    },
    leave(room, member) {
      if (forget(room, member)) engine.leave(room, member);
    },
    members: (room) => engine.members(room),
    read: (room, after) => engine.read(room, after),
    rooms: (after, limit) => engine.rooms(after, limit),
    isReady: () => engine.isReady(),
    stats: () => engine.stats(),
    close() {
      for (const name of rooms.keys()) use.release(name);
      for (const [room, members] of joined) {
        for (const member of members.keys()) use.leave(room, member);
      }
      return Promise.resolve();
    },
  };

  function forget(room: string, member: string, known?: unknown): boolean {
    const members = joined.get(room);
    if (!members?.has(member) || (known && members.get(member) !== known)) return false;
    members.delete(member);
    if (members.size === 0) joined.delete(room);
    return true;
  }
  return use;
}

/** The one host that an engine knows of a room: it stands for the host of each thread. */
class SharedRoom implements Host {
  /** Where the hosts are; none before the engine has answered. */
  #head?: Head;
  #opened: MaybePromise<Head | Refusal>;
  #hosts = new Map<Engine, Host>();
  /** Events that a delivery itself caused: they wait until every thread has the one before. */
  #queued: RoomEvent[] = [];
  #isDelivering = false;

  constructor(name: string, engine: Engine) {
    this.#opened = chain(engine.host(name, this), (head) => {
      if (!isRefusal(head)) this.#head = { ...head };
      return head;
    });
  }

  get isEmpty(): boolean {
    return this.#hosts.size === 0;
  }

  get listenerCount(): number {
    return this.#hosts.values().reduce((sum, host) => sum + host.listenerCount, 0);
  }

  add(use: Engine, host: Host): MaybePromise<Head | Refusal> {
    if (this.#head) {
      this.#hosts.set(use, host);
      return { ...this.#head };
    }
    const gate = new HostGate(host);
    this.#hosts.set(use, gate);
    return chain(this.#opened, (head) => {
      gate.open();
      return head;
    });
  }

  delete(use: Engine): boolean {
    const host = this.#hosts.get(use);
    if (host instanceof HostGate) host.close();
    return this.#hosts.delete(use);
  }

  deliver(event: RoomEvent): void {
    this.#queued.push(event);
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    try {
      for (let next = this.#queued.shift(); next; next = this.#queued.shift()) this.#hand(next);
    } finally {
      this.#isDelivering = false;
    }
  }

  #hand(event: RoomEvent): void {
    const head = this.#head;
    if (head && event.type === "chat") head.seq = event.chat.seq;
    else if (head && event.type === "status") head.members = event.members;
    else if (event.type === "reset") {
      this.#head = { epoch: event.epoch, seq: event.seq, members: event.members };
    }
    // Who hosts again meanwhile has this event in its head.
    for (const [use, host] of [...this.#hosts]) {
      if (this.#hosts.get(use) === host) host.deliver(event);
    }
  }
}

/** Holds events back until who asked to host has seen the head that they follow. */
class HostGate implements Host {
  #held?: RoomEvent[] = [];
  #isClosed = false;

  constructor(readonly host: Host) {}

  get listenerCount(): number {
    return this.host.listenerCount;
  }

  deliver(event: RoomEvent): void {
    if (this.#held) this.#held.push(event);
    else if (!this.#isClosed) this.host.deliver(event);
  }

  /** Lets events through from the next turn on: promises of the head come first. */
  open(): void {
    setImmediate(() => {
      for (const event of this.#held ?? []) if (!this.#isClosed) this.host.deliver(event);
      this.#held = undefined;
    });
  }

  /** Lets nothing through any more. */
  close(): void {
    this.#isClosed = true;
  }
}

/** A room that a remote engine hosts. */
interface Hosting {
  id: number;
  gate: HostGate;
  /** The listeners that the owner knows of. */
  listenerCount: number;
}

/** The engine that another thread shares over this port. It is ready when the owner has said so. */
export function remoteEngine(port: MessagePort, clock: Clock = systemClock): Engine {
  const byRoom = new Map<string, Hosting>();
  const byId = new Map<number, Hosting>();
  let lastId = 0;
  let name: Engine["name"] = "memory";
  let isReady = false;
  let unansweredReports = 0;
  const channel = new Channel<RemoteCalls, OwnerCalls>(port, {
    calls: {
      event: (hosting, ...event) => byId.get(hosting)?.gate.deliver(unflatten(event)),
      state(itsName, isItReady) {
        unansweredReports = 0;
        [name, isReady] = [itsName, isItReady];
      },
    },
    onClose: () => end(),
  });
  const stopReports = clock.every(REPORT_MS, () => {
    const changed: number[] = [];
    for (const hosting of byId.values()) {
      const { listenerCount } = hosting.gate;
      if (listenerCount === hosting.listenerCount) continue;
      hosting.listenerCount = listenerCount;
      changed.push(hosting.id, listenerCount);
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
    async host(name, host) {
      const { listenerCount } = host;
      const hosting = { id: ++lastId, gate: new HostGate(host), listenerCount };
      byRoom.set(name, hosting);
      byId.set(hosting.id, hosting);
      const head = await channel.call("host", name, hosting.id, listenerCount);
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
    publish: (room, { sender, message, key }) =>
      channel.call("publish", room, sender, message, key?.session, key?.id, key?.digest),
    relay(room, bytes, from) {
      if (!channel.isFull) channel.notify("relay", room, whole(bytes), from);
    },
    join: (room, member, name) => channel.call("join", room, member, name),
    leave: (room, member) => channel.notify("leave", room, member),
    members: (room) => channel.call("members", room),
    read: (room, after) => channel.call("read", room, after),
    async rooms(after, limit) {
      const rooms = await channel.call("rooms", after, limit);
      return isRefusal(rooms) ? [] : rooms;
    },
    isReady: () => isReady && unansweredReports <= MAX_UNANSWERED_REPORTS,
    // The owner counts them.
    stats: () => ({ rooms: 0, historyBytes: 0 }),
    close() {
      end();
      channel.close();
      return Promise.resolve();
    },
  };
}

function flatten(event: RoomEvent): FlatEvent {
  switch (event.type) {
    case "chat": {
      const { seq, time, sender, message } = event.chat;
      return ["chat", seq, time, sender, message];
    }
    case "status":
      return ["status", event.event, event.name, event.members, event.was];
    case "binary":
      return ["binary", whole(event.bytes), event.from];
    case "reset":
      return ["reset", event.epoch, event.seq, event.members];
  }
}

function unflatten(flat: FlatEvent): RoomEvent {
  switch (flat[0]) {
    case "chat": {
      const [type, seq, time, sender, message] = flat;
      return { type, chat: { seq, time, sender, message } };
    }
    case "status": {
      const [type, event, name, members, was] = flat;
      return { type, event, name, members, was };
    }
    case "binary": {
      const [type, bytes, from] = flat;
      return { type, bytes, from };
    }
    case "reset": {
      const [type, epoch, seq, members] = flat;
      return { type, epoch, seq, members };
    }
  }
}

/** Bytes whose copy takes nothing else of the buffer behind them along. */
function whole(bytes: Uint8Array): Uint8Array {
  return bytes.length === bytes.buffer.byteLength ? bytes : bytes.slice();
}
