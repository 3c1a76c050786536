/**
 * Servers for tests: one in this process, one in a process of its own.
 *
 * @module
 */
import { createApp } from "../../handlers/app.ts";
import { runApp } from "../../handlers/parley.ts";
import type { Registry } from "../../handlers/registry/registry.ts";
import { addressOf, listen } from "../../handlers/start/listen.ts";
import { parleyOptions } from "../../handlers/start/options.ts";
import { defaultSettings, type Settings } from "../../handlers/start/settings.ts";
import type { Log } from "../../handlers/util/log.ts";
import { Journal } from "./inbox.ts";

/** One line of the log. */
export interface LogEntry {
  level: keyof Log;
  text: string;
  fields: Record<string, unknown>;
}

/** A log that a test reads and waits on. */
export class RecordedLog implements Log {
  readonly #journal = new Journal<LogEntry>();

  readonly debug?: Log["info"];
  info = this.#writer("info");
  warn = this.#writer("warn");
  error = this.#writer("error");

  /** @param isDebug whether it keeps lines of level `debug` */
  constructor(isDebug = false) {
    if (isDebug) this.debug = this.#writer("debug");
  }

  get entries(): LogEntry[] {
    return this.#journal.entries;
  }

  /** The first entry of this event, written or to come, that `test` takes. */
  when(
    event: string,
    test: (fields: Record<string, unknown>) => boolean = () => true,
  ): Promise<LogEntry> {
    return this.#journal.find(
      ({ fields }) => fields.event === event && test(fields),
      `"${event}" in the log`,
    );
  }

  #writer(level: keyof Log): Log["info"] {
    return (text, fields = {}) => this.#journal.add({ level, text, fields });
  }
}

/** A server in this process. */
export interface TestServer extends AsyncDisposable {
  /** `http://127.0.0.1:port`, without a slash at the end. */
  readonly url: string;
  /** `ws://127.0.0.1:port` */
  readonly ws: string;
  readonly registry: Registry;
  readonly log: RecordedLog;
}

/** Starts a server in this process on a free port. Whoever is still connected at its end is closed. */
export async function startServer(settings: Partial<Settings> = {}): Promise<TestServer> {
  const log = new RecordedLog(settings.LOG_LEVEL === "debug");
  const all = { ...defaultSettings(), HOST: "127.0.0.1", PORT: 0, DRAIN_SECONDS: 0, ...settings };
  const app = createApp(await parleyOptions(all, log));
  const parley = runApp(app);
  const server = await listen({ settings: all, handler: parley.fetch, log, health: app.health });
  const url = addressOf(server.addr, all);
  return {
    url,
    ws: url.replace("http", "ws"),
    registry: app.registry,
    log,
    async [Symbol.asyncDispose]() {
      await parley[Symbol.asyncDispose]();
      await server.shutdown();
    },
  };
}

/** The folder of `main.ts`. */
export const ROOT: string = new URL("../..", import.meta.url).pathname;

/** A line that a process printed. */
export interface Line {
  to: "stdout" | "stderr";
  text: string;
}

/** A process of this very Deno, line by line. */
export class TestProcess implements AsyncDisposable {
  /** How it ended, when all its lines are read. */
  readonly status: Promise<Deno.CommandStatus>;
  readonly #journal = new Journal<Line>();
  readonly #child: Deno.ChildProcess;

  constructor(
    args: string[],
    { cwd = ROOT, env = {} as Record<string, string>, command = Deno.execPath() } = {},
  ) {
    this.#child = new Deno.Command(command, {
      args,
      cwd,
      env: { NO_COLOR: "1", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.status = Promise.all([this.#read("stdout"), this.#read("stderr")]).then(() => {
      this.#journal.end(new Error(`the process has ended; it said: ${this.lines().join(" | ")}`));
      return this.#child.status;
    });
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** The lines so far. */
  lines(to?: Line["to"]): string[] {
    return this.#journal.entries.filter((line) => !to || line.to === to).map(({ text }) => text);
  }

  /** The first line, or the nth, printed or to come, that matches. */
  async line(pattern: RegExp, nth = 1): Promise<string> {
    let seen = 0;
    const isIt = ({ text }: Line) => pattern.test(text) && ++seen === nth;
    const { text } = await this.#journal.find(
      isIt,
      nth === 1 ? `${pattern}` : `${pattern} #${nth}`,
    );
    return text;
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It ended by itself.
    }
    await this.status;
  }

  async #read(to: Line["to"]): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#child[to]) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const text of lines) this.#journal.add({ to, text });
    }
  }
}

/** A server in its own process, as a user starts it. */
export class ServerProcess extends TestProcess {
  /** `http://localhost:port`, from the line that it prints first. */
  url = "";

  /** `ws://localhost:port` */
  get ws(): string {
    return this.url.replace("http", "ws");
  }

  /** Runs `deno run -A {script}` on a free port, and waits until it listens. */
  static async start(
    flags: string[] = [],
    { script = "main.ts", ...options }: {
      script?: string;
      cwd?: string;
      env?: Record<string, string>;
    } = {},
  ): Promise<ServerProcess> {
    const server = new ServerProcess(["run", "-A", script, "--port", "0", ...flags], options);
    try {
      server.url = /https?:\/\/[^\s/]+/.exec(await server.line(/ started: /))![0];
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }
}
