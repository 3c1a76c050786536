/**
 * Rooms that are at home in this worker, and the workers that use them.
 *
 * @module
 */
import type { RoomEvent } from "../protocol/room_event.ts";
import { chain } from "../util/maybe_promise.ts";
import { type Engine, type Host, isRefusal } from "./engine.ts";

/** What a worker does with rooms, wherever they are at home. */
export type Rooms = Pick<
  Engine,
  "host" | "release" | "publish" | "relay" | "join" | "leave" | "members" | "read"
>;

/** Names by member: those who have joined one room through one worker. */
export type Names = Map<string, string>;

/** What one worker, this one or another, has to do with the rooms here. */
export interface Guest extends Rooms {
  /** Joins those who had joined before the room's home was lost: nobody hears of it. */
  rejoin(room: string, names: Names): void;
  /** The worker is gone: it hosts nothing, and those who joined through it leave. */
  end(): void;
}

/** The one host that the memory engine knows of a room: it stands for each guest's. */
class HomeRoom implements Host {
  readonly hosts = new Map<Guest, Host>();
  isMuted = false;

  deliver(event: RoomEvent): void {
    if (this.isMuted) return;
    for (const host of this.hosts.values()) host.deliver(event);
  }

  get listenerCount(): number {
    return this.hosts.values().reduce((sum, host) => sum + host.listenerCount, 0);
  }
}

/** Lets several workers use the rooms of one memory engine: answers a function that adds a guest. */
export function shareRooms(memory: Engine): () => Guest {
  const hosted = new Map<string, HomeRoom>();
  return () => {
    const members = new Map<string, Set<string>>();
    const guest: Guest = {
      host(room, host) {
        const homeRoom = hosted.get(room) ?? new HomeRoom();
        return chain(memory.host(room, homeRoom), (head) => {
          if (isRefusal(head)) return head;
          hosted.set(room, homeRoom);
          homeRoom.hosts.set(guest, host);
          return head;
        });
      },
      release(room) {
        const hosts = hosted.get(room)?.hosts;
        if (!hosts?.delete(guest) || hosts.size > 0) return;
        hosted.delete(room);
        memory.release(room);
      },
      publish: (room, draft) => memory.publish(room, draft),
      relay: (room, bytes, from) => memory.relay(room, bytes, from),
      join: (room, member, name) =>
        chain(memory.join(room, member, name), (refusal) => {
          if (refusal) return refusal;
          const joined = members.get(room);
          if (joined) joined.add(member);
          else members.set(room, new Set([member]));
        }),
      rejoin(room, names) {
        const homeRoom = hosted.get(room);
        if (homeRoom) homeRoom.isMuted = true;
        for (const [member, name] of names) guest.join(room, member, name);
        if (homeRoom) homeRoom.isMuted = false;
      },
      leave(room, member) {
        const joined = members.get(room);
        if (!joined?.delete(member)) return;
        if (joined.size === 0) members.delete(room);
        memory.leave(room, member);
      },
      members: (room) => memory.members(room),
      read: (room, after) => memory.read(room, after),
      end() {
        for (const room of hosted.keys()) guest.release(room);
        for (const [room, joined] of members) {
          for (const member of joined) guest.leave(room, member);
        }
      },
    };
    return guest;
  };
}

/** Which of the workers is a room's home: the one with the highest hash of room and index. */
export function homeOf(room: string, workers: number[]): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < room.length; i++) {
    hash = Math.imul(hash ^ room.charCodeAt(i), 0x01000193);
  }
  let home = 0;
  let highest = -1;
  for (const index of workers) {
    const score = mix(hash ^ Math.imul(index + 1, 0x9e3779b9));
    if (score > highest) [home, highest] = [index, score];
  }
  return home;
}

/** MurmurHash3's last step: each bit of `hash` counts in all bits of the answer. */
function mix(hash: number): number {
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return (hash ^ hash >>> 16) >>> 0;
}
