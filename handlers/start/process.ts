/** The process around a server: its failure to start, its signals, errors that nothing caught. */
import { systemClock, within } from "../util/clock.ts";
import { errorText, type Log } from "../util/log.ts";
import { SettingError } from "../util/setting_error.ts";
import type { ServerLog } from "./log.ts";

/** How long the last lines get: a reader of the log that stalls must not keep the process. */
const LAST_LINES_MS = 300;

/** Runs a command; what the person who started it can mend is one line, and exit code 1. */
export async function runCommand(command: () => Promise<void>): Promise<void> {
  try {
    await command();
  } catch (error) {
    const isOfPermissions = error instanceof Deno.errors.NotCapable;
    if (!(error instanceof SettingError) && !isOfPermissions) throw error;
    console.error(isOfPermissions ? `Cannot start: ${error.message}` : error.message);
    Deno.exit(1);
  }
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
    const text = errorText(error);
    // `deno serve` wants a default export, which Parley's start is not: it listens itself.
    if (text.includes("registerDeclarativeServer")) {
      console.error(
        "Cannot run under deno serve: start Parley with deno run -A main.ts, " +
          "or serve a file of your own with export default createParley()",
      );
      Deno.exit(1);
    }
    event.preventDefault();
    log.error(`Uncaught: ${text}`, { event: "uncaught" });
  };
  addEventListener("unhandledrejection", (event) => report(event, event.reason));
  addEventListener("error", (event) => report(event, event.error));
}
