/**
 * Programs in processes of their own, in an environment that nobody's settings reach.
 *
 * @module
 */
import { Journal, soon } from "./inbox.ts";

/** What `announce.ts` begins its line with; the URL follows. */
const LISTENING = "test server: ";

/** The folder of `main.ts`. */
export const ROOT: string = new URL("../..", import.meta.url).pathname;

/** What a program needs of this machine, and no more of the environment than that. */
const KEPT =
  /^(PATH|HOME|TMPDIR|DENO_DIR|XDG_CACHE_HOME|https?_proxy|no_proxy|npm_config_.*|\w*SSL_CERT\w*|\w*CA_(BUNDLE|CERTS))$/i;

/** The environment that programs start in; `deno` is this very Deno. */
export function cleanEnv(): Record<string, string> {
  const kept = Object.entries(Deno.env.toObject()).filter(([name]) => KEPT.test(name));
  const PATH = `${Deno.execPath().replace(/\/[^/]+$/, "")}:${Deno.env.get("PATH")}`;
  return { NO_COLOR: "1", ...Object.fromEntries(kept), PATH };
}

/** Where and in what a program runs. */
export interface ProcessOptions {
  cwd?: string;
  /** Over the clean environment. */
  env?: Record<string, string>;
  /** Whether a test types into it. */
  isTyped?: boolean;
}

/** A line that a process printed. */
export interface Line {
  to: "stdout" | "stderr";
  text: string;
}

/** A program, line by line; nothing of it outlives the object. */
export class TestProcess implements AsyncDisposable {
  /** How it ended, when all its lines are read. */
  readonly status: Promise<Deno.CommandStatus>;
  readonly #journal = new Journal<Line>();
  readonly #child: Deno.ChildProcess;
  readonly #input?: WritableStreamDefaultWriter<Uint8Array>;
  /** It has a group of processes of its own. */
  readonly #isGroup: boolean;

  /** @param command a line for the shell, or the arguments of this very Deno */
  constructor(
    command: string | string[],
    { cwd = ROOT, env, isTyped = false }: ProcessOptions = {},
  ) {
    this.#isGroup = typeof command === "string";
    const [program, args] = typeof command === "string"
      ? ["sh", ["-c", command]]
      : [Deno.execPath(), command];
    this.#child = new Deno.Command(program, {
      args,
      cwd,
      clearEnv: true,
      env: { ...cleanEnv(), ...env },
      stdin: isTyped ? "piped" : "null",
      stdout: "piped",
      stderr: "piped",
      detached: this.#isGroup,
    }).spawn();
    if (isTyped) this.#input = this.#child.stdin.getWriter();
    this.status = Promise.all([this.#read("stdout"), this.#read("stderr")]).then(async () => {
      this.#journal.end(new Error(`the process has ended; it said: ${this.lines().join(" | ")}`));
      await this.#input?.close().catch(() => {});
      return await this.#child.status;
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

  /** Types a line. */
  async type(line: string): Promise<void> {
    await this.#input?.write(new TextEncoder().encode(line + "\n"));
  }

  kill(signal: Deno.Signal): void {
    Deno.kill(this.#isGroup ? -this.pid : this.pid, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.kill("SIGKILL");
    } catch {
      // It ended by itself.
    }
    await this.status;
  }

  /** A line of the test's own is not one of the program's. */
  protected onOwnLine(_text: string): void {}

  async #read(to: Line["to"]): Promise<void> {
    let rest = "";
    for await (const chunk of this.#child[to].pipeThrough(new TextDecoderStream())) {
      const lines = (rest + chunk).split(/\r?\n/);
      rest = lines.pop()!;
      for (const text of lines) {
        if (text.startsWith(LISTENING)) this.onOwnLine(text);
        else this.#journal.add({ to, text });
      }
    }
    if (rest) this.#journal.add({ to, text: rest });
  }
}

/** Runs a program to its end, and gives what it printed on both streams. It must end with 0. */
export async function run(command: string | string[], options?: ProcessOptions): Promise<string> {
  await using process = new TestProcess(command, options);
  const { code } = await soon(process.status, `the end of ${command}`);
  const printed = process.lines().join("\n");
  const name = typeof command === "string" ? command : ["deno", ...command].join(" ");
  // Whoever sees the beginning or the end of it knows what failed.
  if (code !== 0) throw new Error(`${name}: exit code ${code}\n${printed}\n(printed by ${name})`);
  return printed;
}

/** A server in its own process, as a user starts it. */
export class ServerProcess extends TestProcess {
  readonly #url = Promise.withResolvers<string>();
  /** `http://localhost:port` */
  url = "";

  /** `ws://localhost:port` */
  get ws(): string {
    return this.url.replace("http", "ws");
  }

  /** Where it listens, in numbers. */
  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Runs `deno run {permissions} {script}` on a free port, and waits until it serves. */
  static async start(
    flags: string[] = [],
    { script = "main.ts", permissions = ["-A"], ...options }: ProcessOptions & {
      script?: string;
      permissions?: string[];
    } = {},
  ): Promise<ServerProcess> {
    const preload = ["--preload", `${ROOT}tests/support/announce.ts`];
    const args = ["run", ...permissions, ...preload, script, "--port", "0", ...flags];
    const server = new ServerProcess(args, options);
    try {
      server.url = await soon(
        Promise.race([
          server.#url.promise,
          server.status.then(() => Promise.reject(new Error("the server has ended"))),
        ]),
        "a server",
      );
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw new Error(`${(error as Error).message}; it said: ${server.lines().join(" | ")}`);
    }
  }

  protected override onOwnLine(text: string): void {
    this.#url.resolve(text.slice(LISTENING.length));
  }
}

/** How many ports a process of tests takes in turn, its own: none is given to two. */
const PORTS = 50;
const FIRST_PORT = 15_000 + (Deno.pid % 300) * PORTS;
let portsGiven = 0;

/**
 * A port that nobody uses, and that no client's own end gets by chance while the server is away:
 * below the range from which systems take those.
 */
export function freePort(): number {
  for (;;) {
    const port = FIRST_PORT + portsGiven++ % PORTS;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
