/** What settings can be: how a text is read, and what a person is told who wrote another. */
import { DEFAULT_LIMITS, type Limits } from "../access/limits.ts";

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
  /** Its name among the {@link Limits}. */
  limit?: keyof Limits;
}

type NumericLimit = {
  [Name in keyof Limits]-?: Limits[Name] extends number ? Name : never;
}[keyof Limits];

/** The largest number that a setting takes. */
export const LARGE = 1e15 - 1;

/** A whole number from `min` to `max`. */
export function number(value: number, meaning: string, max = LARGE, min = 0): Setting<number> {
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

/** One of the {@link Limits}. */
export function limit(name: NumericLimit, meaning: string, max?: number, min?: number) {
  return { ...number(DEFAULT_LIMITS[name], meaning, max, min), limit: name };
}

/** A text; off where it is empty and has no default. */
export function text(meaning: string, value = "", form = /^/, kind = "a text"): Setting<string> {
  const read = (text: string) => form.test(text) ? text : undefined;
  return { default: value, meaning, shown: value || "off", kind, read };
}

/** Some of a few words, with commas between them. */
export function someOf<const T extends string>(
  value: T[],
  all: readonly T[],
  meaning: string,
): Setting<T[]> {
  const isOne = (word: string): word is T => all.some((one) => one === word);
  return {
    default: value,
    meaning: `${meaning}: some of ${all.join(",")}`,
    shown: value.join(",") || "off",
    kind: `some of ${all.join(",")}`,
    read(text) {
      const words = text.split(",").map((word) => word.trim());
      return words.every(isOne) ? words : undefined;
    },
  };
}

/** One of a few words, in capitals or not. */
export function oneOf<const T extends string>(
  value: T,
  all: readonly T[],
  meaning: string,
): Setting<T> {
  return {
    default: value,
    meaning: `${meaning}: ${all.join(", ")}`,
    kind: `one of ${all.join(", ")}`,
    read: (text) => all.find((one) => one === text.toLowerCase().replace(/^warning$/, "warn")),
  };
}
