/**
 * Rooms that are at home in one other worker, as they are used here.
 *
 * @module
 */
import type { Head } from "../protocol/position.ts";
import type { RoomEvent, RoomSummary } from "../protocol/room_event.ts";
import type { MaybePromise } from "../util/maybe_promise.ts";
import type { Line } from "./channel.ts";
import { type Engine, type Host, isRefusal, type Refusal } from "./engine.ts";
import type { Names, Rooms } from "./workers_home.ts";

/** What workers ask of each other: all that is done with rooms, and some more. */
export interface PeerCalls extends Omit<Rooms, "host"> {
  /** Hosts a room; `names` have joined it through the caller. */
  host(room: string, names: Names): MaybePromise<Head | Refusal>;
  /** The first rooms that are at home in the worker that is asked, or hosted by it. */
  rooms: Engine["rooms"];
  /** From a room's home to a worker that hosts it. */
  event(room: string, event: RoomEvent): void;
  /** The caller ends. */
  end(): void;
}

/** A line to another worker. */
export type PeerLine = Line<PeerCalls, PeerCalls>;

/** A room as it is used here. */
export interface AwayRoom {
  /** Who joins here, by member. No name: nothing is granted yet. */
  readonly joined: Map<string, { name?: string; pending: number }>;
  /** A new object each time that the home is asked: a late answer finds another. */
  hosting?: Hosting;
}

/** A host, and whether its home has let it in. */
interface Hosting {
  host: Host;
  isOpen: boolean;
  /** Events that wait until who asked has seen the head they follow. */
  held?: RoomEvent[];
}

/** The rooms of another worker. */
export interface Away extends Rooms {
  /** Those that are hosted or joined here. */
  readonly rooms: ReadonlyMap<string, AwayRoom>;
  /** Uses this line from now on. Rooms that were known over another begin anew (`reset`). */
  connect(line: PeerLine): void;
  /** Takes a room over from a worker that ended: it begins anew. */
  adopt(name: string, room: AwayRoom): void;
  /** Asks once more for the rooms that could not begin anew. */
  retry(): void;
  /** An event of a room, from its home. */
  hear(room: string, event: RoomEvent): void;
  /** The rooms hosted here, with the listeners here; what their home knows is 0. */
  summaries(): RoomSummary[];
}

/** Who has joined a room here. */
export function namesOf({ joined }: AwayRoom): Names {
  return new Map(
    [...joined].flatMap(([member, { name }]) => name === undefined ? [] : [[member, name]]),
  );
}

/** Makes the rooms of another worker; {@link Away.connect} comes first. */
export function createAway(): Away {
  let line: PeerLine;
  const rooms = new Map<string, AwayRoom>();
  const lost = new Set<string>();

  function openRoom(name: string): AwayRoom {
    const room = rooms.get(name) ?? { joined: new Map() };
    rooms.set(name, room);
    return room;
  }

  function forgetIfUnused(name: string, room: AwayRoom): void {
    if (room.hosting || room.joined.size > 0) return;
    rooms.delete(name);
    lost.delete(name);
  }

  /** Answers with the head, and whether it is still wanted when it comes. */
  function askToHost(name: string, host?: Host) {
    const room = openRoom(name);
    const hosting: Hosting | undefined = host && { host, isOpen: false };
    room.hosting = hosting;
    return new Promise<{ head: Head | Refusal; isWanted: boolean }>((resolve) => {
      const next = (head: Head | Refusal) => {
        const isWanted = room.hosting === hosting;
        if (isWanted && hosting && !isRefusal(head)) open(room, hosting);
        resolve({ head, isWanted });
      };
      line.call(next, "host", name, namesOf(room));
    });
  }

  /** Lets events through from the next turn on: promises of the head come first. */
  function open(room: AwayRoom, hosting: Hosting): void {
    const held: RoomEvent[] = [];
    hosting.isOpen = true;
    hosting.held = held;
    setImmediate(() => {
      for (const event of held) if (room.hosting === hosting) hosting.host.deliver(event);
      hosting.held = undefined;
    });
  }

  async function move(name: string): Promise<void> {
    const host = rooms.get(name)?.hosting?.host;
    const { head, isWanted } = await askToHost(name, host);
    if (!isWanted || isRefusal(head)) return;
    lost.delete(name);
    if (host) host.deliver({ type: "reset", ...head });
    else line.tell("release", name);
  }

  const away: Away = {
    rooms,
    connect(next) {
      line = next;
      for (const [name, room] of rooms) away.adopt(name, room);
    },
    adopt(name, room) {
      rooms.set(name, room);
      lost.add(name);
      move(name);
    },
    retry() {
      for (const name of lost) move(name);
    },
    async host(name, host) {
      const { head, isWanted } = await askToHost(name, host);
      if (isWanted && isRefusal(head)) away.release(name);
      return head;
    },
    release(name) {
      const room = rooms.get(name);
      if (!room?.hosting) return;
      room.hosting = undefined;
      line.tell("release", name);
      forgetIfUnused(name, room);
    },
    publish: (room, draft) => line.ask("publish", room, draft),
    relay: (room, bytes, from) => line.tell("relay", room, bytes, from),
    async join(name, member, as) {
      const asked = line;
      const { joined } = openRoom(name);
      const known = joined.get(member) ?? { pending: 0 };
      joined.set(member, known);
      known.pending++;
      const refusal = await asked.ask("join", name, member, as);
      known.pending--;
      if (joined.get(member) !== known) return refusal;
      if (!refusal) known.name = as;
      else if (known.name !== undefined) asked.tell("join", name, member, known.name);
      else if (known.pending === 0) away.leave(name, member);
      return refusal;
    },
    leave(name, member) {
      const room = rooms.get(name);
      if (!room?.joined.delete(member)) return;
      line.tell("leave", name, member);
      forgetIfUnused(name, room);
    },
    members: (room) => line.ask("members", room),
    read: (room, after) => line.ask("read", room, after),
    hear(name, event) {
      const hosting = rooms.get(name)?.hosting;
      if (hosting?.held) hosting.held.push(event);
      else if (hosting?.isOpen) hosting.host.deliver(event);
    },
    summaries: () =>
      [...rooms].flatMap(([room, { hosting }]) =>
        hosting?.isOpen ? [{ room, members: 0, listeners: hosting.host.listenerCount, seq: 0 }] : []
      ),
  };
  return away;
}
