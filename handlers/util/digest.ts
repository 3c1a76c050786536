import { createHash } from "node:crypto";

/** The SHA-256 of a text, in base64. It is there in the same call: what is sent next must not overtake it. */
export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("base64");
}
