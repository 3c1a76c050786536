/**
 * The workers engine: each room has its order and history in one worker of the process, its home.
 *
 * The home keeps the room in a memory engine. The other workers ask it, and hear the room's events
 * from it while they host the room.
 *
 * @module
 */
import type { RoomEvent, RoomSummary } from "../protocol/room_event.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { chain } from "../util/maybe_promise.ts";
import { Line } from "./channel.ts";
import { type Engine, isRefusal } from "./engine.ts";
import { createMemoryEngine, type HistoryLimits } from "./memory.ts";
import {
  type Away,
  type AwayRoom,
  createAway,
  namesOf,
  type PeerCalls,
  type PeerLine,
} from "./workers_away.ts";
import { type Guest, homeOf, type Rooms, shareRooms } from "./workers_home.ts";

/** By index, the port to each other worker; a worker's own place is empty. */
export type Ports = (MessagePort | undefined)[];

/** What the engine of one worker needs. */
export interface WorkersEngineOptions {
  ports: Ports;
  /** Of the whole process: each worker keeps an equal share of `historyMb` and `maxRooms`. */
  limits: HistoryLimits;
  clock: Clock;
  log: Log;
}

/** An engine that can put a restarted worker in its place. */
export interface WorkersEngine extends Engine {
  /**
   * Worker `index` died, and another took its place: its rooms begin anew there (hosts hear
   * `reset`), what it was asked is `unavailable`, its members leave the rooms of the others.
   */
  replacePeer(index: number, port: MessagePort): void;
}

/** Another worker: its rooms as they are used here, the rooms here as it uses them. */
interface Peer {
  line: PeerLine;
  away: Away;
  guest: Guest;
}

const ANSWER_MS = 900;
const RETRY_MS = 1_000;

/** Makes the engine of one worker. */
export function createWorkersEngine(
  { ports, limits, clock, log }: WorkersEngineOptions,
): WorkersEngine {
  const memory = createMemoryEngine({
    ...limits,
    historyMb: limits.historyMb / ports.length,
    maxRooms: Math.max(1, Math.floor(limits.maxRooms / ports.length)),
  }, clock);
  const addGuest = shareRooms(memory);
  const here = addGuest();
  const peers = ports.map((port, index) => port && connect(index, port));
  /** Indexes of the workers that rooms can be at home in. */
  let living = [...ports.keys()];
  const stopRetries = clock.every(RETRY_MS, () => {
    for (const peer of peers) peer?.away.retry();
  });

  function at(room: string): Rooms {
    return peers[homeOf(room, living)]?.away ?? here;
  }

  /** A worker has ended for good: its rooms find other homes. */
  function remove(index: number, peer: Peer): void {
    part(peer);
    peers[index] = undefined;
    living = living.filter((worker) => worker !== index);
    for (const [name, room] of peer.away.rooms) {
      const next = peers[homeOf(name, living)]?.away;
      if (next) next.adopt(name, room);
      else adopt(name, room);
    }
  }

  /** A room is at home here from now on. */
  function adopt(name: string, room: AwayRoom): void {
    here.rejoin(name, namesOf(room));
    const { hosting } = room;
    if (!hosting) return;
    chain(here.host(name, hosting.host), (head) => {
      if (!isRefusal(head)) hosting.host.deliver({ type: "reset", ...head });
    });
  }

  function connect(index: number, port: MessagePort, away = createAway()): Peer {
    const guest = addGuest();
    const line: PeerLine = new Line<PeerCalls, PeerCalls>(port, {
      calls: {
        ...guest,
        host(room, names) {
          guest.rejoin(room, names);
          const deliver = (event: RoomEvent) => line.tell("event", room, event);
          return guest.host(room, { deliver, listenerCount: 0 });
        },
        rooms: roomsHere,
        event: away.hear,
        end: () => remove(index, peer),
      },
      answerMs: ANSWER_MS,
      clock,
      onSilence: () =>
        log.warn(
          `Worker ${index} does not answer: its rooms are unavailable`,
          { event: "worker_silent", peer: index },
        ),
    });
    away.connect(line);
    const peer = { line, guest, away };
    return peer;
  }

  async function roomsHere(after: string, limit: number) {
    const home = await memory.rooms(after, limit);
    const away = peers.flatMap((peer) => peer?.away.summaries() ?? []);
    return merge([...home, ...away.filter(({ room }) => room > after)], limit);
  }

  return {
    name: "workers",
    host: (room, host) => at(room).host(room, host),
    release: (room) => at(room).release(room),
    publish: (room, draft) => at(room).publish(room, draft),
    relay(room, bytes, from) {
      const isWhole = bytes.length === bytes.buffer.byteLength;
      at(room).relay(room, isWhole ? bytes : bytes.slice(), from);
    },
    join: (room, member, name) => at(room).join(room, member, name),
    leave: (room, member) => at(room).leave(room, member),
    members: (room) => at(room).members(room),
    read: (room, after) => at(room).read(room, after),
    async rooms(after, limit) {
      const lists = await Promise.all([
        roomsHere(after, limit),
        ...peers.map((peer) => peer?.line.ask("rooms", after, limit) ?? []),
      ]);
      return merge(lists.flatMap((list) => isRefusal(list) ? [] : list), limit);
    },
    isReady: () => true,
    stats: () => memory.stats(),
    close() {
      stopRetries();
      here.end();
      for (const peer of peers) {
        peer?.line.tell("end");
        peer?.line.close();
      }
      return memory.close();
    },
    replacePeer(index, port) {
      const dead = peers[index];
      if (!dead) return;
      part(dead);
      peers[index] = connect(index, port, dead.away);
    },
  };
}

/** The ports of `count` engines: `[a][b]` is the end that `a` has of the channel to `b`. */
export function createMesh(count: number): Ports[] {
  const mesh = Array.from({ length: count }, () => Array<Ports[number]>(count).fill(undefined));
  for (let a = 0; a < count; a++) {
    for (let b = 0; b < a; b++) {
      const { port1, port2 } = new MessageChannel();
      mesh[a][b] = port1;
      mesh[b][a] = port2;
    }
  }
  return mesh;
}

/** Ends what is between this worker and another. */
function part({ line, guest }: Peer): void {
  line.close();
  guest.end();
}

/** Adds up what several workers know of the same rooms: the first `limit` of them by name. */
function merge(parts: RoomSummary[], limit: number): RoomSummary[] {
  const sums = new Map<string, RoomSummary>();
  for (const { room, members, listeners, seq } of parts) {
    const sum = sums.get(room) ?? { room, members: 0, listeners: 0, seq: 0 };
    sum.members += members;
    sum.listeners += listeners;
    sum.seq += seq;
    sums.set(room, sum);
  }
  return [...sums.values()].sort((a, b) => a.room < b.room ? -1 : 1)
    .slice(0, limit);
}
