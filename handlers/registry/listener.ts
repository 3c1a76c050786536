/**
 * Whoever hears a room, and how one of them is told of its events in the dialect it speaks.
 *
 * @module
 */
import { plainChat, plainStatus, v1Chat, v1Status, welcome } from "../protocol/encode.ts";
import type { Cursor } from "../protocol/position.ts";
import type { Chat, RoomEvent } from "../protocol/room_event.ts";
import type { Connection } from "./connection.ts";

/** A listener that takes the room event by event: Server-Sent Events. */
export interface Reader {
  readonly dialect: "events";
  hasEnded: boolean;
  /** The room's `welcome`, with the place behind which the messages begin. */
  welcome(object: string, epoch: string, seq: number): void;
  /** A message as a v1 object, with its place. */
  chat(object: string, epoch: string, seq: number): void;
}

/** Whoever hears a room. */
export type Listener = Connection | Reader;

/** A place in a room's order, and how many have joined. */
export interface Place extends Cursor {
  members: number;
}

/** Gives a listener the room's `welcome`; `recovered` says whether all that it missed follows. */
export function tellWelcome(
  listener: Listener,
  room: string,
  place: Place,
  recovered?: boolean,
): void {
  const limits = listener.dialect === "events" ? undefined : listener.untoldLimits();
  const object = welcome(room, place, place.members, recovered, limits);
  if (listener.dialect === "events") listener.welcome(object, place.epoch, place.seq);
  else listener.tell(object);
}

/** Gives a message to a listener that does not speak the plain dialect. */
export function tellChat(listener: Listener, room: string, epoch: string, chat: Chat): void {
  const object = v1Chat(room, chat);
  if (listener.dialect === "events") listener.chat(object, epoch, chat.seq);
  else listener.tell(object);
}

/** Gives a binary frame to a listener, unless it came from there or the room is not its URL's. */
export function tellBytes(listener: Connection, room: string, bytes: Uint8Array, from: string) {
  if (listener.homeRoom !== room || listener.id === from) return;
  listener.flush();
  listener.send(bytes as Uint8Array<ArrayBuffer>);
}

/** Gives any event of a room to one listener; `epoch` is the room's. */
export function tellEvent(listener: Listener, room: string, epoch: string, event: RoomEvent): void {
  const { dialect } = listener;
  if (event.type === "chat") {
    if (dialect === "plain") listener.send(plainChat(event.chat));
    else tellChat(listener, room, epoch, event.chat);
  } else if (event.type === "reset") {
    if (dialect !== "plain") tellWelcome(listener, room, event, false);
  } else if (dialect === "events") return;
  else if (event.type === "binary") tellBytes(listener, room, event.bytes, event.from);
  else listener.tell(dialect === "plain" ? plainStatus(event) : v1Status(room, event));
}
