/**
 * A redis-server of a test's own: on a free port, with its data in a directory of its own.
 *
 * @module
 */
import { type Clock, systemClock } from "../../handlers/util/clock.ts";
import { eventually } from "./inbox.ts";
import { cleanEnv, freePort } from "./process.ts";
import { type AddStep, alone, type Step } from "./together.ts";

const BINARY = "redis-server";

/** Whether a redis-server is installed. */
export const hasRedis = await isInstalled();

async function isInstalled(): Promise<boolean> {
  try {
    return (await new Deno.Command(BINARY, { args: ["--version"], stdout: "null" }).output())
      .success;
  } catch {
    return false;
  }
}

/** Registers a test that needs redis-server; without one it is shown as ignored, with the cure. */
export function redisTest(name: string, fn: Step["fn"], add: AddStep = alone): void {
  const cure = hasRedis ? "" : " (needs redis-server: apt-get install redis-server)";
  add(name + cure, fn, !hasRedis);
}

/** One server for all tests of a file, from which each gets a database of its own, by its URL. */
export function redisDatabases(): () => string {
  let server: RedisServer;
  let count = 0;
  if (hasRedis) {
    Deno.test.beforeAll(async () => void (server = await RedisServer.start({ databases: "1000" })));
    Deno.test.afterAll(() => server[Symbol.asyncDispose]());
  }
  return () => `${server.url}/${count++}`;
}

/** The machine's clock, but commands time out ten times later: a busy machine refuses nothing. */
export const patientClock: Clock = {
  ...systemClock,
  every: (ms, task) => systemClock.every(10 * ms, task),
};

/** Settings of redis-server by name, such as `appendfsync`. */
export type RedisSettings = Record<string, string>;

/** A running redis-server; disposing of it ends it and removes its data. */
export class RedisServer implements AsyncDisposable {
  #process?: Deno.ChildProcess;

  private constructor(
    readonly port: number,
    readonly directory: string,
    readonly settings: RedisSettings,
  ) {}

  /** Starts a server that appends to a file; `settings` over that. */
  static async start(settings: RedisSettings = {}): Promise<RedisServer> {
    const directory = await Deno.makeTempDir({ prefix: "parley-redis-" });
    const defaults = { appendonly: "yes", appendfsync: "everysec", save: "" };
    const port = Number(settings.port ?? freePort());
    const server = new RedisServer(port, directory, { ...defaults, ...settings });
    await server.start();
    return server;
  }

  /** Whether it was started and not stopped. */
  get isRunning(): boolean {
    return this.#process !== undefined;
  }

  /** Where to reach it. */
  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it (again), and waits until it has loaded its data. */
  async start(): Promise<void> {
    const { port, directory, settings } = this;
    const all = { port: String(port), bind: "127.0.0.1", dir: directory, ...settings };
    this.#process = new Deno.Command(BINARY, {
      args: Object.entries(all).flatMap(([name, value]) => [`--${name}`, value]),
      clearEnv: true,
      env: cleanEnv(),
      stdout: "null",
      stderr: "null",
    }).spawn();
    const isUp = (answer: string) => answer === "PONG";
    await eventually(() => this.command("PING").catch(String), isUp, `${BINARY} on port ${port}`);
  }

  /** Ends it: SIGKILL, as a crash, or SIGTERM. */
  async stop(signal: Deno.Signal = "SIGKILL"): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    if (!process) return;
    process.kill(signal);
    await process.status;
  }

  /** Runs one inline command; answers with the reply's first line, or what a bulk reply holds. */
  async command(...words: string[]): Promise<string> {
    const password = this.settings.requirepass;
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: this.port });
    const lines = [...password ? [["AUTH", password]] : [], words, ["QUIT"]];
    const request = lines.map((line) => line.map((word) => JSON.stringify(word)).join(" "));
    await connection.write(new TextEncoder().encode(request.join("\r\n") + "\r\n"));
    const reply = await new Response(connection.readable).text();
    const own = password ? reply.slice(reply.indexOf("\r\n") + 2) : reply;
    const end = own.indexOf("\r\n");
    if (own[0] !== "$") return own.slice(own[0] === "*" ? 0 : 1, end);
    return own.slice(end + 2, end + 2 + Number(own.slice(1, end)));
  }

  /** While it is stopped: cuts its append-only file off where `text` was written last. */
  async loseTail(text: string): Promise<void> {
    const path = this.#logPath;
    await Deno.truncate(path, (await Deno.readTextFile(path)).lastIndexOf(text));
  }

  /** While it is stopped: appends commands to its append-only file, of which the last is cut short. */
  async tearTail(...commands: string[][]): Promise<void> {
    const bulk = (word: string) => `$${new TextEncoder().encode(word).length}\r\n${word}\r\n`;
    const text = commands.map((words) => `*${words.length}\r\n${words.map(bulk).join("")}`).join(
      "",
    );
    await Deno.writeTextFile(this.#logPath, text.slice(0, -5), { append: true });
  }

  get #logPath(): string {
    const directory = `${this.directory}/appendonlydir`;
    const names = [...Deno.readDirSync(directory)].map(({ name }) => name);
    return `${directory}/${names.find((name) => name.endsWith(".incr.aof"))}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.directory, { recursive: true });
  }
}
