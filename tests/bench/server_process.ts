/** Starts processes pinned to one core, waits until a server listens, and ends it. */

import { cleanEnv } from "../support/process.ts";

/** Core of the servers. */
export const SERVER_CORE = 0;
/** Whichever core the system gives. */
export const ANY_CORE = "any";
/** Core of the load generator. */
export const LOAD_CORE = 1;

const START_SECONDS = 10;

/** A command line with what its environment has more. */
export interface CommandLine {
  args: string[];
  env?: Record<string, string>;
}

const canPin = navigator.hardwareConcurrency > 1 && await (async () => {
  try {
    const taskset = new Deno.Command("taskset", {
      args: ["--version"],
      stdout: "null",
    });
    return (await taskset.spawn().status).success;
  } catch {
    return false;
  }
})();

/** How processes are placed, for the report. */
export const placement = canPin
  ? `server on core ${SERVER_CORE}, load on core ${LOAD_CORE}`
  : "NOT PINNED: that needs taskset and two cores";

/** A command pinned to `core` with as many open files as this user may have. */
export function pinned(
  { args, env }: CommandLine,
  core: number | typeof ANY_CORE,
  stdout: "piped" | "null" = "piped",
): Deno.Command {
  const script = 'ulimit -n "$(ulimit -Hn)"; exec "$@"';
  const pin = canPin && core !== ANY_CORE ? ["taskset", "-c", String(core)] : [];
  return new Deno.Command("sh", {
    args: ["-c", script, "sh", ...pin, ...args],
    clearEnv: true,
    env: { ...cleanEnv(), ...env },
    stdin: "null",
    stdout,
    stderr: "piped",
  });
}

async function answers(address: number | string): Promise<boolean> {
  try {
    const connection = typeof address === "number"
      ? await Deno.connect({ hostname: "127.0.0.1", port: address })
      : await Deno.connect({ transport: "unix", path: address });
    connection.close();
    return true;
  } catch {
    return false;
  }
}

/** A server that runs. */
export class ServerProcess {
  /** From the start of its process until it took a connection. */
  readonly startMilliseconds: number;
  readonly #child: Deno.ChildProcess;
  readonly #errors: Promise<string>;
  /** In a folder of its own. */
  readonly #socketPath?: string;

  private constructor(
    child: Deno.ChildProcess,
    errors: Promise<string>,
    startMilliseconds: number,
    address: number | string,
  ) {
    this.#child = child;
    this.#errors = errors;
    this.startMilliseconds = startMilliseconds;
    if (typeof address === "string") this.#socketPath = address;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Settles when it has ended. */
  get ended(): Promise<unknown> {
    return this.#child.status;
  }

  /** Starts `command` and waits for it to listen on `address`. Throws with what it printed if it does not. */
  static async start(
    command: CommandLine,
    address: number | string,
    core: number | typeof ANY_CORE = SERVER_CORE,
  ): Promise<ServerProcess> {
    const start = performance.now();
    const child = pinned(command, core, "null").spawn();
    const errors = new Response(child.stderr).text();
    let ended = false;
    child.status.then(() => ended = true);
    while (!await answers(address)) {
      const waited = performance.now() - start;
      if (ended || waited > START_SECONDS * 1000) {
        if (!ended) child.kill("SIGKILL");
        throw new Error(
          `Cannot start ${command.args.join(" ")}: ${await errors}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const took = performance.now() - start;
    return new ServerProcess(child, errors, took, address);
  }

  /** Ends it. Returns what it printed to standard error. */
  async stop(): Promise<string> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // It ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.status;
    if (this.#socketPath) {
      await Deno.remove(new URL(".", `file://${this.#socketPath}`), { recursive: true });
    }
    return await this.#errors;
  }
}
