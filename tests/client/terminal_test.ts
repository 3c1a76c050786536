import { assertEquals } from "@std/assert";
import { printable, printableName } from "../../handlers/client/terminal.ts";

Deno.test("printable() shows what would move the cursor or turn the text around, and keeps the rest", () => {
  assertEquals(printable("\x1b[2Jtwo\nlines\r"), "\\x1b[2Jtwo\n      lines\\xd");
  assertEquals(printable("abc\u202edef\u2066"), "abc\\x202edef\\x2066");
  assertEquals(printable("a\u2028b\u2029"), "a\\x2028b\\x2029");
  assertEquals(printable({ any: "JSON" }), '{"any":"JSON"}');
  for (const text of ["שלום", "👩‍👧", "می‌خواهم", "방 a  b "]) assertEquals(printable(text), text);
});

Deno.test("printableName() shows what nobody would see: no two names look the same", () => {
  const names = ["Ann", "Ann\u200b", "\u200bAnn", "Ann ", " Ann", "An\u00adn", "Ann\ufeff"];
  names.push(" ", "  ", "\u00a0", "\u3000", "\u200b", "\u2800", "\u3164", "\u115f", "\u{e0041}");
  const shown = names.map(printableName);
  assertEquals(new Set(shown).size, names.length);
  for (const name of shown) assertEquals(/^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/.test(name), true, name);
  for (const name of ["Ann", "Ann Bo", "안나", "😀"]) assertEquals(printableName(name), name);
});
