/**
 * Tokens for tests.
 *
 * @module
 */
import { assertRejects } from "@std/assert";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import type { FakeClock } from "./fakes.ts";
import { nextTurn } from "./inbox.ts";

/** A secret as AUTH_SECRET wants it. */
export const SECRET = "thirty-two characters of a secret";

/** Signs claims as a backend does that has the secret. */
export function sign(claims: JWTPayload, secret = SECRET, alg = "HS256"): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg }).sign(new TextEncoder().encode(secret));
}

/** A request that bears a token. */
export function requestWith(token: string): Request {
  return new Request("http://parley.test/chat", { headers: { authorization: `Bearer ${token}` } });
}

/** A task's refusal; the clock is turned until the task has ended. */
export async function rejectionOf(clock: FakeClock, task: Promise<unknown>): Promise<HttpError> {
  let isDone = false;
  const turning = (async () => {
    while (!isDone) {
      clock.tick(50);
      await nextTurn();
    }
  })();
  const error = await assertRejects(() => task, HttpError);
  isDone = true;
  await turning;
  return error;
}

/** A key pair for a key set, under a name. */
export async function namedKey(kid: string, alg = "ES256") {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = { ...await exportJWK(publicKey), kid, alg, use: "sig" };
  const sign = (claims: JWTPayload, header: { alg: string; kid?: string } = { alg, kid }) =>
    new SignJWT(claims).setProtectedHeader(header).sign(privateKey);
  return { jwk, sign };
}
