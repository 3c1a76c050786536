/** Who is in a room: subscribers hear it, members have joined it under a name. */
import type { Refusal } from "../engine/engine.ts";
import { BANS_ROOM, isServerRoom } from "../protocol/parse.ts";
import type { Wanted } from "../protocol/position.ts";
import { chain, type MaybePromise } from "../util/maybe_promise.ts";
import { Audience } from "./audience.ts";
import type { Room } from "./room.ts";
import { FORBIDDEN, type Rejection, type Sender } from "./sender.ts";
import type { Subscriber } from "./subscriber.ts";

/** A sender that also subscribes: a socket. */
export type Member = Sender & Subscriber;

type Answer = MaybePromise<Rejection | undefined>;

/** Subscribes: `welcome` first, then what was missed, then all that comes. */
export function subscribe(room: Room, subscriber: Subscriber, wanted: Wanted): Answer {
  // What waited behind a join is dropped when its socket ends.
  if (subscriber.hasEnded) return { refused: "unavailable" };
  if (subscriber.rooms.size >= room.registry.limits.maxRoomsPerConnection) {
    return { refused: "too_many_rooms" };
  }
  // A process hosts a room once, and this one is hosted by its bans.
  const mayHear = room.name !== BANS_ROOM && subscriber.rights.maySubscribe(room.name);
  if (!mayHear) return FORBIDDEN;
  const { rooms } = room.registry;
  const audience = rooms.get(room.name) ?? new Audience(room);
  rooms.set(room.name, audience);
  return audience.subscribe(subscriber, wanted);
}

/** Makes a socket a member under a name, subscribed if it was not. Refused, it stays as it was. */
export function join(
  room: Room,
  { name, size, ...wanted }: Wanted & { name?: string; size: number },
  from: Member,
): Answer {
  const enter = () => from.line.hold(() => askToJoin(room, name, wanted, from));
  return room.charge(from, { size, opensRoom: true }, enter);
}

function askToJoin(room: Room, asked: string | undefined, wanted: Wanted, from: Member): Answer {
  const { name = asked ?? "Anonymous", user } = from.rights;
  const isOther = asked !== undefined && asked !== name;
  if (isOther || !mayJoin(room, from)) return FORBIDDEN;
  return chain<string | Rejection, Rejection | undefined>(
    room.registry.hooks.join({ room: room.name, name, user, via: from.via }),
    (name) => {
      if (typeof name !== "string") return name;
      return mayJoin(room, from) ? joinAs(room, name, wanted, from) : FORBIDDEN;
    },
  );
}

function mayJoin({ name }: Room, { rights, hasEnded }: Member): boolean {
  return !isServerRoom(name) && rights.maySpeak(name) && !hasEnded;
}

function joinAs(room: Room, name: string, wanted: Wanted, subscriber: Subscriber): Answer {
  const known = subscriber.rooms.get(room.name);
  const opened: Answer = known ? known.refusal : subscribe(room, subscriber, wanted);
  return chain(opened, (refusal): Answer => {
    const subscription = subscriber.rooms.get(room.name);
    if (refusal || !subscription) return refusal;
    subscription.isJoining = true;
    const { user } = subscriber.rights;
    const joined = room.engine.join(room.name, subscriber.id, name, user);
    return chain(joined, (refusal: Refusal | undefined) => {
      subscription.isJoining = false;
      if (refusal && !known) leave(room, subscriber);
      if (refusal || !subscription.isCurrent) return refusal;
      if (subscription.name === undefined) room.registry.counters.members++;
      subscription.name = name;
      const { remote } = subscriber;
      const text = `Client joined: ${remote} is ${JSON.stringify(name)} in ${room.name}.`;
      room.registry.logClient("joined", text, { remote, name, room: room.name });
    });
  });
}

/** Ends a subscription, and the membership with it. */
export function leave(room: Room, subscriber: Subscriber): void {
  const subscription = subscriber.rooms.get(room.name);
  if (!subscription) return;
  subscription.audience.unsubscribe(subscription);
  const { name, isJoining } = subscription;
  if (name !== undefined || isJoining) room.engine.leave(room.name, subscriber.id);
  if (name === undefined) return;
  room.registry.counters.members--;
  const { remote, rights: { user } } = subscriber;
  const text = `Client left: ${remote} was ${JSON.stringify(name)} in ${room.name}.`;
  room.registry.logClient("left", text, { remote, name, room: room.name });
  room.registry.hooks.leave({ room: room.name, name, user, via: "socket" });
}
