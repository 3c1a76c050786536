/**
 * A stage for tests of the client: a played server, clients that write down what they hear, and the
 * objects of the server.
 *
 * @module
 */
import { assertEquals, assertRejects } from "@std/assert";
import { type Client, connect, type Options, ParleyError } from "../../handlers/client/client.js";
import { Inbox, soon } from "../support/inbox.ts";
import { FakeServer, type Json, type Peer } from "./fake_server.ts";

/** What a client's callbacks heard, in order. */
export type Heard = [kind: string, value: unknown];

/** A server that a test plays, and the clients that are connected to it. */
export class Stage {
  readonly clients: Client[] = [];

  constructor(readonly server: FakeServer) {}

  /** Connects a client that writes down what it hears. */
  connect(options: Options = {}, url: string | URL = this.server.url) {
    const heard = new Inbox<Heard>("a callback");
    const client = connect(url, {
      onMessage: (message) => heard.push(["message", message]),
      onStatus: (status) => heard.push(["status", status]),
      onWelcome: ({ seq }) => heard.push(["welcome", seq]),
      onGap: (gap) => heard.push(["gap", gap]),
      onConnection: (connection) => heard.push(["connection", connection]),
      onError: ({ code, message, room }) => heard.push(["error", { code, message, room }]),
      ...options,
    });
    this.clients.push(client);
    return { client, heard };
  }

  /** Connects Ann to `lobby`, where message 5 was the last: her join is read, her welcome heard. */
  async ann(options: Options = {}) {
    const { client, heard } = this.connect({ name: "Ann", ...options });
    const peer = await this.server.accept();
    const join = await peer.next();
    assertEquals(await heard.next(), ["connection", "open"]);
    peer.say(welcome());
    assertEquals(await heard.next(), ["welcome", 5]);
    return { client, heard, peer, join };
  }

  /** The next connection of a client, welcomed back, its join read. */
  async back(heard: Inbox<Heard>, more: Json = { recovered: true }): Promise<Peer> {
    const peer = await this.server.accept();
    await peer.next();
    assertEquals(await heard.next(), ["connection", "open"]);
    peer.say(welcome(more));
    return peer;
  }
}

/** A test on a stage; clients come back after the shortest waits that they may choose. */
export function play(name: string, act: (stage: Stage) => Promise<void>): void {
  Deno.test(name, async () => {
    const { random } = Math;
    Math.random = () => 0.01;
    await using server = new FakeServer();
    const stage = new Stage(server);
    try {
      await soon(act(stage), "the end of the test");
    } finally {
      for (const client of stage.clients) client.close();
      Math.random = random;
    }
  });
}

export function welcome(more: Json = {}): Json {
  return { type: "welcome", room: "lobby", epoch: "e", seq: 5, members: 1, ...more };
}

export function joined(name: string): Json {
  return {
    type: "status",
    room: "lobby",
    event: "join",
    name,
    members: 1,
    message: `${name} joined the chat.`,
  };
}

export function chat(seq: number, more: Json = {}): Json {
  return { type: "chat", room: "lobby", seq, time: 7, sender: "Bob", message: `m${seq}`, ...more };
}

export function heardChat(seq: number, more: Json = {}): Heard {
  const { type: _, ...message } = chat(seq, more);
  return ["message", { epoch: "e", ...message }];
}

export function ack(id: unknown, seq: number, more: Json = {}): Json {
  return { type: "ack", id, room: "lobby", epoch: "e", seq, ...more };
}

export function error(code: string, more: Json = {}): Json {
  return { type: "error", code, message: `Text of ${code}.`, ...more };
}

export const ids = (objects: Json[]) => objects.map(({ id }) => id);
export const said = (objects: Json[]) => objects.map(({ message }) => message);

export async function assertCode(promise: Promise<unknown>, code: string): Promise<void> {
  assertEquals((await assertRejects(() => promise, ParleyError)).code, code);
}
