/**
 * What Parley asks of a log.
 *
 * @module
 */

/** Writes one line; `fields` are for machines. */
type Write = (text: string, fields?: Record<string, unknown>) => void;

/** A log; LogTape, `console` and `@std/log` all have this shape. */
export interface Log {
  /** Missing where nobody reads such lines: then none is made, not even one a message. */
  debug?: Write;
  info: Write;
  warn: Write;
  error: Write;
  /** Lines that were dropped because nobody read fast enough, where the log counts them. */
  readonly droppedCount?: number;
}

/** A log that writes nothing. */
export const silentLog: Log = { info() {}, warn() {}, error() {} };
