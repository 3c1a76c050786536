/**
 * Commands as one types them.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { Journal, soon } from "./inbox.ts";

/** A command that has to end has so long: a first use may fetch a package. */
const END_MS = 60_000;

/** A command in a group of processes of its own; nothing of it outlives the object. */
export class Command implements AsyncDisposable {
  /** Its exit code, when all that it printed is read. */
  readonly code: Promise<number>;
  readonly #lines = new Journal<string>();
  readonly #child: Deno.ChildProcess;

  constructor(readonly text: string, cwd: string, env: Record<string, string> = {}) {
    const PATH = `${Deno.execPath().replace(/\/[^/]+$/, "")}:${Deno.env.get("PATH")}`;
    this.#child = new Deno.Command("sh", {
      args: ["-c", text],
      cwd,
      env: { NO_COLOR: "1", PATH, ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      detached: true,
    }).spawn();
    this.code = Promise.all([this.#read("stdout"), this.#read("stderr")]).then(async () => {
      this.#lines.end(new Error(`it has ended; it said: ${this.printed}`));
      return (await this.#child.status).code;
    });
  }

  /** What it printed so far, on both streams. */
  get printed(): string {
    return this.#lines.entries.join("\n");
  }

  /** A line that it printed or prints. */
  line(pattern: RegExp): Promise<string> {
    return this.#lines.find((line) => pattern.test(line), `${pattern} of "${this.text}"`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      Deno.kill(-this.#child.pid, "SIGTERM");
    } catch {
      // It ended by itself.
    }
    await this.code;
  }

  async #read(from: "stdout" | "stderr"): Promise<void> {
    let rest = "";
    for await (const chunk of this.#child[from].pipeThrough(new TextDecoderStream())) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.#lines.add(line);
    }
  }
}

/** Runs a command to its end, and gives what it printed. */
export async function run(
  text: string,
  cwd: string,
  env?: Record<string, string>,
): Promise<string> {
  await using command = new Command(text, cwd, env);
  assertEquals(await soon(command.code, text, END_MS), 0, `${text}: ${command.printed}`);
  return command.printed;
}
