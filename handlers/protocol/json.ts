/** JSON that changes no number: what a double cannot hold is refused, all else goes out as it came. Pure. */

/** How deep a message's arrays and objects may nest; a deeper one is a `bad_message`. */
const MAX_DEPTH = 100;

/** Finds the few texts with a number that may need more digits or a smaller exponent than a double has. */
const MAY_BE_INEXACT = /\b\d[\d.]{15}|\de-\d{3}/i;
/** These numbers, whole, but for the sign; also what looks like one in a string. */
const LONG_NUMBERS = /\b\d[\d.]{15,}(?:e[-+]?\d+)?|\b\d[\d.]*e-\d{3,}/gi;
/** Finds the texts that have a zero, of whatever sign it was; also what looks like one in a string. */
const HAS_ZERO = /(?:^|[:,[])0(?:$|[,}\]])/;
/** JSON text as a value. Not in TypeScript's types yet: ES2026. */
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };

/**
 * `JSON.parse`, but for a number that a double would change, such as 9007199254740993 or 1e-400: it is
 * NaN, which {@link isShallow} refuses.
 */
export function parseJson(text: string): unknown {
  const isExact = !MAY_BE_INEXACT.test(text) || text.match(LONG_NUMBERS)?.every(isDouble);
  // A reviver is slow: only for a text that will be refused, or has such digits in a string.
  return isExact ? JSON.parse(text) : JSON.parse(text, exactly);
}

function exactly(_key: string, value: unknown, { source = "" }: { source?: string } = {}): unknown {
  return typeof value !== "number" || isDouble(source) ? value : NaN;
}

/** Whether a number's digits are those of its double: the fewest, as JSON has them, or 17, as C prints. */
function isDouble(source: string): boolean {
  const value = Number(source);
  if (String(value) === source) return true;
  const digits = digitsOf(source);
  return digits === digitsOf(String(value)) || digits === digitsOf(value.toPrecision(17));
}

/** The digits of a number from the first to the last that is not 0. */
function digitsOf(number: string): string {
  return /[1-9](?:\d*[1-9])?/.exec(number.replace(/[-.]|e.*/gi, ""))?.[0] ?? "";
}

/** `JSON.stringify`, but for -0, of which that makes 0. */
export function encodeJson(value: unknown): string {
  const text = JSON.stringify(value);
  return HAS_ZERO.test(text) && hasMinusZero(value) ? JSON.stringify(value, withSign) : text;
}

function hasMinusZero(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return Object.is(value, -0);
  return Object.values(value).some(hasMinusZero);
}

function withSign(_key: string, value: unknown): unknown {
  return Object.is(value, -0) ? rawJSON("-0") : value;
}

/** Whether a JSON value is an object. Its `__proto__` is a plain key: `JSON.parse` sets no prototype. */
export function isObject(data: unknown): data is Record<string, unknown> {
  return typeof data === "object" && data !== null && !Array.isArray(data);
}

/**
 * Whether a value can go out as it came: its numbers are finite (see {@link parseJson}), and it nests at most `depth` deep
 * (`JSON.stringify` recurses, `JSON.parse` does not).
 */
export function isShallow(value: unknown, depth: number = MAX_DEPTH): boolean {
  // A number like 1e400 would go out as null.
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || value === null) return true;
  if (depth === 0) return false;
  return Object.values(value).every((inner) => isShallow(inner, depth - 1));
}
