/** The process around a server: its failure to start, its signals, errors that nothing caught. */
import { systemClock, within } from "../util/clock.ts";
import { errorText, type Log } from "../util/log.ts";
import { SettingError, toSettingError } from "./setting_error.ts";
import type { ServerLog } from "./log.ts";

/** How long the last lines get: a reader of the log that stalls must not keep the process. */
const LAST_LINES_MS = 300;

/** Runs a command; what the person who started it can mend is one line. Any error is exit code 1. */
export async function runCommand(command: () => Promise<void>): Promise<void> {
  try {
    await command();
  } catch (error) {
    const shown = toSettingError(error);
    const isOfPermissions = shown instanceof Deno.errors.NotCapable;
    const line = isOfPermissions ? `Cannot start: ${shown.message}` : shown;
    console.error(shown instanceof SettingError ? shown.message : line);
    Deno.exit(1);
  }
}

/**
 * Starts a server that listens itself, and says so under `deno serve`: that wants a default export with
 * a function `fetch`, and rejects the one of `main.ts` in the turn after it was read.
 */
export function startUnderRun(start: () => void): void {
  const refuse = ({ reason }: PromiseRejectionEvent) => {
    if (!errorText(reason).includes("Invalid type for fetch")) return;
    console.error(
      "Cannot run under deno serve: start Parley with deno run -A main.ts, " +
        "or serve a file of your own with export default createParley()",
    );
    Deno.exit(1);
  };
  addEventListener("unhandledrejection", refuse);
  setTimeout(() =>
    setTimeout(() => {
      removeEventListener("unhandledrejection", refuse);
      start();
    })
  );
}

/**
 * Has the runtime write long frames from where they are, for all sockets to come: otherwise each socket
 * keeps a buffer of its longest frame's size until it ends. `DENO_USE_WRITEV` in the environment wins.
 */
export function freeFrameBuffers(): void {
  if (Deno.env.get("DENO_USE_WRITEV") === undefined) Deno.env.set("DENO_USE_WRITEV", "1");
}

/** Runs `stop` and ends the process at the first SIGINT or SIGTERM; a second one ends it at once. */
export function onSignals(log: ServerLog, stop: () => Promise<void>): void {
  let isStopping = false;
  const end = async () => {
    if (isStopping) Deno.exit(1);
    isStopping = true;
    await stop();
    await within(systemClock, LAST_LINES_MS, log.flush());
    Deno.exit(0);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, end);
}

/** Keeps the process alive through an error that nothing caught: it costs a line of the log. */
export function onUncaught(log: Log): void {
  const report = (event: Event, error: unknown) => {
    event.preventDefault();
    log.error(`Uncaught: ${errorText(error)}`, { event: "uncaught" });
  };
  addEventListener("unhandledrejection", (event) => report(event, event.reason));
  addEventListener("error", (event) => report(event, event.error));
}
