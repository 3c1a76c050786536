/**
 * Setters of a room's state who bind keys to their sockets and repeat what was not acked, viewers of
 * all of it, and the check that no key is lost, stays too long, or goes while its socket lives.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type Client as Viewer, connect } from "../../handlers/client/client.js";
import { Client, type Fields } from "../support/clients.ts";
import { eventually } from "../support/inbox.ts";

/** Where setters and viewers come to, and where the state can be read. */
export interface StateNode {
  urlOf(room: string): string;
  readonly port: number;
}

/** What keys with a short ttl live, in seconds. */
const BRIEF_SECONDS = 1;
const LONG_SECONDS = 3_600;
const REPEAT_AFTER_MS = 20;
/** Between two changes of one setter. */
const PAUSE_MS = 2;

interface Answer {
  epoch: string;
  rev: number;
  entries: { key: string; value: number; time: number; rev: number }[];
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Traffic in one room. Dispose of it before the nodes. */
export class StateTraffic implements AsyncDisposable {
  /** Key by key, the last value that was acked. */
  readonly #acked = new Map<string, number>();
  /** Bound keys that were asked for on sockets that live: how many changes those had acked since. */
  readonly #living = new Map<string, number>();
  readonly #viewers: Viewer<unknown, number>[];
  readonly #setters: Promise<void>[] = [];
  readonly #errors: string[] = [];
  #epoch = "";
  #rev = 0;
  /** No new changes; those that are not acked are repeated. */
  #isOver = false;
  /** Nothing is repeated any more. */
  #isDisposed = false;

  /** Has `setters` a node begin, and one viewer a node. */
  constructor(readonly nodes: StateNode[], readonly room: string, setters = 2) {
    this.#viewers = nodes.map((node) => {
      let rev = 0;
      return connect<unknown, number>(node.urlOf(room), {
        state: true,
        onState: (change) => {
          if (change.rev < rev) this.#errors.push(`a viewer at ${rev} was told of ${change.rev}`);
          rev = change.rev;
        },
      });
    });
    for (const [index, node] of nodes.entries()) {
      for (let i = 0; i < setters; i++) this.#setters.push(this.#set(node, `${index}.${i}`));
    }
  }

  /** How many bound keys live. */
  get boundCount(): number {
    return this.#living.size;
  }

  /** Settles when every setter has a socket, and nothing is left of sockets that have ended. */
  async untilOnlyLiving(node: StateNode): Promise<void> {
    await eventually(async () => {
      const bound = (await this.read(node)).entries.filter(({ key }) => key.startsWith("bound"));
      const left = bound.filter(({ key }) => !this.#living.has(key)).map(({ key }) => key);
      return { left, living: this.#living.size };
    }, ({ left, living }) => left.length === 0 && living === this.#setters.length);
  }

  /** Settles when what is there now of sockets that have ended is gone; tells how much that was. */
  async untilDeadAreGone(node: StateNode): Promise<number> {
    const isDead = ({ key }: { key: string }) => key.startsWith("bound") && !this.#living.has(key);
    const dead = new Set((await this.read(node)).entries.filter(isDead).map(({ key }) => key));
    await eventually(
      async () => (await this.read(node)).entries.filter(isDead).filter(({ key }) => dead.has(key)),
      (left) => left.length === 0,
    );
    return dead.size;
  }

  /** Reads the state from a node once it answers, and checks it. */
  async read(node: StateNode): Promise<Answer> {
    const living = new Map(this.#living);
    const acked = new Map(this.#acked);
    const rev = this.#rev;
    const url = () => `http://127.0.0.1:${node.port}/rooms/${this.room}/state`;
    let readAt = 0;
    const { answer } = await eventually(async () => {
      readAt = Date.now();
      const response = await fetch(url()).catch(() => undefined);
      return { status: response?.status, answer: await response?.json() as Answer };
    }, ({ status }) => status === 200);
    const values = new Map(answer.entries.map(({ key, value }) => [key, value]));
    if (this.#epoch) assertEquals(answer.epoch, this.#epoch);
    assert(answer.rev >= rev, `the state is at ${answer.rev}, ${rev} was acked`);
    for (const [key, value] of acked) {
      const now = values.get(key);
      assert(now !== undefined && now >= value, `${key} is ${now}, ${value} was acked`);
    }
    for (const { key, time } of answer.entries) {
      if (!key.startsWith("brief")) continue;
      assert(time + 1_000 * BRIEF_SECONDS > readAt - 50, `${key} outlived its ttl`);
    }
    for (const [key, acks] of living) if (!values.has(key)) await this.#mayBeGone(key, acks);
    return answer;
  }

  /** Ends the setters when their last change is acked: what was bound goes, and all see what is left. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#setters);
    const [node] = this.nodes;
    const { entries } = await eventually(
      () => this.read(node),
      ({ entries }) => entries.every(({ key }) => this.#acked.has(key)),
    );
    assertEquals(
      entries.map(({ key, value }) => [key, value]),
      [...this.#acked].sort(([a], [b]) => a < b ? -1 : 1),
    );
    const kept = JSON.stringify(entries.map(({ key, value }) => [key, value]));
    for (const viewer of this.#viewers) {
      await eventually(() => JSON.stringify([...viewer.state()].sort()), (map) => map === kept);
    }
    assertEquals(this.#errors, []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    this.#isDisposed = true;
    for (const viewer of this.#viewers) viewer.close();
    await Promise.all(this.#setters);
  }

  /** A bound key may be missing only if its socket ends without another ack. */
  async #mayBeGone(key: string, acks: number): Promise<void> {
    const now = await eventually(
      () => this.#living.get(key),
      (now) => now === undefined || now > acks + 1,
    );
    assertEquals(now, undefined, `${key} has gone, but its socket lives`);
  }

  async #set(node: StateNode, name: string): Promise<void> {
    const session = `session of setter ${name}`;
    /** Not acked yet: repeated with its id. */
    let change: Fields | undefined;
    let count = 0;
    for (let life = 0; !this.#isOver || (change && !this.#isDisposed); life++) {
      const bound = `bound/${name}/${life}`;
      let client: Client | undefined;
      try {
        client = await Client.open(node.urlOf(this.room), "parley.v1");
        client.send({ type: "join", name, session });
        await this.#ask(client, { type: "set", id: "b", key: bound, value: life, bind: true });
        this.#living.set(bound, 0);
        client.closed.then(() => this.#living.delete(bound));
        while (!this.#isOver || change) {
          count++;
          const next = [
            { key: `kept/${name}/${count % 5}` },
            { key: `long/${name}`, ttl: LONG_SECONDS },
            { key: `brief/${name}/${count % 7}`, ttl: BRIEF_SECONDS },
          ][count % 3];
          change ??= { type: "set", id: `${count}`, value: count, ...next };
          const { epoch, rev } = await this.#ask(client, change);
          this.#epoch ||= `${epoch}`;
          if (epoch !== this.#epoch) this.#errors.push(`epoch ${epoch} after ${this.#epoch}`);
          this.#rev = Math.max(this.#rev, rev as number);
          if (change.ttl !== BRIEF_SECONDS) {
            this.#acked.set(`${change.key}`, change.value as number);
          }
          change = undefined;
          const acks = this.#living.get(bound);
          if (acks !== undefined) this.#living.set(bound, acks + 1);
          await wait(PAUSE_MS);
        }
      } catch (error) {
        if (!/connect|closed|refused/i.test(`${error}`)) this.#errors.push(`${error}`);
        await wait(REPEAT_AFTER_MS);
      } finally {
        await client?.close();
      }
    }
  }

  /** The ack of a change; an answer that it may be lost, or the end of the socket, is an error. */
  async #ask(client: Client, change: Fields): Promise<Fields> {
    client.send(change);
    for (;;) {
      const answer = await client.nextObject();
      if (answer.type === "ack" && answer.id === change.id) return answer;
      if (answer.type === "error") throw new Error(`refused: ${answer.code}`);
    }
  }
}
