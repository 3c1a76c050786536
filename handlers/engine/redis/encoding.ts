/** How a room's channel, log and state carry texts of any content: packed as `{length} {text}`. */
import { Buffer } from "node:buffer";
import type { Chat, Entry as StateEntry, Note } from "../../protocol/room_event.ts";
import type { Person, Transient } from "../../protocol/room_event.ts";

/** An entry of a room's log as Redis gives it: its id `{seq}-{run}`, a field's name and its value. */
export type Entry = [id: string, field: [name: string, value: string]];

/** A key of the state with its last change, as Redis gives it: see {@link toEntry}. */
export type ChangedKey = [key: string, rev: number, time: number, senderAndValue: string];

/** What is published of an event that is not kept: `n{time} {packed sender}{message}`, or `b{packed from}{bytes}`. */
export function toPayload(event: Transient): string | Buffer {
  if (event.type === "note") {
    const { time, sender, message } = event.note;
    return `n${time} ${pack(sender)}${encodeText(message)}`;
  }
  const from = Buffer.from(event.from);
  return Buffer.concat([Buffer.from(`b${from.length} `), from, event.bytes]);
}

/** Marks a text that UTF-8 cannot carry, as it has half of a surrogate pair: JSON follows. */
const MARK = "\x01";

/** A text as Redis can carry it, told apart from every other one. */
export function encodeText(text: string): string {
  return text.isWellFormed() && text[0] !== MARK ? text : MARK + JSON.stringify(text);
}

function decodeText(text: string): string {
  return text[0] === MARK ? JSON.parse(text.slice(1)) : text;
}

/** Packs a text of any content so that more can follow: `{length} {text}`. */
export function pack(text: string): string {
  const encoded = encodeText(text);
  return `${encoded.length} ${encoded}`;
}

/** The text packed at `start`, and where it ends. */
function unpack(packed: string, start = 0): { text: string; end: number } {
  const space = packed.indexOf(" ", start);
  const end = space + 1 + Number(packed.slice(start, space));
  return { text: decodeText(packed.slice(space + 1, end)), end };
}

/** All texts that are packed from `start` on. */
export function unpackAll(packed: string, start = 0): string[] {
  const texts: string[] = [];
  for (let end = start; end < packed.length;) {
    const next = unpack(packed, end);
    texts.push(next.text);
    end = next.end;
  }
  return texts;
}

/** One of the people of a room: `{sockets} {name}{user}`. */
export function toPerson(packed: string): Person {
  const space = packed.indexOf(" ");
  const sockets = Number(packed.slice(0, space));
  const [name, user] = unpackAll(packed, space + 1);
  return user === undefined ? { name, sockets } : { name, user, sockets };
}

/** The message of a log entry's value, `{time} {packed sender}{message}`. */
export function toNote(entry: string): Note {
  const space = entry.indexOf(" ");
  const { text: sender, end } = unpack(entry, space + 1);
  return { time: Number(entry.slice(0, space)), sender, message: decodeText(entry.slice(end)) };
}

/** The last change of a key of the state. */
export function toEntry([key, rev, time, senderAndValue]: ChangedKey): StateEntry {
  const { text: sender, end } = unpack(senderAndValue);
  return { key, value: decodeText(senderAndValue.slice(end)), sender, time, rev };
}

/** The messages of log entries; if several have one number, the last one counts. */
export function toChats(entries: Entry[]): Chat[] {
  const chats: Chat[] = [];
  for (const [id, [, value]] of entries) {
    const seq = parseInt(id);
    if (chats.at(-1)?.seq === seq) chats.pop();
    chats.push({ seq, ...toNote(value) });
  }
  return chats;
}
