/**
 * Tokens: who may hear, speak and publish. Checked by `jose`, loaded only when they are on.
 *
 * @module
 */
import type { JWTPayload, JWTVerifyGetKey } from "jose";
import { HttpError } from "../protocol/http_error.ts";
import { isPersonName, isServerRoom } from "../protocol/parse.ts";
import type { Settings } from "../start/settings.ts";
import type { Clock } from "../util/clock.ts";
import { SettingError } from "../util/setting_error.ts";

/** What a visitor may do. */
export interface Grants {
  /** Whom a token stands for; ids over HTTP count by it. */
  subject: string;
  /** The name that the token fixes. */
  name?: string;
  /** Unix ms at which it ends. */
  expiresAt?: number;
  mayHear(room: string): boolean;
  maySpeak(room: string): boolean;
  mayPublish: boolean;
  isAdmin: boolean;
}

/** What everybody may do where tokens are off. */
export const OPEN_GRANTS: Grants = {
  subject: "",
  mayHear: () => true,
  maySpeak: () => true,
  mayPublish: true,
  isAdmin: true,
};

/**
 * Checks a token.
 *
 * @throws {HttpError} 401 `bad_token` or `token_expired`, 503 while the keys cannot be had
 */
export type TokenCheck = (token: string) => Promise<Grants>;

/** Asymmetric algorithms that a key set may use: RFC 7518, 3.1, and RFC 8037. */
const KEY_SET_ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"];
/** A refusal always takes so long: its time tells nothing about the token. */
const REFUSAL_MS = 50;
/** A key file is read again, when a token comes, after so long: a key that left it is refused. */
const KEY_FILE_MS = 5_000;

/**
 * Makes the check that AUTH_SECRET or AUTH_JWKS asks for; none where neither is set.
 *
 * @throws {SettingError} if the keys cannot be read
 */
export async function createTokenCheck(
  settings: Pick<Settings, "AUTH_SECRET" | "AUTH_JWKS">,
  clock: Clock,
): Promise<TokenCheck | undefined> {
  const { AUTH_SECRET, AUTH_JWKS } = settings;
  if (!AUTH_SECRET && !AUTH_JWKS) return undefined;
  const { jwtVerify, errors } = await import("jose");
  const key = AUTH_SECRET ? await secretKey(AUTH_SECRET) : await keySet(AUTH_JWKS, clock);
  const algorithms = AUTH_SECRET ? ["HS256"] : KEY_SET_ALGORITHMS;
  return async (token) => {
    const refusal = Promise.withResolvers<void>();
    const cancel = clock.after(REFUSAL_MS, refusal.resolve);
    try {
      const currentDate = new Date(clock.now());
      const { payload } = await jwtVerify(token, key, { algorithms, currentDate });
      const grants = readClaims(payload);
      cancel();
      return grants;
    } catch (error) {
      await refusal.promise;
      if (error instanceof HttpError) throw error;
      throw error instanceof errors.JWTExpired
        ? new HttpError(401, "token_expired", "The token has expired.", CHALLENGE)
        : new HttpError(401, "bad_token", "The token is not valid.", CHALLENGE);
    }
  };
}

/** RFC 6750, 3. */
const CHALLENGE = { "www-authenticate": "Bearer" };

/** The answer to a visitor without a token where one is needed. */
export function missingToken(): HttpError {
  return new HttpError(401, "no_token", "A token is needed.", CHALLENGE);
}

async function secretKey(secret: string): Promise<JWTVerifyGetKey> {
  const bytes = new TextEncoder().encode(secret);
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes, algorithm, false, ["verify"]);
  return () => Promise.resolve(key);
}

async function keySet(where: string, clock: Clock): Promise<JWTVerifyGetKey> {
  const { createLocalJWKSet } = await import("jose");
  if (/^https?:/.test(where)) return await remoteKeySet(where);
  const read = () => {
    try {
      return createLocalJWKSet(JSON.parse(Deno.readTextFileSync(where)));
    } catch (error) {
      const { message } = error as Error;
      const reason = error instanceof Deno.errors.NotFound ? `no file at ${where}` : message;
      throw new SettingError(`Cannot read AUTH_JWKS: ${reason}`);
    }
  };
  let keys = read();
  let readAt = clock.now();
  return (header, token) => {
    if (clock.now() - readAt >= KEY_FILE_MS) {
      readAt = clock.now();
      try {
        keys = read();
      } catch {
        // It is being written: the known keys go on until the next look.
      }
    }
    return keys(header, token);
  };
}

/** Keys behind a URL, cached by `jose`. That they cannot be had is no fault of the token. */
async function remoteKeySet(where: string): Promise<JWTVerifyGetKey> {
  const { createRemoteJWKSet, errors } = await import("jose");
  if (!URL.canParse(where)) throw new SettingError(`Cannot read AUTH_JWKS: no URL: ${where}`);
  const keys = createRemoteJWKSet(new URL(where));
  return async (header, token) => {
    try {
      return await keys(header, token);
    } catch (error) {
      const { JWKSNoMatchingKey, JWKSMultipleMatchingKeys, JOSENotSupported } = errors;
      const isOfToken = [JWKSNoMatchingKey, JWKSMultipleMatchingKeys, JOSENotSupported]
        .some((kind) => error instanceof kind);
      if (isOfToken) throw error;
      const text = "Tokens cannot be checked now.";
      throw new HttpError(503, "unavailable", text, { "retry-after": "5" });
    }
  };
}

/** Reads Parley's claims: `sub` or `name`, `rooms`, `speak`, `publish`, `admin`, `exp`. */
function readClaims({ sub, exp, ...claims }: JWTPayload): Grants {
  const name = claims.name ?? sub;
  if (name !== undefined && !isPersonName(name)) throw new TypeError("name is no name");
  const isAdmin = claims.admin === true;
  const isHeard = readRooms(claims.rooms) ?? (() => true);
  const isSpoken = readRooms(claims.speak) ?? isHeard;
  return {
    subject: sub ?? name ?? "",
    name,
    expiresAt: exp === undefined ? undefined : exp * 1_000,
    mayHear: (room) => isServerRoom(room) ? isAdmin : isHeard(room),
    maySpeak: (room) => isHeard(room) && isSpoken(room),
    mayPublish: claims.publish === true,
    isAdmin,
  };
}

/** A claim that lists rooms: names, and `prefix*`. */
function readRooms(claim: unknown): ((room: string) => boolean) | undefined {
  if (claim === undefined) return undefined;
  if (!Array.isArray(claim) || !claim.every((rule) => typeof rule === "string")) {
    throw new TypeError("a claim of rooms is no list of texts");
  }
  const names = new Set(claim.filter((rule) => !rule.endsWith("*")));
  const prefixes = claim.filter((rule) => rule.endsWith("*")).map((rule) => rule.slice(0, -1));
  return (room) => names.has(room) || prefixes.some((prefix) => room.startsWith(prefix));
}
