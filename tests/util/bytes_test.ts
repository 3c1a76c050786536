import { assert, assertEquals } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { byteLength, cutBytes, exceedsBytes } from "../../handlers/util/bytes.ts";

const encoder = new TextEncoder();
/** Any UTF-16 text, lone surrogates included. */
const anyText = fc.array(fc.integer({ min: 0, max: 0xffff }))
  .map((units) => String.fromCharCode(...units));

Deno.test("byteLength() counts UTF-8 bytes", () => {
  assertEquals(byteLength(""), 0);
  assertEquals(byteLength("plain"), 5);
  assertEquals(byteLength("\x7f\x80"), 3);
  assertEquals(byteLength("안녕"), 6);
  assertEquals(byteLength("👋🏽"), 8);
  assertEquals(byteLength("\ud800"), 3);
});

Deno.test("byteLength() agrees with the encoder on any text", () => {
  fc.assert(fc.property(anyText, (text) => {
    assertEquals(byteLength(text), encoder.encode(text).length);
  }));
});

Deno.test("exceedsBytes() lets exactly the limit through", () => {
  for (const text of ["a".repeat(12), "é".repeat(6), "한".repeat(4), "👋".repeat(3)]) {
    assertEquals(encoder.encode(text).length, 12);
    assert(!exceedsBytes(text, 12));
    assert(exceedsBytes(text, 11));
  }
});

Deno.test("exceedsBytes() agrees with the encoder on any text and limit", () => {
  fc.assert(fc.property(anyText, fc.nat(40), (text, limit) => {
    assertEquals(exceedsBytes(text, limit), encoder.encode(text).length > limit);
  }));
});

Deno.test("cutBytes() cuts between characters, and never by halves of one", () => {
  assertEquals(cutBytes("abc", 3), "abc");
  assertEquals(cutBytes("abcd", 3), "abc");
  assertEquals(cutBytes("가나다", 8), "가나");
  assertEquals(cutBytes("a😀", 4), "a");
  assertEquals(cutBytes("x".repeat(1_000), 0), "");
});
