/** What the room `_events` says of members: EVENTS. `handlers/README.md`, Events. */
import type { Chat } from "../protocol/room_event.ts";

/** What may be said: somebody came or went, a room got its first member or lost its last one. */
export const MEMBER_EVENTS: readonly MemberEvent[] = ["join", "leave", "occupied", "vacated"];

/** What is told of a room's members. */
export type MemberEvent = "join" | "leave" | "occupied" | "vacated";

/** Who came or went, and how many are in the room now. */
export interface MemberChange {
  event: "join" | "leave";
  room: string;
  /** Missing only where nobody knows it any more. */
  name?: string;
  user?: string;
  members: number;
}

/** The sender of what the room `_events` says. */
export const EVENTS_SENDER = "server";

/** What a change is said as: JSON texts, numbered from `n` on. */
export function eventTexts(
  wanted: readonly MemberEvent[],
  { event, room, name, user, members }: MemberChange,
  n: number,
): string[] {
  const person = { event, name, user };
  const all = event === "join"
    ? [...(members === 1 ? [{ event: "occupied" as const }] : []), person]
    : [person, ...(members === 0 ? [{ event: "vacated" as const }] : [])];
  return all.filter(({ event }) => wanted.includes(event))
    .map(({ event, ...who }, i) => JSON.stringify({ event, room, n: n + i, ...who, members }));
}

/** The leaving of all who had joined, as the kept events tell it, and whom a restart took; and their highest `n`. */
export function leftBehind(chats: Chat[]): { changes: MemberChange[]; lastNumber: number } {
  let lastNumber = 0;
  const rooms = new Map<string, Pick<MemberChange, "name" | "user">[]>();
  for (const { message } of chats) {
    const { event, room, n, name, user, members } = JSON.parse(message);
    lastNumber = Math.max(lastNumber, n);
    const joined = rooms.get(room) ?? [];
    rooms.set(room, joined);
    if (event === "join") joined.push({ name, user });
    if (event === "leave") {
      // Who took another name left under it.
      const index = joined.findIndex((one) =>
        user === undefined ? one.name === name && !one.user : one.user === user
      );
      joined.splice(Math.max(0, index), 1);
    }
    if (members === 0) rooms.delete(room);
  }
  const changes = [...rooms].flatMap(([room, joined]) => {
    // Where only `occupied` is said, nobody knows who it was.
    const left = joined.length > 0 ? joined : [{}];
    return left.map((one, i) => (
      { event: "leave" as const, room, ...one, members: left.length - 1 - i }
    ));
  });
  return { changes, lastNumber };
}
