/** The public keys of tokens: a JWKS file that is read again and again, or a URL. */
import type { JSONWebKeySet, JWTVerifyGetKey } from "jose";
import { HttpError } from "../protocol/http_error.ts";
import { readText } from "../util/bytes.ts";
import type { Clock } from "../util/clock.ts";
import type { Log } from "../util/log.ts";
import { OptionError } from "../util/option_error.ts";

/** Keys that are older are read again, when a token comes: a key that left is refused. */
const MAX_AGE_MS = { file: 5_000, url: 600_000 };
/** For an unknown key they are read again after this. */
const COOLDOWN_MS = { file: 5_000, url: 30_000 };
const URL_TIMEOUT_MS = 5_000;
const MAX_BYTES = 1_000_000;
const TOO_LONG = `it is longer than ${MAX_BYTES} bytes`;
/** So many unknown keys are remembered, of names this long. */
const MAX_UNKNOWN = 1_000;
const MAX_KID_LENGTH = 200;
/** The parts of a URL that may be secret: user and password, and the query. */
const SECRET = /(?<=:\/\/)[^/?#\s]*@|\?[^\s);:]*/g;

/**
 * Makes the function that finds a token's key, and tells the log when the keys cannot be read: those of
 * a file stay in use then, those of a URL until they are too old.
 * @param jwks a file or an `http` or `https` URL
 * @param figures where attempts to read the keys that failed are counted
 * @returns a function that is to be called at the first token: it loads `jose`
 * @throws {OptionError} if `jwks` is neither a URL nor a file of keys
 */
export function keySet(jwks: string, clock: Clock, log: Log, figures: { keyFailures: number }) {
  const kind = /^https?:/.test(jwks) ? "url" : "file";
  const known = kind === "file" ? readAtStart(jwks) : checkUrl(jwks);
  let loadedAt = known ? clock.elapsedMs() : -Infinity;
  let loading: Promise<void> | undefined;
  let isFailing = false;
  /** When each unknown key was first asked for. */
  const unknown = new Map<string, number>();

  /** A text for the log, without the password that the URL may have. */
  const shown = (text: string) => kind === "url" ? text.replace(SECRET, "") : text;

  /** Tells the log; the answer is for the token, whose fault it is not. */
  function fail({ message, cause }: Error): HttpError {
    figures.keyFailures++;
    const meanwhile = kind === "file" ? "the known keys stay in use" : "tokens get 503";
    // Of a failed fetch the message alone tells nothing.
    const reason = cause instanceof Error ? cause.message : message;
    const text = `Cannot read the keys at ${jwks}: ${reason}; ${meanwhile}`;
    if (!isFailing) log.error(shown(text), { event: "keys_unreadable" });
    isFailing = true;
    return notNow(5_000);
  }

  return async (): Promise<JWTVerifyGetKey> => {
    const { createLocalJWKSet, errors } = await import("jose");
    let find: JWTVerifyGetKey = createLocalJWKSet(known ?? { keys: [] });

    async function load(): Promise<void> {
      const startedAt = clock.elapsedMs();
      try {
        find = createLocalJWKSet(kind === "file" ? readKeys(jwks) : await fetchKeys(jwks));
        const text = shown(`Can read the keys at ${jwks} again`);
        if (isFailing) log.info(text, { event: "keys_readable" });
        isFailing = false;
      } catch (error) {
        const refusal = fail(error as Error);
        if (kind === "url") throw refusal;
      }
      loadedAt = startedAt;
    }

    /** @throws {HttpError} 503 if an unknown key may be a new one, which the next look will find */
    function checkUnknown(kid: string, askedAt: number): void {
      const firstAskedAt = unknown.get(kid) ?? askedAt;
      unknown.set(kid, firstAskedAt);
      if (unknown.size > MAX_UNKNOWN) unknown.delete(unknown.keys().next().value!);
      if (loadedAt >= firstAskedAt) return;
      throw notNow(loadedAt + COOLDOWN_MS[kind] - clock.elapsedMs());
    }

    return async (header, token) => {
      const { kid } = header;
      const askedAt = clock.elapsedMs();
      const loadOnce = () => loading ??= load().finally(() => loading = undefined);
      if (askedAt - loadedAt >= MAX_AGE_MS[kind]) await loadOnce();
      for (;;) {
        try {
          return await find(header, token);
        } catch (error) {
          if (!(error instanceof errors.JOSEError)) throw fail(error as Error);
          if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
          if (askedAt - loadedAt < COOLDOWN_MS[kind]) {
            if (kid !== undefined && kid.length <= MAX_KID_LENGTH) checkUnknown(kid, askedAt);
            throw error;
          }
        }
        await loadOnce();
      }
    };
  };
}

function checkUrl(text: string): undefined {
  if (!URL.canParse(text)) throw new OptionError("jwks", `no URL: ${text}`);
}

function readAtStart(path: string): JSONWebKeySet {
  try {
    return readKeys(path);
  } catch (error) {
    throw new OptionError("jwks", (error as Error).message);
  }
}

function readKeys(path: string): JSONWebKeySet {
  try {
    if (Deno.statSync(path).size > MAX_BYTES) throw new Error(TOO_LONG);
    return parseKeys(Deno.readTextFileSync(path));
  } catch (error) {
    throw error instanceof Deno.errors.NotFound ? new Error(`no file at ${path}`) : error;
  }
}

async function fetchKeys(url: string): Promise<JSONWebKeySet> {
  const signal = AbortSignal.timeout(URL_TIMEOUT_MS);
  const { status, body } = await fetch(url, { redirect: "manual", signal });
  if (status !== 200) {
    await body?.cancel();
    throw new Error(`it answers with ${status}`);
  }
  return parseKeys(await readText(body, MAX_BYTES, new Error(TOO_LONG)));
}

function parseKeys(text: string): JSONWebKeySet {
  const set = JSON.parse(text);
  const isSet = Array.isArray(set?.keys) &&
    set.keys.every((key: unknown) => typeof key === "object" && key !== null);
  if (!isSet) throw new Error('it has no list of keys named "keys"');
  return set;
}

function notNow(waitMs: number): HttpError {
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  const headers = { "retry-after": String(seconds) };
  return new HttpError(503, "unavailable", "The token's key cannot be looked up now.", headers);
}
