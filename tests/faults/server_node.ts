/**
 * A whole server as a node of {@link Traffic}: a process of `main.ts`, reached through a proxy at an
 * address that stays the same, as through a load balancer. Senders speak `parley.v1` by hand;
 * listeners are the client that browsers load.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Draft, Engine, Host, Outcome, Refusal } from "../../handlers/engine/engine.ts";
import type { Span } from "../../handlers/protocol/page.ts";
import type { MaybePromise } from "../../handlers/util/maybe_promise.ts";
import type { Head } from "../../handlers/protocol/position.ts";
import { connect } from "../../handlers/client/client.js";
import { Client, type Fields } from "../support/clients.ts";
import { ServerProcess } from "../support/process.ts";
import { Proxy } from "../support/proxy.ts";
import type { TrafficNode } from "./traffic.ts";

/** No limit stands between a test and its traffic; every message is kept. */
const FLAGS = [
  ...["--host", "127.0.0.1", "--drain-seconds", "1"],
  ...["--message-rate", "0", "--byte-rate", "0", "--post-rate", "0", "--history-size", "1000000"],
  ...["--max-queue-bytes", "100000000"],
];

/** A server, and the clients that came to it. */
export class ServerNode implements TrafficNode, AsyncDisposable {
  readonly front = new Proxy(0);
  /** How often a listener lost its connection, or left it because of a hole. */
  reconnects = 0;
  readonly #clients: { close(): void }[] = [];
  /** The socket of each sender, by room and name. */
  readonly #senders = new Map<string, Client>();
  #process!: ServerProcess;
  #isRunning = false;

  private constructor(
    readonly env: Record<string, string>,
    readonly log?: Pick<Engine, "read">,
  ) {}

  /**
   * Starts a server with these settings.
   *
   * @param log reads what is kept where the server itself is not asked
   */
  static async start(
    env: Record<string, string>,
    log?: Pick<Engine, "read">,
  ): Promise<ServerNode> {
    const node = new ServerNode(env, log);
    await node.restart();
    return node;
  }

  /** Starts the server again if it has ended: clients that were elsewhere come back to it. */
  async restart(): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#process = await ServerProcess.start(FLAGS, { env: this.env });
    this.front.targetPort = this.port;
    this.front.cutAll();
  }

  /** Ends the server by a signal; whoever connects from now on comes to `other`, or to nobody. */
  async end(signal: Deno.Signal, other: ServerNode = this): Promise<Deno.CommandStatus> {
    this.front.targetPort = other.port;
    this.#isRunning = false;
    this.#process.kill(signal);
    return await this.#process.status;
  }

  /** Where the server itself listens. */
  get port(): number {
    return Number(new URL(this.#process.url).port);
  }

  /** The status of `/readyz`. */
  async readiness(): Promise<number> {
    const response = await fetch(`http://127.0.0.1:${this.port}/readyz`);
    await response.body?.cancel();
    return response.status;
  }

  /** Where clients find a room. */
  urlOf(room: string): string {
    return `ws://127.0.0.1:${this.front.port}/chat/${room}`;
  }

  host(room: string, host: Host): Promise<Head> {
    return new Promise((resolve) => {
      const client = connect(this.urlOf(room), {
        onWelcome: (welcome) => resolve({ rev: 0, ...welcome }),
        onMessage: ({ seq, time, sender, message }) =>
          host.deliver({
            type: "chat",
            chat: { seq, time, sender, message: JSON.stringify(message) },
          }),
        onConnection: (state) => state === "reconnecting" && this.reconnects++,
        onGap: ({ to }) => host.deliver({ type: "reset", ...to, rev: 0, members: 0 }),
      });
      this.#clients.push(client);
    });
  }

  /** Sends a message with its id; an end of the socket is `unavailable`, too: who asks again knows. */
  async publish(room: string, { sender, message, key }: Draft): Promise<Outcome> {
    const name = `${room} ${sender}`;
    try {
      const client = this.#senders.get(name) ?? await this.#join(room, sender, key!.session);
      this.#senders.set(name, client);
      client.send({ type: "chat", id: key!.id, message: JSON.parse(message) });
      let answer: Fields;
      do answer = await client.nextObject(); while (answer.id !== key!.id);
      if (answer.type === "ack") return { epoch: `${answer.epoch}`, seq: Number(answer.seq) };
      // Its join was refused as unavailable: it comes again.
      if (answer.code === "not_joined") throw new Error("closed: not joined");
      assertEquals([answer.type, answer.code], ["error", "unavailable"]);
    } catch (error) {
      await this.#senders.get(name)?.close();
      this.#senders.delete(name);
      if (!/connect|closed/i.test(`${error}`)) throw error;
    }
    return { refused: "unavailable" };
  }

  read(room: string): MaybePromise<Span | Refusal> {
    return this.log ? this.log.read(room) : this.#readPages(room);
  }

  /** Publishes over HTTP; an end of the connection is `unavailable`, as for {@link publish}. */
  async post(room: string, message: unknown, key: string): Promise<Outcome> {
    try {
      const response = await fetch(`http://127.0.0.1:${this.front.port}/rooms/${room}/messages`, {
        method: "POST",
        headers: { "content-type": "application/json", "idempotency-key": key },
        body: JSON.stringify({ message }),
      });
      const { epoch, seq } = await response.json();
      if (response.status === 202) return { epoch, seq };
      assertEquals(response.status, 503);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    return { refused: "unavailable" };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    for (const client of this.#senders.values()) await client.close();
    await this.#process[Symbol.asyncDispose]();
    await this.front[Symbol.asyncDispose]();
  }

  /** All that the server keeps of a room, a page at a time. */
  async #readPages(room: string): Promise<Span> {
    const url = `http://127.0.0.1:${this.port}/rooms/${room}/messages?limit=1000`;
    const { epoch } = await (await fetch(url)).json();
    const span: Span = { epoch, seq: 0, chats: [] };
    let count: number;
    do {
      const page = await (await fetch(`${url}&after=${epoch}:${span.seq}`)).json();
      span.seq = page.seq;
      count = page.messages.length;
      for (const { seq, time, sender, message } of page.messages) {
        span.chats.push({ seq, time, sender, message: JSON.stringify(message) });
      }
    } while (count > 0);
    return span;
  }

  async #join(room: string, name: string, session: string): Promise<Client> {
    const client = await Client.open(this.urlOf(room), "parley.v1");
    client.send({ type: "join", name, session });
    return client;
  }
}
