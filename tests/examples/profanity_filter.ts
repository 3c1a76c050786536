/**
 * A rule of one's own between a message and its room: rude words are refused, long ones are cut.
 *
 *     deno run -A tests/examples/profanity_filter.ts
 *
 * @module
 */
import { createParley, type Parley, refuse } from "../../handlers/parley.ts";

const RUDE = /\b(?:damn|blast)\b/i;

/** Makes a Parley with the rule. */
export function createPoliteParley(): Parley {
  return createParley({
    onMessage({ message, kind }) {
      // Notes pass here, too: `{"typing":true}` is one, but anything may be in it.
      if (typeof message !== "string") return kind === "note" ? undefined : refuse("Only text.");
      if (RUDE.test(message)) return refuse("Be kind.");
      if (message.length > 200) return { message: message.slice(0, 199) + "…" };
    },
  });
}

if (import.meta.main) Deno.serve(createPoliteParley().fetch);
