/** Writes one line; `fields` are for machines. */
export type Write = (text: string, fields?: Record<string, unknown>) => void;

/** A log; LogTape, `console` and `@std/log` all have this shape. */
export interface Log {
  /** Missing where nobody reads such lines: then none is made, not even one a message. */
  debug?: Write;
  /** What happens. */
  info: Write;
  /** What somebody should look at. */
  warn: Write;
  /** What failed. */
  error: Write;
  /** Lines that were dropped because nobody read fast enough, where the log counts them. */
  readonly droppedCount?: number;
}

/** What a log says of an error, in one line: where it came from, too. Whatever was thrown, it does not throw. */
export function errorText(error: unknown): string {
  try {
    const text = error instanceof Error ? error.stack ?? error.message : error;
    return String(text).replace(/\s*\n\s*/g, " ");
  } catch {
    return "an error that cannot be shown";
  }
}

/** A log that writes nothing. */
export const silentLog: Log = { info() {}, warn() {}, error() {} };

/** A log whose failures are its own: what it throws stops nobody who writes a line. */
export function guardLog(log: Log): Log {
  const guard = (level: "debug" | "info" | "warn" | "error"): Write => (text, fields) => {
    try {
      const written: unknown = log[level]?.(text, fields);
      // An asynchronous log is a Write, too. There is no place left to say that it failed.
      if (written instanceof Promise) written.catch(() => {});
    } catch {
      // Here neither.
    }
  };
  return {
    debug: log.debug && guard("debug"),
    info: guard("info"),
    warn: guard("warn"),
    error: guard("error"),
    get droppedCount() {
      return log.droppedCount;
    },
  };
}
