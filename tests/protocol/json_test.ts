import { assert, assertEquals } from "@std/assert";
import fc from "npm:fast-check@4.10.2";
import { encodeJson, isShallow, parseJson } from "../../handlers/protocol/json.ts";

/** JSON of arrays in arrays, `depth` deep. */
const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);

Deno.test("isShallow() counts the depth of arrays and objects", () => {
  assert(isShallow("text", 0));
  assert(!isShallow([], 0));
  assert(isShallow([{ a: [1] }], 3));
  assert(!isShallow([{ a: [[]] }], 3));
  assert(isShallow(JSON.parse(nested(100))));
  assert(!isShallow(JSON.parse(nested(101))));
});

Deno.test("parseJson() keeps every double, as JSON prints it and in 17 digits", () => {
  const bits = crypto.getRandomValues(new BigUint64Array(8_000));
  const doubles = [...new Float64Array(bits.buffer)].filter(Number.isFinite);
  doubles.push(...bits.subarray(0, 2_000).toString().split(",").map((text) => Number(`0.${text}`)));
  assertEquals(parseJson(JSON.stringify(doubles)), doubles);
  const seventeen = doubles.map((double) => double.toPrecision(17));
  assertEquals(parseJson(`[${seventeen}]`), doubles);
});

Deno.test("encodeJson() keeps the sign of a zero, wherever it stands", () => {
  for (
    const text of ["-0", "[-0]", '[0,{"a":{"0":-0},"b":"-0"}]', '{"x":-0,"y":0}', "[[[[1,-0]]]]"]
  ) {
    assertEquals(encodeJson(parseJson(text)), text);
  }
  for (const text of ["-0.0", "-0e5", "-0.000E-2"]) assertEquals(encodeJson(parseJson(text)), "-0");
});

Deno.test("encodeJson() is JSON.stringify() but for that", () => {
  const date = new Date(0);
  for (
    const value of [0, "0", ":0,", [0, "-0"], { a: 0, b: date, c: undefined }, null, undefined]
  ) {
    assertEquals(encodeJson(value), JSON.stringify(value));
  }
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    const text = encodeJson(value);
    assertEquals(encodeJson(JSON.parse(text)), text);
    assertEquals(text.replaceAll("-0", "0"), JSON.stringify(value).replaceAll("-0", "0"));
  }));
});
