/**
 * What Parley asks of a log.
 *
 * @module
 */

/** What Parley asks of a log; LogTape, `console` and `@std/log` all have it. */
export type Log = Record<
  "debug" | "info" | "warn" | "error",
  (text: string, fields?: Record<string, unknown>) => void
>;

/** A log that keeps silent, for tests and for those who embed Parley. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };
