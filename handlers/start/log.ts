/** The log of a server that runs alone: one line an event, formatted by LogTape. */
import {
  configureSync,
  getJsonLinesFormatter,
  getLogger,
  getTextFormatter,
  type LogLevel,
  type LogRecord,
} from "@logtape/logtape";
import type { Log } from "../util/log.ts";
import { LineWriter, type Output } from "./line_writer.ts";

/** The levels of LOG_LEVEL, the most talkative first. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

/** A log that writes in the background. */
export interface ServerLog extends Log {
  readonly droppedCount: number;
  /** Waits until all lines are written. */
  flush(): Promise<void>;
}

/** Where a log goes to, and which worker of several writes. */
export interface LogOptions {
  worker?: number;
  /** Lines of level debug and info. @default Deno.stdout */
  stdout?: Output;
  /** Lines of level warn and error. @default Deno.stderr */
  stderr?: Output;
}

/** A longer text is cut: whatever a peer can make us write has a bound. */
const MAX_TEXT_LENGTH = 8_192;

/** Configures LogTape for the process, and makes the log: lines of text, or of JSON with the fields beside the text. */
export function createLog(
  level: typeof LOG_LEVELS[number],
  format: "text" | "json",
  { worker, stdout = Deno.stdout, stderr = Deno.stderr }: LogOptions = {},
): ServerLog {
  const formatter = format === "json"
    ? getJsonLinesFormatter({ properties: "flatten" })
    : getTextFormatter({
      category: () => worker === undefined ? "parley" : `parley ${worker}`,
      value: String,
    });
  const lowestLevel: LogLevel = level === "warn" ? "warning" : level;
  const onDropped = (count: number) =>
    log.warn(`Dropped ${count} log lines: they were not read fast enough`, { event: "dropped" });
  const out = new LineWriter(stdout, onDropped);
  const errors = new LineWriter(stderr, onDropped);
  const sink = (record: LogRecord) =>
    (record.level === "warning" || record.level === "error" ? errors : out)
      .write(formatter(record));
  configureSync({
    reset: true,
    sinks: { sink },
    loggers: [
      { category: "parley", lowestLevel, sinks: ["sink"] },
      { category: ["logtape", "meta"], lowestLevel: "warning", sinks: ["sink"] },
    ],
  });
  const logger = getLogger("parley");
  const write =
    (severity: typeof LOG_LEVELS[number]) => (text: string, fields?: Record<string, unknown>) =>
      logger[severity](toTemplate(text), worker === undefined ? fields : { ...fields, worker });
  const log: ServerLog = {
    debug: level === "debug" ? write("debug") : undefined,
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    get droppedCount() {
      return out.droppedCount + errors.droppedCount;
    },
    async flush() {
      await Promise.all([out.flush(), errors.flush()]);
    },
  };
  return log;
}

/** The text as LogTape's template: no brace is a placeholder, no character starts or turns a line. */
function toTemplate(text: string): string {
  return text.slice(0, MAX_TEXT_LENGTH).replace(/[{}]/g, "$&$&").replace(
    /[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu,
    (character) => {
      const code = character.charCodeAt(0).toString(16);
      return code.length > 2 ? `\\u${code}` : `\\x${code.padStart(2, "0")}`;
    },
  );
}
