/**
 * Stand-ins for time, sockets and the log, and a whole server of them without a port.
 *
 * @module
 */
import type { Socket, Upgrade } from "../../handlers/access/handshake.ts";
import { type App, type AppOptions, createApp, type RequestInfo } from "../../handlers/app.ts";
import type { Engine } from "../../handlers/engine/engine.ts";
import type { Registry } from "../../handlers/registry/registry.ts";
import { createRouter, type Fetch } from "../../handlers/router.ts";
import { defaultSettings, limitsAndAccess, type Settings } from "../../handlers/start/settings.ts";
import type { Clock } from "../../handlers/util/clock.ts";
import type { Log } from "../../handlers/util/log.ts";
import { Journal } from "./inbox.ts";

/** Time that stands still until {@link FakeClock.tick} turns its hands. */
export class FakeClock implements Clock {
  #now: number;
  /** By how much somebody has set the system's clock, in ms. */
  setByMs = 0;
  #timers = new Set<{ at: number; everyMs?: number; task: () => void }>();

  /** @param now Unix ms */
  constructor(now = Date.UTC(2026, 0, 1)) {
    this.#now = now;
  }

  /** How many tasks wait. */
  get timerCount(): number {
    return this.#timers.size;
  }

  now(): number {
    return this.#now + this.setByMs;
  }

  elapsedMs(): number {
    return this.now() - this.setByMs;
  }

  after(ms: number, task: () => void): () => void {
    return this.#add({ at: this.#now + ms, task });
  }

  every(ms: number, task: () => void): () => void {
    return this.#add({ at: this.#now + ms, everyMs: ms, task });
  }

  /** Lets `ms` go by: runs what falls due, in order of time, each at its own moment. */
  tick(ms: number): void {
    const end = this.#now + ms;
    while (true) {
      const [timer] = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
      if (!timer) break;
      this.#now = Math.max(this.#now, timer.at);
      if (timer.everyMs === undefined) this.#timers.delete(timer);
      else timer.at += Math.max(1, timer.everyMs);
      timer.task();
    }
    this.#now = end;
  }

  #add(timer: { at: number; everyMs?: number; task: () => void }): () => void {
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
}

/** What the server hears of a fake socket's peer, and what the peer got. */
export class FakeSocket implements Socket {
  binaryType: BinaryType = "blob";
  /** Rises with what is sent while {@link isStuck}; a test may set it. */
  bufferedAmount = 0;
  /** Whoever listens, by the event's type. */
  #listeners = new Map<string, EventListenerObject>();
  /** Every frame that the server sent, oldest first; bytes as a copy. */
  frames: (string | Uint8Array)[] = [];
  /** Every close that the server asked for. */
  closes: { code?: number; reason?: string }[] = [];
  /** The peer reads nothing: what is sent stays in `bufferedAmount`. */
  isStuck = false;
  /** What the next `send` throws, as the runtime's does when the connection is gone. */
  sendError?: Error;

  /** @param request the handshake, where there was one */
  constructor(readonly request?: Request) {}

  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): void {
    if (this.sendError) throw this.sendError;
    const frame = typeof data === "string" ? data : bytesOf(data);
    if (this.isStuck) {
      const bytes = typeof frame === "string" ? new TextEncoder().encode(frame) : frame;
      this.bufferedAmount += bytes.length;
    }
    this.frames.push(frame);
  }

  close(code?: number, reason?: string): void {
    this.closes.push({ code, reason });
  }

  /** The handshake is done. */
  open(): void {
    this.#tell(new Event("open"));
  }

  /** The peer sends text; anything but a string goes as JSON. */
  say(message: unknown): void {
    const data = typeof message === "string" ? message : JSON.stringify(message);
    this.#tell(new MessageEvent("message", { data }));
  }

  /** The peer sends a binary frame. */
  sayBytes(...bytes: number[]): void {
    const data = new Uint8Array(bytes).buffer;
    this.#tell(new MessageEvent("message", { data }));
  }

  /** The runtime tells the end of the connection. */
  end(code = 1000, reason = "", wasClean = true): void {
    this.#tell(new CloseEvent("close", { code, reason, wasClean }));
  }

  /** The runtime tells an error; {@link drop} tells the close behind it too. */
  fail(message = "Unexpected EOF"): void {
    this.#tell(new ErrorEvent("error", { message }));
  }

  /** The connection breaks, as Deno tells it: an error, then a close with code 0. */
  drop(message?: string): void {
    this.fail(message);
    this.end(0, "", false);
  }

  /** All objects that the server sent, those of merged frames one by one. */
  get objects(): unknown[] {
    return this.frames.filter((frame) => typeof frame === "string")
      .flatMap((frame) => frame.split("\n")).map((line) => JSON.parse(line));
  }

  /** The frames so far, which are forgotten. */
  take(): (string | Uint8Array)[] {
    return this.frames.splice(0);
  }

  addEventListener(type: string, listener: unknown): void {
    this.#listeners.set(type, listener as EventListenerObject);
  }

  removeEventListener(type: string): void {
    this.#listeners.delete(type);
  }

  #tell(event: Event): void {
    this.#listeners.get(event.type)?.handleEvent(event);
  }
}

function bytesOf(data: ArrayBufferLike | Blob | ArrayBufferView): Uint8Array {
  if (data instanceof Blob) throw new TypeError("Cannot send a Blob over a fake socket");
  return ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice()
    : new Uint8Array(data).slice();
}

/** One line of a {@link RecordingLog}. */
export interface LogLine {
  level: keyof Log;
  text: string;
  fields: Record<string, unknown>;
}

/** A log that keeps its lines, and that a test can wait on. */
export class RecordingLog implements Log {
  readonly #journal = new Journal<LogLine>();
  readonly debug?: Log["info"];
  readonly info = this.#write("info");
  readonly warn = this.#write("warn");
  readonly error = this.#write("error");

  /** @param isDebug whether it keeps lines of level `debug` */
  constructor(isDebug = false) {
    if (isDebug) this.debug = this.#write("debug");
  }

  get lines(): LogLine[] {
    return this.#journal.entries;
  }

  /** The `event` field of each line. */
  get events(): unknown[] {
    return this.lines.map(({ fields }) => fields.event);
  }

  /** The lines of an event. */
  of(event: string): LogLine[] {
    return this.lines.filter(({ fields }) => fields.event === event);
  }

  /** The first line of this event, written or to come, that `test` takes. */
  when(
    event: string,
    test: (fields: Record<string, unknown>) => boolean = () => true,
  ): Promise<LogLine> {
    const isIt = ({ fields }: LogLine) => fields.event === event && test(fields);
    return this.#journal.find(isIt, `"${event}" in the log`);
  }

  #write(level: keyof Log): Log["info"] {
    return (text, fields = {}) => this.#journal.add({ level, text, fields });
  }
}

/** What a test brings itself; all else is a fake or a default. */
export interface TestAppOptions extends AppOptions {
  settings?: Partial<Settings>;
}

/** A whole server without a port. */
export interface TestApp {
  app: App;
  router: Fetch;
  registry: Registry;
  engine: Engine;
  settings: Settings;
  clock: FakeClock;
  /** Empty if the test brought its own log. */
  log: RecordingLog;
  /** Asks the router. A path stands for a URL on `http://parley.test`. */
  ask(path: string, init?: RequestInit, info?: RequestInfo): Promise<Response>;
  /** Shakes hands at a path. Throws the answer's text if the server refuses. */
  handshake(path: string, options?: HandshakeOptions): Promise<FakeSocket>;
  /** The same, and the socket is open. */
  connect(path: string, options?: HandshakeOptions): Promise<FakeSocket>;
}

/** How a fake socket knocks. */
export interface HandshakeOptions {
  dialect?: "plain" | "v1";
  headers?: Record<string, string>;
  info?: RequestInfo;
}

/** The headers of a good handshake. The key is RFC 6455's, 1.3. */
export function handshakeHeaders(dialect: "plain" | "v1" = "plain"): Record<string, string> {
  return {
    upgrade: "websocket",
    connection: "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    ...(dialect === "v1" && { "sec-websocket-protocol": "parley.v1" }),
  };
}

/** Makes a server of fakes; `overrides` replace what a test cares for. */
export function createTestApp(overrides: TestAppOptions = {}): TestApp {
  const settings = { ...defaultSettings(), ...overrides.settings };
  const clock = new FakeClock();
  const recording = new RecordingLog(settings.LOG_LEVEL === "debug");
  const sockets = new WeakMap<Response, FakeSocket>();
  const fakeUpgrade: Upgrade = (request) => {
    const socket = new FakeSocket(request);
    const response = new Response(null, { status: 101 });
    sockets.set(response, socket);
    return { socket, response };
  };
  const { settings: _, log = recording, upgrade = fakeUpgrade, ...options } = overrides;
  const app = createApp({
    ...limitsAndAccess(settings),
    ...options,
    log,
    clock,
    upgrade,
  });
  const { registry } = app;
  const router = createRouter(app);
  const ask: TestApp["ask"] = (path, init, info) =>
    router(new Request(new URL(path, "http://parley.test"), init), info);
  const handshake: TestApp["handshake"] = async (path, { dialect, headers, info } = {}) => {
    const response = await ask(path, {
      headers: { ...handshakeHeaders(dialect), ...headers },
    }, info);
    const socket = sockets.get(response);
    if (!socket) throw new Error(`${response.status} ${await response.text()}`);
    return socket;
  };
  const connect: TestApp["connect"] = async (path, options) => {
    const socket = await handshake(path, options);
    socket.open();
    return socket;
  };
  return {
    app,
    router,
    registry,
    engine: registry.engineOf(""),
    settings,
    clock,
    log: recording,
    ask,
    handshake,
    connect,
  };
}

/** A peer's address. */
export function infoOf(hostname: string, port = 50_000): RequestInfo {
  return { remoteAddr: { transport: "tcp", hostname, port } };
}
