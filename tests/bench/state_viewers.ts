/**
 * Viewers of a room's state that cost the load generator little: what many get alike is parsed once.
 *
 * @module
 */
import { RawClient } from "../support/clients.ts";

/** A JSON object. */
export type Fields = Record<string, unknown>;
/** A value as the setters make it: its number, and when it was made, as {@link elapsedMs}. */
export type Value = { n: number; at: number };

const start = Date.now();
/** Since this program began: short, as a slow viewer has to read it in each value. */
export const elapsedMs = (): number => Date.now() - start;

const V1 = { "sec-websocket-protocol": "parley.v1" };
/** As many different frames are under way to viewers of one `every`. */
const KNOWN_FRAMES = 8;

/** A frame, and how many of its values were made when. */
interface Parsed {
  text: string;
  objects: Fields[];
  madeAt: Map<number, number>;
}

const known: Parsed[] = [];

function parse(text: string): Parsed {
  const same = known.find((parsed) => parsed.text === text);
  if (same) return same;
  const objects = text.split("\n").map((line) => JSON.parse(line));
  const madeAt = new Map<number, number>();
  for (const { value } of objects.flatMap(entriesOf)) {
    if (value) madeAt.set(value.at, (madeAt.get(value.at) ?? 0) + 1);
  }
  const parsed = { text, objects, madeAt };
  known.unshift(parsed);
  known.length = Math.min(known.length, KNOWN_FRAMES);
  return parsed;
}

function entriesOf(object: Fields): { key: string; value: Value | null }[] {
  if (object.type === "set") return [object as { key: string; value: Value | null }];
  return object.type === "state" ? object.entries as { key: string; value: Value }[] : [];
}

/** Keeps what it was told, and applies it when it is asked for the map. */
export class Viewer {
  /** How many values came at which age, in ms. */
  readonly ages = new Map<number, number>();
  rev = 0;
  bytes = 0;
  #told: Fields[] = [];

  take(text: string): void {
    this.bytes += text.length;
    const { objects, madeAt } = parse(text);
    const now = elapsedMs();
    for (const [at, count] of madeAt) {
      this.ages.set(now - at, (this.ages.get(now - at) ?? 0) + count);
    }
    for (const object of objects) {
      if (object.type !== "state" && object.type !== "set") continue;
      this.#told.push(object);
      if (!object.more) this.rev = object.rev as number;
    }
  }

  /** Key by key, the number of its value. */
  get map(): Map<string, number> {
    const map = new Map<string, number>();
    let isWhole = true;
    for (const object of this.#told) {
      if (isWhole && object.type === "state" && object.since === undefined) map.clear();
      isWhole = !object.more;
      for (const { key, value } of entriesOf(object)) {
        if (value) map.set(key, value.n);
        else map.delete(key);
      }
    }
    return map;
  }
}

/** The age that so much of all values is under. */
export function quantile(viewers: Viewer[], share: number): number {
  const ages = new Map<number, number>();
  for (const viewer of viewers) {
    for (const [age, count] of viewer.ages) ages.set(age, (ages.get(age) ?? 0) + count);
  }
  let left = share * [...ages.values()].reduce((sum, count) => sum + count, 0);
  for (const [age, count] of [...ages].sort(([a], [b]) => a - b)) {
    left -= count;
    if (left <= 0) return age;
  }
  return NaN;
}

/** Reads so many bytes a second, no more, and says what it got; settles when its connection ends. */
export async function readSlowly(url: string, viewer: Viewer, bytesASecond: number): Promise<void> {
  const { hostname, port, pathname, search } = new URL(url);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  const read = connection.read.bind(connection);
  connection.read = async (buffer) => {
    const count = await read(buffer.subarray(0, bytesASecond / 10));
    await new Promise((resolve) => setTimeout(resolve, 1_000 * (count ?? 0) / bytesASecond));
    return count;
  };
  const client = await RawClient.upgrade(connection, pathname + search, V1);
  for (;;) {
    viewer.take(await client.readText());
    if (viewer.rev > 0) await client.send(JSON.stringify({ type: "got", rev: viewer.rev }));
  }
}

/** Counts the bytes of a socket of a naive server. */
export class Counter {
  bytes = 0;
  #connection?: Deno.Conn;

  async open(url: string): Promise<void> {
    const { hostname, port, pathname } = new URL(url);
    const connection = this.#connection = await Deno.connect({ hostname, port: Number(port) });
    await RawClient.upgrade(connection, pathname);
    this.#count(connection);
  }

  close(): void {
    this.#connection?.close();
  }

  async #count(connection: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(262_144);
    for (;;) {
      const count = await connection.read(buffer).catch(() => null);
      if (count === null) return;
      this.bytes += count;
    }
  }
}
