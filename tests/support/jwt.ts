/**
 * Tokens for tests.
 *
 * @module
 */
import { type JWTPayload, SignJWT } from "jose";

/** A secret as AUTH_SECRET wants it. */
export const SECRET = "thirty-two characters of a secret";

/** Signs claims as a backend does that has the secret. */
export function sign(claims: JWTPayload, secret = SECRET, alg = "HS256"): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg }).sign(new TextEncoder().encode(secret));
}
