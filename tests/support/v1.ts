/**
 * What tests of `parley.v1` say and expect.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { Client, type Fields } from "./clients.ts";
import type { FakeSocket } from "./fakes.ts";

/** Connects in `parley.v1`, and takes the first thing heard: the `welcome`. */
export async function hear(url: string): Promise<{ client: Client; welcome: Fields }> {
  const client = await Client.open(url, "parley.v1");
  const welcome = await client.nextObject();
  assertEquals(welcome.type, "welcome");
  return { client, welcome };
}

/** Connects in `parley.v1` and joins under a name; what that caused is read. */
export async function joinAs(name: string, url: string, more: Fields = {}): Promise<Client> {
  const { client } = await hear(url);
  client.send({ type: "join", name, ...more });
  assertEquals((await client.nextObject()).name, name);
  return client;
}

/** The next object of a type; others before it are skipped. */
export async function nextOf(client: Client, type: string): Promise<Fields> {
  for (;;) {
    const object = await client.nextObject();
    if (object.type === type) return object;
  }
}

/** The next `count` objects. */
export async function take(client: Client, count: number): Promise<Fields[]> {
  const objects: Fields[] = [];
  while (objects.length < count) objects.push(await client.nextObject());
  return objects;
}

/** Sends several objects in one frame. */
export function sayAll(client: Client | FakeSocket, objects: (Fields | string)[]): void {
  const lines = objects.map((one) => typeof one === "string" ? one : JSON.stringify(one));
  if (client instanceof Client) client.send(lines.join("\n"));
  else client.say(lines.join("\n"));
}

/** Ends what the server had begun to say: what comes before this pong was due before it. */
export async function settled(client: Client): Promise<Fields[]> {
  client.send({ type: "ping", id: "settled" });
  const objects: Fields[] = [];
  for (;;) {
    const object = await client.nextObject();
    if (object.type === "pong" && object.id === "settled") return objects;
    objects.push(object);
  }
}

/** A `chat` without its `time`, which must be of these minutes. */
export function timeless({ time, ...chat }: Fields): Fields {
  assert(typeof time === "number" && Math.abs(Date.now() - time) < 60_000, `time is ${time}`);
  return chat;
}

/** The messages of all `chat` objects among these. */
export function messagesOf(objects: unknown[]): unknown[] {
  return (objects as Fields[]).filter(({ type }) => type === "chat").map(({ message }) => message);
}

/** The whole numbers from `first` to `last`. */
export function range(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index);
}
