/** Errors of a start, in the words of the person who starts the server. */
import { OptionError } from "../util/option_error.ts";
import type { Name } from "./settings.ts";

/** A start that cannot be: its message is one line. */
export class SettingError extends Error {
  override name = "SettingError";
}

/** The settings that a start gives as options of other names. */
const SETTING_OF: Record<string, Name> = {
  allowedOrigins: "ALLOWED_ORIGINS",
  file: "DATA_FILE",
  jwks: "AUTH_JWKS",
  roomRules: "ROOM_RULES",
  secret: "AUTH_SECRET",
  url: "REDIS_URL",
};

/** An error as a start shows it: one of an option names the setting that gave it. */
export function toSettingError(error: unknown): unknown {
  if (!(error instanceof OptionError)) return error;
  const { option, reason } = error;
  return new SettingError(`Cannot use ${SETTING_OF[option] ?? option}: ${reason}`);
}
