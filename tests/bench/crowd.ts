/** All connections of one measurement: opens them, joins the senders, sends and waits until all is heard. */

import { Client, type Target } from "./client.ts";
import { type Dialect, Ledger, senderName } from "./ledger.ts";
import { clientFrame, filler, MAX_SENDERS, OutgoingMessage, type TextShape } from "./text.ts";

const SETTLE_MS = 100;

/** Who connects to what. */
export interface CrowdOptions extends Target {
  dialect: Dialect;
  listeners: number;
  /** Rooms that are as large and open at the same time. @default {1} */
  rooms?: number;
  /** How many of the listeners send, spread evenly. For echo all do. */
  senders: number;
  text: TextShape;
  /** Listeners that don't send read at most once in so many ms, so that reading stays cheap. @default {0} */
  readEvery?: number;
  /** Without a word heard for this long, messages due are missing. @default {5} */
  stallSeconds?: number;
}

const CONNECT_AT_ONCE = 100;
const GRACE_MILLISECONDS = 20;
const ALL_BUFFERS_BYTES = 512 << 20;
const encoder = new TextEncoder();

/** The connections of one measurement. Any failure of any of them rejects {@linkcode Crowd.run}. */
export class Crowd {
  readonly ledger: Ledger;
  readonly options: CrowdOptions;
  /** Messages sent, by sender. */
  readonly sent: Int32Array;
  /** Called for each message a sender hears: its own number, then whose it was and which. */
  heardBySender: (own: number, sender: number, number: number) => void;
  /** Called for each message any listener hears. */
  heardByAny?: (sender: number, number: number) => void;
  /** When bytes last came, in ms of `performance.now()`; kept up while draining. */
  lastHeard = 0;

  /** What went wrong first. */
  failed?: Error;

  readonly #clients: Client[] = [];
  readonly #senderOf: Int32Array;
  readonly #speakers: Client[] = [];
  readonly #messages: OutgoingMessage[];
  readonly #speaking: number[] = [];
  #pause = Promise.withResolvers<void>();
  readonly #failure = Promise.withResolvers<never>();
  #draining = false;
  #pacer?: ReturnType<typeof setInterval>;

  constructor(options: CrowdOptions) {
    if (options.senders > MAX_SENDERS) {
      throw new RangeError(`Cannot mark ${options.senders} senders`);
    }
    this.options = options;
    this.ledger = new Ledger(options);
    this.sent = new Int32Array(options.senders);
    this.#senderOf = new Int32Array(options.listeners).fill(-1);
    for (let i = 0; i < options.senders; i++) {
      const place = (i + 0.5) * options.listeners / options.senders;
      this.#senderOf[Math.floor(place)] = i;
      this.#speaking.push(Math.floor(place));
    }
    const text = filler(options.text);
    const chat = options.dialect !== "echo";
    this.#messages = Array.from(
      this.sent,
      (_, i) => new OutgoingMessage(text, i, chat),
    );
    this.heardBySender = () => {};
    this.#failure.promise.catch(() => {});
  }

  /** `work`, or whatever went wrong meanwhile on any connection. */
  run<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#failure.promise]);
  }

  /** Resolves `milliseconds` later, or rejects with what went wrong meanwhile. */
  async sleep(milliseconds: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, milliseconds);
    try {
      await this.run(promise);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Connections that are open. */
  get connected(): number {
    return this.#clients.length;
  }

  /** Opens connections until there are `goal`, {@linkcode CONNECT_AT_ONCE} at a time. */
  async connect(goal = this.options.listeners): Promise<void> {
    const share = Math.floor(
      ALL_BUFFERS_BYTES / this.options.listeners / (this.options.rooms ?? 1),
    );
    const bufferBytes = this.options.senders === 0
      ? 512
      : Math.min(Math.max(share, 1 << 16), 1 << 18);
    let next = this.#clients.length;
    const opener = async () => {
      while (next < goal) {
        const listener = next++;
        this.#clients[listener] = await Client.connect(
          this.options,
          this.#events(listener),
          bufferBytes,
        );
      }
    };
    const openers = Array.from({ length: CONNECT_AT_ONCE }, opener);
    await this.run(Promise.all(openers));
    for (const [sender, listener] of this.#speaking.entries()) {
      this.#speakers[sender] = this.#clients[listener];
    }
  }

  /** Joins all senders; resolves when every listener has heard of every one. */
  async join(): Promise<void> {
    // The handshake's answer comes before a busy worker has the socket in its room, and the plain
    // dialect does not tell when.
    await this.sleep(SETTLE_MS);
    for (const [sender, client] of this.#speakers.entries()) {
      const join = { type: "join", name: senderName(sender) };
      client.send(clientFrame(encoder.encode(JSON.stringify(join))));
    }
    const due = this.sent.length;
    await this.#until(
      () => this.ledger.joins.every((heard) => heard >= due),
      () => this.ledger.joins.reduce((sum, heard) => sum + heard),
      () => `a listener heard of ${Math.min(...this.ledger.joins)} of ${due} joins`,
    );
  }

  /** Sends the next message of `sender`. */
  speak(sender: number): void {
    const client = this.#speakers[sender];
    const number = this.sent[sender]++;
    client.send(this.#messages[sender].frame(number, client.writing));
  }

  /** Deliveries up to now, told by the senders, who read without delay: the others hear as much. */
  delivered(): number {
    const { ledger, options } = this;
    if (options.dialect === "echo" || !options.senders) return ledger.total;
    const heard = this.#speaking.reduce((sum, i) => sum + ledger.heardBy(i), 0);
    return heard / options.senders * options.listeners;
  }

  /** Lets go of all who wait to read, now and every `readEvery` ms while `on`. */
  pace(on: boolean): void {
    clearInterval(this.#pacer);
    this.#pacer = undefined;
    if (on && this.options.readEvery) {
      this.#pacer = setInterval(() => this.#read(), this.options.readEvery);
    }
    this.#read();
  }

  #read(): void {
    this.#pause.resolve();
    this.#pause = Promise.withResolvers();
  }

  /** Resolves when all listeners have heard all that was sent; throws on what is missing or in another order. */
  async drain(): Promise<void> {
    this.#draining = true;
    this.pace(false);
    this.lastHeard = performance.now();
    const { ledger, sent } = this;
    const echo = this.options.dialect === "echo";
    const all = sent.reduce((sum, count) => sum + count, 0);
    const due = echo ? all : all * this.options.listeners;
    const finish = () => ledger.finish((i) => echo ? sent[i] : all);
    await this.#until(() => ledger.total >= due, () => ledger.total, () => {
      finish();
      return "";
    });
    finish();
    this.#draining = false;
  }

  /** Waits a moment in which nothing may come, for all was heard. */
  async settle(): Promise<void> {
    await this.sleep(GRACE_MILLISECONDS);
  }

  /** Ends all connections. */
  close(): void {
    this.pace(false);
    for (const client of this.#clients) client?.close();
  }

  /** Waits for `done`. Throws `complaint` when `progress` stands still for too long. */
  async #until(
    done: () => boolean,
    progress: () => number,
    complaint: () => string,
  ): Promise<void> {
    const patience = (this.options.stallSeconds ?? 5) * 1000;
    let last = -1;
    let since = performance.now();
    while (!done()) {
      await this.sleep(1);
      const now = progress();
      if (now !== last) [last, since] = [now, performance.now()];
      if (performance.now() - since > patience) throw new Error(complaint());
    }
  }

  #events(listener: number) {
    const { ledger } = this;
    const own = this.#senderOf[listener];
    const paced = this.options.readEvery && own < 0;
    return {
      pause: paced ? () => this.#pacer === undefined ? undefined : this.#pause.promise : undefined,
      line: (bytes: Uint8Array, from: number, to: number) => {
        const number = ledger.hear(listener, bytes, from, to);
        if (number < 0) return false;
        if (this.#draining) this.lastHeard = performance.now();
        if (this.heardByAny) this.heardByAny(ledger.sender, number);
        if (own >= 0) this.heardBySender(own, ledger.sender, number);
        return true;
      },
      failed: (error: Error) => {
        this.failed ??= new Error(`listener ${listener}: ${error.message}`, { cause: error });
        this.#failure.reject(this.failed);
      },
    };
  }
}
