/**
 * The public keys of tokens: a JWKS file that is read again and again, or a URL.
 *
 * @module
 */
import type { JSONWebKeySet, JWTVerifyGetKey } from "jose";
import { HttpError } from "../protocol/http_error.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { SettingError } from "../util/setting_error.ts";

/** A key file is read again, when a token comes, after this: a key that left it is refused. */
const FILE_MS = 5_000;
/** A URL is asked again for an unknown key after this. */
const URL_MS = 30_000;
/** A longer key set is not read. */
const MAX_BYTES = 1_000_000;
const TOO_LONG = `it is longer than ${MAX_BYTES} bytes`;
/** So many unknown keys are remembered, of names this long. */
const MAX_UNKNOWN = 1_000;
const MAX_KID_LENGTH = 200;

/** What a key set is made of. */
export interface KeySetOptions {
  /** A file or an `http` or `https` URL. */
  jwks: string;
  clock: Clock;
  log: Log;
  /** Counts an attempt to read the keys that failed. */
  onFailure(): void;
}

/**
 * Makes the function that finds a token's key, and tells the log when the keys cannot be read.
 *
 * @returns a function that is to be called at the first token: it loads `jose`
 * @throws {SettingError} if `jwks` is neither a URL nor a file of keys
 */
export function keySet(options: KeySetOptions): () => Promise<JWTVerifyGetKey> {
  if (!/^https?:/.test(options.jwks)) return fileKeys(options);
  const url = URL.parse(options.jwks);
  if (!url) throw new SettingError(`Cannot read AUTH_JWKS: no URL: ${options.jwks}`);
  return () => remoteKeys(url, options);
}

/** What both kinds of key set share: the log, and what to say of a key that is unknown. */
class KeyWatch {
  /** When the keys were last asked for, Unix ms. */
  loadedAt: number;
  readonly #options: KeySetOptions;
  readonly #periodMs: number;
  #isFailing = false;
  /** When a key that is unknown was first asked for. */
  #unknown = new Map<string, number>();

  /** @param periodMs how often the keys are asked for */
  constructor(options: KeySetOptions, periodMs: number) {
    this.#options = options;
    this.#periodMs = periodMs;
    this.loadedAt = options.clock.now();
  }

  failed(reason: string, meanwhile: string): void {
    const { jwks, log, onFailure } = this.#options;
    onFailure();
    const text = `Cannot read AUTH_JWKS ${jwks}: ${reason}; ${meanwhile}`;
    if (!this.#isFailing) log.error(text, { event: "keys_unreadable" });
    this.#isFailing = true;
  }

  succeeded(): void {
    const { jwks, log } = this.#options;
    if (this.#isFailing) log.info(`Can read AUTH_JWKS ${jwks} again`, { event: "keys_readable" });
    this.#isFailing = false;
  }

  /**
   * @param askedAt when the key was asked for, before the keys were loaded for it
   * @throws {HttpError} 503 if the unknown key may be a new one, which the next look will find
   */
  checkUnknown(kid: string | undefined, askedAt: number): void {
    if (kid === undefined || kid.length > MAX_KID_LENGTH) return;
    const now = this.#options.clock.now();
    const seenAt = this.#unknown.get(kid) ?? askedAt;
    this.#unknown.set(kid, seenAt);
    if (this.#unknown.size > MAX_UNKNOWN) {
      this.#unknown.delete(this.#unknown.keys().next().value!);
    }
    if (this.loadedAt < seenAt) throw notNow(this.loadedAt + this.#periodMs - now);
  }
}

function fileKeys(options: KeySetOptions): () => Promise<JWTVerifyGetKey> {
  const { jwks: path, clock } = options;
  const watch = new KeyWatch(options, FILE_MS);
  let keys: JSONWebKeySet;
  try {
    keys = readKeys(path);
  } catch (error) {
    throw new SettingError(`Cannot read AUTH_JWKS: ${(error as Error).message}`);
  }
  return async () => {
    const { createLocalJWKSet, errors } = await import("jose");
    let find = createLocalJWKSet(keys);
    return async (header, token) => {
      const askedAt = clock.now();
      if (askedAt - watch.loadedAt >= FILE_MS) {
        watch.loadedAt = askedAt;
        try {
          find = createLocalJWKSet(readKeys(path));
          watch.succeeded();
        } catch (error) {
          watch.failed((error as Error).message, "the known keys stay in use");
        }
      }
      try {
        return await find(header, token);
      } catch (error) {
        if (error instanceof errors.JWKSNoMatchingKey) watch.checkUnknown(header.kid, askedAt);
        throw error;
      }
    };
  };
}

/** Reads a file of keys, at most {@link MAX_BYTES} of it. */
function readKeys(path: string): JSONWebKeySet {
  const decoder = new TextDecoder();
  let text = "";
  try {
    using file = Deno.openSync(path);
    const chunk = new Uint8Array(65_536);
    for (let size; (size = file.readSync(chunk)) !== null;) {
      text += decoder.decode(chunk.subarray(0, size), { stream: true });
      if (text.length > MAX_BYTES) throw new Error(TOO_LONG);
    }
  } catch (error) {
    throw error instanceof Deno.errors.NotFound ? new Error(`no file at ${path}`) : error;
  }
  const keys = JSON.parse(text);
  const isSet = Array.isArray(keys?.keys) &&
    keys.keys.every((key: unknown) => typeof key === "object" && key !== null);
  if (!isSet) throw new Error('it has no list of keys named "keys"');
  return keys;
}

/** Keys behind a URL, cached by `jose`. That they cannot be had is no fault of the token. */
async function remoteKeys(url: URL, options: KeySetOptions): Promise<JWTVerifyGetKey> {
  const { createRemoteJWKSet, customFetch, errors } = await import("jose");
  const watch = new KeyWatch(options, URL_MS);
  const find = createRemoteJWKSet(url, {
    cooldownDuration: URL_MS,
    [customFetch]: async (url: string, init: RequestInit) => {
      watch.loadedAt = options.clock.now();
      return await bounded(await fetch(url, init));
    },
  });
  return async (header, token) => {
    const askedAt = options.clock.now();
    try {
      const key = await find(header, token);
      watch.succeeded();
      return key;
    } catch (error) {
      const { JWKSNoMatchingKey, JWKSMultipleMatchingKeys, JOSENotSupported } = errors;
      if (error instanceof JWKSNoMatchingKey) watch.checkUnknown(header.kid, askedAt);
      const ofToken = [JWKSNoMatchingKey, JWKSMultipleMatchingKeys, JOSENotSupported];
      if (ofToken.some((kind) => error instanceof kind)) throw error;
      watch.failed((error as Error).message, "tokens are answered with 503");
      throw notNow(5_000);
    }
  };
}

/** A response that fails after {@link MAX_BYTES}. */
async function bounded(response: Response): Promise<Response> {
  if (response.status !== 200) return response;
  let size = 0;
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > MAX_BYTES) throw new Error(TOO_LONG);
    chunks.push(chunk);
  }
  return new Response(new Blob(chunks));
}

function notNow(waitMs: number): HttpError {
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  const headers = { "retry-after": String(seconds) };
  return new HttpError(503, "unavailable", "The token's key cannot be looked up now.", headers);
}
