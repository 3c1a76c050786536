/** Access by JSON Web Tokens. Checked by `jose`, loaded at the first token. */
import type { JWTPayload, JWTVerifyGetKey } from "jose";
import { HttpError } from "../protocol/http_error.ts";
import { isPersonName } from "../protocol/parse.ts";
import { type Clock, systemClock } from "../util/clock.ts";
import { guardLog, type Log, silentLog } from "../util/log.ts";
import { OptionError } from "../util/option_error.ts";
import type { Authorize, Grants } from "./grants.ts";
import { offeredProtocols } from "./handshake.ts";
import { keySet } from "./key_set.ts";

/** How tokens are checked. */
export interface JwtOptions {
  /** Secret of HS256 tokens, at least 32 bytes; behind `base64:` its bytes in base64. */
  secret?: string;
  /** Public keys instead: a JWKS file, or the URL of one. */
  jwks?: string;
  /** The `iss` that a token must have; any if missing. */
  issuer?: string;
  /** An `aud` that a token must have; any if missing. */
  audience?: string;
  /** Seconds after its `iat` at which a token ends, whatever its `exp`. @default 0 (never) */
  maxTokenSeconds?: number;
  /** Requests are traced with their query, so no token may be in it. */
  isTraced?: boolean;
  /** Told why a token was refused. @default silent */
  log?: Log;
  /** The time that tokens are checked by. @default the system's */
  clock?: Clock;
}

/** An {@link Authorize} by tokens, and how often the keys could not be read. */
export interface JwtAuthorizer extends Authorize {
  (request: Request): Promise<Grants>;
  /** Totals since the start. */
  readonly figures: { keyFailures: number };
}

/** Asymmetric algorithms that a key set may use: RFC 7518, 3.1, and RFC 8037. */
const KEY_SET_ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"];
/** RFC 7518, 3.2. */
const MIN_SECRET_BYTES = 32;
/** A refusal always takes this long, so that its time tells nothing of the token. */
const REFUSAL_MS = 50;
/** How far an issuer's clock may be ahead of ours. */
const LEEWAY_SECONDS = 5;
const NOT_YET_VALID = "The token is not valid yet.";

/**
 * Makes an `authorize` that wants a token: in `Authorization: Bearer`, as subprotocol `token.…`, or in
 * `?token=`. Its rights are the claims of `handlers/README.md`, Tokens.
 * @throws {OptionError} if the secret is too short or the keys cannot be read
 */
export function jwtAuthorizer(options: JwtOptions): JwtAuthorizer {
  const { secret, jwks, issuer, audience, clock = systemClock } = options;
  const log = guardLog(options.log ?? silentLog);
  const figures = { keyFailures: 0 };
  if ((secret === undefined) === (jwks === undefined)) {
    throw new OptionError("secret", "either it or jwks is needed");
  }
  const [algorithms, loadKeys] = secret === undefined
    ? [KEY_SET_ALGORITHMS, keySet(jwks!, clock, log, figures)]
    : [["HS256"], secretKey(secret)];
  let loaded: Promise<JWTVerifyGetKey> | undefined;

  async function check(token: string): Promise<Grants> {
    const { errors, jwtVerify } = await import("jose");
    const now = clock.now();
    const { payload } = await jwtVerify(token, await (loaded ??= loadKeys()), {
      algorithms,
      issuer,
      audience,
      clockTolerance: LEEWAY_SECONDS,
      currentDate: new Date(now),
    });
    const grants = readClaims(payload);
    const expiresAt = endOf(payload, options.maxTokenSeconds ?? 0, now);
    // The leeway is for clocks that are ahead, not for tokens that have ended.
    if (expiresAt !== undefined && expiresAt <= now) throw new errors.JWTExpired("", payload);
    return { ...grants, expiresAt };
  }

  const authorize = async (request: Request) => {
    const token = findToken(request, options);
    const refusal = Promise.withResolvers<void>();
    const cancel = clock.after(REFUSAL_MS, refusal.resolve);
    try {
      const grants = await check(token);
      cancel();
      return grants;
    } catch (error) {
      await refusal.promise;
      throw await refusalOf(error);
    }
  };
  return Object.assign(authorize, { figures });
}

function findToken({ headers, url }: Request, { isTraced }: JwtOptions): string {
  const bearer = /^Bearer +(\S+)$/i.exec(headers.get("authorization") ?? "");
  if (bearer) return bearer[1];
  const offered = offeredProtocols(headers).find((protocol) => protocol.startsWith("token."));
  if (offered) return offered.slice("token.".length);
  const token = URL.parse(url)?.searchParams.get("token");
  if (!token) throw unauthorized("no_token", "A token is needed.");
  if (isTraced) throw badToken("A traced server takes no token in the URL.");
  return token;
}

function secretKey(secret: string): () => Promise<JWTVerifyGetKey> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = crypto.subtle.importKey("raw", secretBytes(secret), algorithm, false, ["verify"]);
  return () => Promise.resolve(() => key);
}

/**
 * The bytes of a secret; behind `base64:` it is encoded.
 * @throws {OptionError} if they are too few, or no base64
 */
export function secretBytes(secret: string): Uint8Array<ArrayBuffer> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    const [, base64] = /^base64:(.*)/s.exec(secret) ?? [];
    bytes = base64 === undefined
      ? new TextEncoder().encode(secret)
      : Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    throw new OptionError("secret", "what follows base64: is no base64");
  }
  if (bytes.length >= MIN_SECRET_BYTES) return bytes;
  const reason = `it has ${bytes.length} bytes, at least ${MIN_SECRET_BYTES} are needed`;
  throw new OptionError("secret", reason);
}

/** Unix ms at which a token ends, if it does. */
function endOf({ exp, iat }: JWTPayload, maxSeconds: number, now: number): number | undefined {
  const nowSeconds = now / 1_000;
  if (iat !== undefined && iat > nowSeconds + LEEWAY_SECONDS) throw badToken(NOT_YET_VALID);
  if (maxSeconds === 0) return exp === undefined ? undefined : exp * 1_000;
  if (iat === undefined && (exp === undefined || exp > nowSeconds + maxSeconds)) {
    throw badToken(`The token has no iat, and no exp within ${maxSeconds} seconds.`);
  }
  return Math.min(exp ?? Infinity, (iat ?? Infinity) + maxSeconds) * 1_000;
}

/** Reads Parley's claims: `sub`, `name`, `rooms`, `speak`, `listen`, `publish`, `admin`. */
function readClaims({ sub, ...claims }: JWTPayload): Grants {
  if (sub !== undefined && typeof sub !== "string") throw wrongKind("sub", "a text");
  const name = claims.name ?? sub;
  if (name !== undefined && !isPersonName(name)) {
    throw wrongKind(claims.name === undefined ? "sub (there is no name)" : "name", "a name");
  }
  return {
    user: sub,
    name,
    rooms: readRooms(claims.rooms, "rooms"),
    speak: readRooms(claims.speak, "speak"),
    listen: readRooms(claims.listen, "listen"),
    publish: readFlag(claims.publish, "publish"),
    admin: readFlag(claims.admin, "admin"),
  };
}

function readRooms(rooms: unknown, claim: string): string[] | undefined {
  if (rooms === undefined) return undefined;
  if (Array.isArray(rooms) && rooms.every((room) => typeof room === "string")) return rooms;
  throw wrongKind(claim, "a list of texts");
}

function readFlag(flag: unknown = false, claim: string): boolean {
  if (typeof flag === "boolean") return flag;
  throw wrongKind(claim, "true or false");
}

/** By the code of what `jose` throws. */
const REFUSALS: Record<string, string> = {
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: "The token's signature is wrong.",
  ERR_JWKS_NO_MATCHING_KEY: "The token's key is unknown.",
  ERR_JOSE_ALG_NOT_ALLOWED: "The token's algorithm is not allowed.",
};

/** What a client hears of an error: what it must change, and no internal text. */
async function refusalOf(error: unknown): Promise<unknown> {
  const { errors } = await import("jose");
  if (!(error instanceof errors.JOSEError)) return error;
  if (error instanceof errors.JWTExpired) {
    return unauthorized("token_expired", "The token has expired.");
  }
  if (!(error instanceof errors.JWTClaimValidationFailed)) {
    return badToken(REFUSALS[error.code] ?? "The token is malformed.");
  }
  const { claim, reason } = error;
  if (reason === "invalid") return wrongKind(claim, "a number");
  if (claim === "nbf") return badToken(NOT_YET_VALID);
  return badToken(`The token's ${claim} is not the one that this server expects.`);
}

function wrongKind(claim: string, kind: string): HttpError {
  return badToken(`The token's claim ${claim} must be ${kind}.`);
}

function badToken(text: string): HttpError {
  return unauthorized("bad_token", text);
}

/** With the challenge of RFC 6750, 3. */
function unauthorized(code: string, text: string): HttpError {
  return new HttpError(401, code, text, { "www-authenticate": "Bearer" });
}
