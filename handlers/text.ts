/**
 * Sizes of texts on the wire.
 *
 * @module
 */
const encoder = new TextEncoder();
// deno-lint-ignore no-control-regex
const notAscii = /[^\x00-\x7f]/;

/** The length of a text in UTF-8 bytes. */
export function byteLength(text: string): number {
  return notAscii.test(text) ? encoder.encode(text).length : text.length;
}

/** Whether a text is longer than `limit` UTF-8 bytes; counts bytes only where it must. */
export function exceedsBytes(text: string, limit: number): boolean {
  if (text.length > limit) return true;
  return text.length * 3 > limit && byteLength(text) > limit;
}
