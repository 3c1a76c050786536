/**
 * The kinds of settings: how a text becomes a value, and what a text must be.
 *
 * @module
 */

/** One setting: its variable is NAME, its flag `--name`. */
export interface Setting<T> {
  default: T;
  /** What it means, with its unit. */
  meaning: string;
  /** How the default is shown, where it is not the value itself. */
  shown?: string;
  /** The value; nothing if the text is none. */
  read(text: string): T | undefined;
  /** What a text must be: "a whole number from 0 to 65535". */
  kind: string;
}

/** A whole number from `min` to `max`. */
export function number(value: number, max: number, meaning: string, min = 0): Setting<number> {
  return {
    default: value,
    meaning,
    kind: `a whole number from ${min} to ${max}`,
    read(text) {
      const number = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
      return number >= min && number <= max ? number : undefined;
    },
  };
}

/** Any text. */
export function text(value: string, meaning: string, shown = "off"): Setting<string> {
  return {
    default: value,
    meaning,
    shown,
    kind: "a text",
    read: (text) => text,
  };
}

/** One of a few words. */
export function oneOf<const T extends string>(
  value: T,
  all: readonly T[],
  meaning: string,
): Setting<T> {
  return {
    default: value,
    meaning,
    kind: `one of ${all.join(", ")}`,
    read: (text) => all.find((one) => one === text),
  };
}

/** Texts with commas between, in lower case. `check` throws a SettingError for a list that cannot be used. */
export function list(
  value: readonly string[],
  meaning: string,
  check: (items: string[]) => void,
): Setting<string[]> {
  return {
    default: [...value],
    meaning,
    kind: "a list of texts",
    read(text) {
      const items = text.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean);
      if (items.length === 0) return [...value];
      check(items);
      return items;
    },
  };
}
