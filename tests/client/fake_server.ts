/**
 * A server played by a test object by object, and a clock that a test turns, for `client_test.ts`.
 *
 * @module
 */

import { Inbox } from "../support/inbox.ts";

/** What the server and the client say, as JSON objects. */
export type Json = Record<string, unknown>;

/** One connection of a client, seen from the server. */
export class Peer {
  readonly frames: string[] = [];
  readonly closed: Promise<CloseEvent>;
  #objects = new Inbox<Json>("an object from the client");

  constructor(readonly url: URL, readonly protocols: string, readonly socket: WebSocket) {
    socket.onmessage = ({ data }) => {
      this.frames.push(data);
      for (const line of data.split("\n")) this.#objects.push(JSON.parse(line));
    };
    const { promise, resolve } = Promise.withResolvers<CloseEvent>();
    this.closed = promise;
    socket.onclose = resolve;
  }

  /** The client's next object. */
  next(): Promise<Json> {
    return this.#objects.next();
  }

  /** The next `count` objects. */
  async some(count: number): Promise<Json[]> {
    const objects = [];
    while (objects.length < count) objects.push(await this.next());
    return objects;
  }

  /** Sends objects in one frame; a text goes as it is. */
  say(...objects: (Json | string)[]): void {
    this.socket.send(
      objects.map((object) => typeof object === "string" ? object : JSON.stringify(object))
        .join("\n"),
    );
  }

  /** Ends the connection, and waits until it has ended. */
  async cut(code = 1011, reason = ""): Promise<void> {
    this.socket.close(code, reason);
    await this.closed;
  }
}

/** A WebSocket server whose every word a test says. */
export class FakeServer implements AsyncDisposable {
  readonly #peers = new Inbox<Peer>("a connection");
  readonly #all: Peer[] = [];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  /** Answers instead of a handshake, and to each plain request. */
  door: (request: Request) => Response | Promise<Response> | undefined = () => undefined;
  /** What it answers the subprotocols with. */
  protocol = "parley.v1";
  /** Method and path of each request. */
  readonly requests: string[] = [];

  constructor(port = 0) {
    this.#server = Deno.serve(
      { port, hostname: "127.0.0.1", onListen: () => {} },
      (request) => this.#answer(request),
    );
  }

  get port(): number {
    return this.#server.addr.port;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  /** The next connection that opens. */
  accept(): Promise<Peer> {
    return this.#peers.next();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { socket } of this.#all) if (socket.readyState < 2) socket.close();
    await Promise.all(this.#all.map(({ closed }) => closed));
    await this.#server.shutdown();
  }

  #answer(request: Request): Response | Promise<Response> {
    const url = new URL(request.url);
    const isUpgrade = request.headers.get("upgrade") === "websocket";
    this.requests.push(`${isUpgrade ? "WS" : request.method} ${url.pathname}${url.search}`);
    const refusal = this.door(request);
    if (refusal) return refusal;
    if (!isUpgrade) {
      return Response.json({ type: "error", code: "x", message: "X" }, { status: 426 });
    }
    const protocols = request.headers.get("sec-websocket-protocol") ?? "";
    const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
    if (this.protocol) response.headers.set("sec-websocket-protocol", this.protocol);
    const peer = new Peer(url, protocols, socket);
    this.#all.push(peer);
    socket.onopen = () => this.#peers.push(peer);
    return response;
  }
}

interface Timer {
  at: number;
  everyMs?: number;
  run: () => void;
}

/** Stands in for time and chance: nothing is due until the test says so. */
export class FakeClock implements Disposable {
  /** What `Math.random` answers. */
  random = 1;
  /** The delay of each `setTimeout`, in the order they were set. */
  readonly timeouts = new Inbox<number>("a timeout");
  #timers = new Map<number, Timer>();
  #now = Math.round(performance.now());
  #lastId = 1_000_000;
  #undo: () => void;

  constructor() {
    const real = {
      setTimeout: globalThis.setTimeout,
      clearTimeout: globalThis.clearTimeout,
      setInterval: globalThis.setInterval,
      clearInterval: globalThis.clearInterval,
    };
    const { now } = performance;
    const { random } = Math;
    const clear = (id?: number) => void this.#timers.delete(id ?? 0);
    Object.assign(globalThis, {
      setTimeout: (run: () => void, ms = 0) => {
        this.timeouts.push(ms);
        return this.#add({ at: this.#now + ms, run });
      },
      setInterval: (run: () => void, ms: number) =>
        this.#add({ at: this.#now + ms, everyMs: ms, run }),
      clearTimeout: clear,
      clearInterval: clear,
    });
    performance.now = () => this.#now;
    Math.random = () => this.random;
    this.#undo = () => {
      Object.assign(globalThis, real);
      performance.now = now;
      Math.random = random;
    };
  }

  /** How many timers are set. */
  get size(): number {
    return this.#timers.size;
  }

  /** Lets time pass, and runs what is due, in order. */
  advance(ms: number): void {
    const end = this.#now + ms;
    while (true) {
      const [id, timer] = [...this.#timers].reduce<[number, Timer | undefined]>(
        (first, [id, timer]) => timer.at < (first[1]?.at ?? Infinity) ? [id, timer] : first,
        [0, undefined],
      );
      if (!timer || timer.at > end) break;
      this.#now = Math.max(this.#now, timer.at);
      if (timer.everyMs) timer.at += timer.everyMs;
      else this.#timers.delete(id);
      timer.run();
    }
    this.#now = end;
  }

  [Symbol.dispose](): void {
    this.#undo();
  }

  #add(timer: Timer): number {
    this.#timers.set(++this.#lastId, timer);
    return this.#lastId;
  }
}
