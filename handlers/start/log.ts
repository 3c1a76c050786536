/**
 * The log: one line an event, through LogTape.
 *
 * @module
 */
import {
  configureSync,
  getConsoleSink,
  getJsonLinesFormatter,
  getLogger,
  getTextFormatter,
  type LogLevel,
  resetSync,
} from "@logtape/logtape";
import type { Log } from "../util/log.ts";

/** The levels of LOG_LEVEL, the most talkative first. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

/**
 * Sets LogTape up and gives the log: lines of text, or of JSON with the fields beside the text.
 *
 * @param worker which worker of several writes
 */
export function createLog(
  level: typeof LOG_LEVELS[number],
  format: "text" | "json",
  worker?: number,
): Log {
  const formatter = format === "json"
    ? getJsonLinesFormatter({ properties: "flatten" })
    : getTextFormatter({
      category: () => worker === undefined ? "parley" : `parley ${worker}`,
      value: String,
    });
  const lowestLevel: LogLevel = level === "warn" ? "warning" : level;
  resetSync();
  configureSync({
    sinks: { console: getConsoleSink({ formatter }) },
    loggers: [
      { category: "parley", lowestLevel, sinks: ["console"] },
      {
        category: ["logtape", "meta"],
        lowestLevel: "warning",
        sinks: ["console"],
      },
    ],
  });
  const logger = getLogger("parley");
  const write =
    (severity: "debug" | "info" | "warn" | "error") =>
    (text: string, fields?: Record<string, unknown>) =>
      logger[severity](toTemplate(text), worker === undefined ? fields : { ...fields, worker });
  return {
    debug: level === "debug" ? write("debug") : undefined,
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
  };
}

/** The text as LogTape's template: no brace is a placeholder, no character starts or turns a line. */
function toTemplate(text: string): string {
  return text.replace(/[{}]/g, "$&$&").replace(
    /[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu,
    (character) => {
      const code = character.charCodeAt(0).toString(16);
      return code.length > 2 ? `\\u${code}` : `\\x${code.padStart(2, "0")}`;
    },
  );
}
