import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import type { Grants } from "../../handlers/access/grants.ts";
import { keySet } from "../../handlers/access/key_set.ts";
import { jwtAuthorizer, type JwtOptions } from "../../handlers/access/token.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import { OptionError } from "../../handlers/util/option_error.ts";
import { FakeClock, RecordingLog } from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";
import { namedKey, rejectionOf, requestWith, SECRET } from "../support/jwt.ts";

const secretKey = new TextEncoder().encode(SECRET);

function sign(claims: JWTPayload, secret = secretKey, alg = "HS256"): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg }).sign(secret);
}

/** An authorizer by a secret, and its clock. */
function bySecret(options: JwtOptions = {}) {
  const clock = new FakeClock();
  const authorize = jwtAuthorizer({ secret: SECRET, clock, ...options });
  const check = async (claims: JWTPayload) => await authorize(requestWith(await sign(claims)));
  const refuse = async (token: JWTPayload | string, secret = secretKey) => {
    const text = typeof token === "string" ? token : await sign(token, secret);
    return await rejectionOf(clock, authorize(requestWith(text)));
  };
  return { authorize, clock, now: clock.now() / 1_000, check, refuse };
}

/** What a token with these claims grants. */
function grantsOf(claims: JWTPayload): Promise<Grants> {
  return bySecret().check(claims);
}

/** A refusal's code and text. */
function reason({ status, code, message }: HttpError): string {
  assertEquals(status, 401);
  return `${code}: ${message}`;
}

Deno.test("jwtAuthorizer() finds the token in header, subprotocol or query, in this order", async () => {
  const { authorize } = bySecret();
  const [one, two, three] = [
    await sign({ sub: "1" }),
    await sign({ sub: "2" }),
    await sign({ sub: "3" }),
  ];
  const request = (headers: Record<string, string>, query = `?token=${three}`) =>
    new Request(`http://parley.test/chat${query}`, { headers });
  const offered = { "sec-websocket-protocol": `parley.v1, token.${two}` };
  const user = async (request: Request) => (await authorize(request)).user;
  assertEquals(await user(request({ authorization: `Bearer ${one}`, ...offered })), "1");
  assertEquals(await user(request({ authorization: `bearer  ${one}` }, "")), "1");
  assertEquals(await user(request(offered)), "2");
  assertEquals(await user(request({})), "3");
  const missing = await assertRejects(() => authorize(request({}, ""))) as HttpError;
  assertEquals([missing.status, missing.code], [401, "no_token"]);
  assertEquals(missing.headers, { "www-authenticate": "Bearer" });
});

Deno.test("jwtAuthorizer() takes no token in the query where requests are traced", async () => {
  const { authorize } = bySecret({ isTraced: true });
  const token = await sign({ sub: "Ann" });
  const inQuery = new Request(`http://parley.test/chat?token=${token}`);
  assertEquals(
    reason(await assertRejects(() => authorize(inQuery)) as HttpError).slice(0, 9),
    "bad_token",
  );
  assertEquals((await authorize(requestWith(token))).user, "Ann");
});

Deno.test("a token's claims are its grants; the name is `name`, else `sub`", async () => {
  const claims = { rooms: ["ops", "team-*"], speak: ["ops"], listen: ["user:{sub}"] };
  assertEquals(await grantsOf({ sub: "u1", publish: true, admin: true, ...claims }), {
    user: "u1",
    name: "u1",
    publish: true,
    admin: true,
    expiresAt: undefined,
    ...claims,
  });
  const both = await grantsOf({ sub: "u1", name: "Ann" });
  assertEquals([both.user, both.name], ["u1", "Ann"]);
  const { user, name, rooms, speak, listen } = await grantsOf({});
  assertEquals([user, name, rooms, speak, listen], Array(5).fill(undefined));
});

Deno.test("a token lets publish and rule only by a claim that is true itself", async () => {
  for (const value of [undefined, false, true]) {
    const { publish, admin } = await grantsOf({ publish: value, admin: value });
    assertEquals([publish, admin], [value === true, value === true]);
  }
});

Deno.test("a token ends at its `exp`, without leeway", async () => {
  const { clock, now, check, refuse } = bySecret();
  const claims = { exp: now + 60 };
  assertEquals((await check(claims)).expiresAt, clock.now() + 60_000);
  clock.tick(60_000);
  assertEquals(reason(await refuse(claims)), "token_expired: The token has expired.");
});

Deno.test("a token's `nbf` and `iat` may be 5 s ahead", async () => {
  const { now, check, refuse } = bySecret();
  await check({ nbf: now + 5 });
  assertEquals(reason(await refuse({ nbf: now + 6 })), "bad_token: The token is not valid yet.");
  await check({ iat: now + 5 });
  assertEquals(reason(await refuse({ iat: now + 6 })), "bad_token: The token is not valid yet.");
});

Deno.test("maxTokenSeconds ends a token by its `iat`, and refuses one that would never end", async () => {
  const { clock, now, check, refuse } = bySecret({ maxTokenSeconds: 60 });
  const endOf = async (claims: JWTPayload) =>
    ((await check(claims)).expiresAt! - clock.now()) / 1_000;
  assertEquals(await endOf({ iat: now - 10 }), 50);
  assertEquals(await endOf({ iat: now - 10, exp: now + 9_000 }), 50);
  assertEquals(await endOf({ iat: now - 10, exp: now + 20 }), 20);
  assertEquals(await endOf({ exp: now + 60 }), 60);
  await check({ iat: now + 5 });
  assertEquals(reason(await refuse({ iat: now - 60 })), "token_expired: The token has expired.");
  assertEquals(reason(await refuse({ iat: now + 6 })), "bad_token: The token is not valid yet.");
  for (const claims of [{}, { exp: now + 61 }]) {
    const text = "bad_token: The token has no iat, and no exp within 60 seconds.";
    assertEquals(reason(await refuse(claims)), text);
  }
});

Deno.test("issuer and audience must match where they are set", async () => {
  const { check, refuse } = bySecret({ issuer: "https://id.example", audience: "parley" });
  const good = { iss: "https://id.example", aud: ["other", "parley"] };
  await check(good);
  const wrong = async (claims: JWTPayload) => reason(await refuse({ ...good, ...claims }));
  const text = (claim: string) =>
    `bad_token: The token's ${claim} is not the one that this server expects.`;
  assertEquals(await wrong({ iss: "https://evil.example" }), text("iss"));
  assertEquals(await wrong({ iss: undefined }), text("iss"));
  assertEquals(await wrong({ aud: "other" }), text("aud"));
  assertEquals(await wrong({ aud: undefined }), text("aud"));
  await bySecret().check({ iss: "any", aud: "any" });
});

/** Tokens that must be refused, by the reason that the client hears. */
async function badTokens(now: number): Promise<[reason: string, token: string][]> {
  const good = await sign({ sub: "Ann", admin: false });
  const [header, body, signature] = good.split(".");
  const forged = btoa(JSON.stringify({ sub: "Ann", admin: true })).replaceAll("=", "");
  const { privateKey } = await generateKeyPair("RS256");
  const foreign = new TextEncoder().encode("another secret of 32 characters!");
  const noneInCapitals = btoa('{"alg":"NONE"}').replaceAll("=", "");
  const rs256 = new SignJWT({}).setProtectedHeader({ alg: "RS256" });
  const algorithm = "The token's algorithm is not allowed.";
  const wrong = "The token's signature is wrong.";
  const malformed = "The token is malformed.";
  const kind = (claim: string, kind: string) => `The token's claim ${claim} must be ${kind}.`;
  return [
    [algorithm, new UnsecuredJWT({ sub: "Ann" }).encode()],
    [algorithm, `${noneInCapitals}.${body}.`],
    [wrong, await sign({ sub: "Ann" }, foreign)],
    [algorithm, await sign({ sub: "Ann" }, secretKey, "HS512")],
    [algorithm, await rs256.sign(privateKey)],
    [wrong, `${header}.${forged}.${signature}`],
    [wrong, `${header}.${body}.`],
    [malformed, `${header}.${body}`],
    [malformed, "Ann"],
    [malformed, "a".repeat(8_000) + "." + body + "." + signature],
    ["The token is not valid yet.", await sign({ nbf: now + 60 })],
    [kind("name", "a name"), await sign({ name: "Ann\nBob" })],
    [kind("name", "a name"), await sign({ name: 7 })],
    [kind("sub", "a text"), await sign({ sub: 7 } as unknown as JWTPayload)],
    [kind("sub (there is no name)", "a name"), await sign({ sub: "a".repeat(65) })],
    [kind("rooms", "a list of texts"), await sign({ rooms: "ops" })],
    [kind("rooms", "a list of texts"), await sign({ rooms: ["ops", 1] })],
    [kind("speak", "a list of texts"), await sign({ speak: { ops: true } })],
    [kind("listen", "a list of texts"), await sign({ listen: null })],
    [kind("publish", "true or false"), await sign({ publish: "true" })],
    [kind("admin", "true or false"), await sign({ admin: 1 })],
    [kind("exp", "a number"), await sign({ exp: "soon" } as unknown as JWTPayload)],
    ["The token has expired.", await sign({ exp: now - 1 })],
  ];
}

Deno.test("a bad token is refused with 401, a code, and the reason", async () => {
  const { now, refuse } = bySecret();
  for (const [message, token] of await badTokens(now)) {
    const error = await refuse(token);
    const code = message === "The token has expired." ? "token_expired" : "bad_token";
    assertEquals([error.status, error.code, error.message], [401, code, message]);
    assertEquals(error.headers, { "www-authenticate": "Bearer" });
  }
});

Deno.test("every refusal takes the same time: 50 ms, whatever is wrong", async () => {
  const { authorize, clock, now } = bySecret();
  const tooEarly = new Set<string>();
  const asked = (await badTokens(now)).map(([what, token]) =>
    assertRejects(() => authorize(requestWith(token))).then(() => tooEarly.add(what))
  );
  clock.tick(49);
  // More turns than the verification needs.
  for (let turn = 0; turn < 100; turn++) await nextTurn();
  assertEquals([...tooEarly], []);
  clock.tick(1);
  await Promise.all(asked);
  assertEquals(clock.timerCount, 0);
});

Deno.test("a good token leaves no timer behind", async () => {
  const { clock, check } = bySecret();
  await check({ sub: "Ann" });
  assertEquals(clock.timerCount, 0);
});

Deno.test("a secret behind `base64:` is its bytes", async () => {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  const clock = new FakeClock();
  const authorize = jwtAuthorizer({ secret: `base64:${bytes.toBase64()}`, clock });
  assertEquals((await authorize(requestWith(await sign({ sub: "Ann" }, bytes)))).user, "Ann");
});

Deno.test("a secret that is short or no base64, or no key at all, stops the start", () => {
  const refused = (options: JwtOptions) =>
    assertThrows(() => jwtAuthorizer(options), OptionError).message;
  assertEquals(
    refused({ secret: "a".repeat(31) }),
    "Cannot use secret: it has 31 bytes, at least 32 are needed",
  );
  assertEquals(
    refused({ secret: `base64:${new Uint8Array(31).toBase64()}` }),
    "Cannot use secret: it has 31 bytes, at least 32 are needed",
  );
  assertEquals(
    refused({ secret: "base64:*" }),
    "Cannot use secret: what follows base64: is no base64",
  );
  const neither = "Cannot use secret: either it or jwks is needed";
  assertEquals([refused({}), refused({ secret: SECRET, jwks: "/x" })], [neither, neither]);
});

/** An authorizer by a key set, with its clock and log. */
function byKeys(jwks: string, log = new RecordingLog()) {
  const clock = new FakeClock();
  const authorize = jwtAuthorizer({ jwks, clock, log });
  const user = async (token: string) => (await authorize(requestWith(token))).user;
  /** Status, message and Retry-After of a refusal. */
  const refusal = async (token: string) => {
    const { status, message, headers } = await rejectionOf(clock, authorize(requestWith(token)));
    return [status, message, headers["retry-after"]];
  };
  return { clock, log, authorize, user, refusal };
}

const UNKNOWN = [401, "The token's key is unknown.", undefined];
const later = (seconds: number) => [
  503,
  "The token's key cannot be looked up now.",
  String(seconds),
];

/** A file of keys, written anew by `write`. */
async function keyFile(...keys: object[]) {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  const write = (...keys: object[]) => Deno.writeTextFile(path, JSON.stringify({ keys }));
  await write(...keys);
  return { path, write, [Symbol.asyncDispose]: () => Deno.remove(path).catch(() => {}) };
}

Deno.test("a key set takes each kind of key", async () => {
  for (const alg of ["RS256", "PS256", "ES256", "ES384", "EdDSA"]) {
    const key = await namedKey("k1", alg);
    await using file = await keyFile(key.jwk);
    assertEquals(await byKeys(file.path).user(await key.sign({ sub: "Ann" })), "Ann", alg);
  }
});

Deno.test("a key set refuses a foreign key of the same name, and its public key as a secret", async () => {
  const [key, foreign] = [await namedKey("k1", "RS256"), await namedKey("k1", "RS256")];
  await using file = await keyFile(key.jwk);
  const { refusal } = byKeys(file.path);
  const publicKey = new TextEncoder().encode(JSON.stringify(key.jwk));
  const confused = await new SignJWT({ sub: "Ann" })
    .setProtectedHeader({ alg: "HS256", kid: "k1" }).sign(publicKey);
  assertEquals((await refusal(await foreign.sign({})))[1], "The token's signature is wrong.");
  assertEquals((await refusal(confused))[1], "The token's algorithm is not allowed.");
});

Deno.test("a key file is read again every 5 s: a new key comes, one that left is refused", async () => {
  const [old, fresh] = [await namedKey("old"), await namedKey("fresh")];
  await using file = await keyFile(old.jwk);
  const { clock, user, refusal } = byKeys(file.path);
  assertEquals(await user(await old.sign({ sub: "Ann" })), "Ann");
  await file.write(fresh.jwk);
  clock.tick(1_000);
  assertEquals(await refusal(await fresh.sign({})), later(4), "not looked up yet");
  clock.tick(4_000);
  assertEquals(await user(await fresh.sign({ sub: "Ann" })), "Ann");
  clock.tick(5_000);
  assertEquals(await refusal(await old.sign({})), UNKNOWN, "retired");
  clock.tick(1_000);
  assertEquals(await refusal(await old.sign({})), UNKNOWN, "it is known to be gone");
  await file.write();
  clock.tick(5_000);
  assertEquals(await refusal(await fresh.sign({})), UNKNOWN, "revoked");
});

Deno.test("a token without a key's name, or with a long one, is never a new key", async () => {
  const [known, other] = [await namedKey("known"), await namedKey("k".repeat(300), "RS256")];
  await using file = await keyFile(known.jwk);
  const { clock, refusal } = byKeys(file.path);
  clock.tick(1_000);
  assertEquals(await refusal(await other.sign({})), UNKNOWN);
  assertEquals(await refusal(await other.sign({}, { alg: "RS256" })), UNKNOWN);
});

Deno.test("a key file that is broken, deleted or huge keeps its keys, and says so once", async () => {
  const key = await namedKey("k1");
  await using file = await keyFile(key.jwk);
  const { clock, log, authorize, user } = byKeys(file.path);
  const token = await key.sign({ sub: "Ann" });
  const look = async () => {
    clock.tick(5_000);
    assertEquals(await user(token), "Ann");
  };
  await Deno.writeTextFile(file.path, '{"keys":[');
  await look();
  await look();
  await Deno.remove(file.path);
  await look();
  assertEquals(authorize.figures.keyFailures, 3);
  assertEquals(log.lines.map(({ level, fields }) => [level, fields.event]), [
    ["error", "keys_unreadable"],
  ]);
  assertStringIncludes(log.lines[0].text, `Cannot read the keys at ${file.path}: `);
  assertStringIncludes(log.lines[0].text, "; the known keys stay in use");
  await file.write(key.jwk);
  await look();
  await Deno.writeTextFile(file.path, JSON.stringify({ keys: [], more: "x".repeat(1_000_000) }));
  await look();
  assertEquals(log.lines.slice(1).map(({ level, fields }) => [level, fields.event]), [
    ["info", "keys_readable"],
    ["error", "keys_unreadable"],
  ]);
  assertStringIncludes(log.lines[2].text, "it is longer than 1000000 bytes");
});

/** A server of keys that counts who asks. */
function keyServer(keys: object[]) {
  const state = { keys: keys as object[] | undefined, more: "", asked: 0, onAsked() {} };
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, () => {
    state.asked++;
    state.onAsked();
    return Response.json({ keys: state.keys, more: state.more });
  });
  const url = `http://127.0.0.1:${server.addr.port}/keys.json`;
  return { state, url, [Symbol.asyncDispose]: () => server.shutdown() };
}

/** Moves the machine's clock, which the library looks at, and ours. */
async function afterSeconds(seconds: number, clock: FakeClock, task: () => Promise<void>) {
  clock.tick(seconds * 1_000);
  const { now } = Date;
  Date.now = () => now() + seconds * 1_000;
  try {
    await task();
  } finally {
    Date.now = now;
  }
}

Deno.test("a URL is asked once for many tokens; a new key is 503 until it may be asked again", async () => {
  const [old, fresh] = [await namedKey("old"), await namedKey("fresh")];
  await using server = keyServer([old.jwk]);
  const { clock, user, refusal } = byKeys(server.url);
  for (let times = 0; times < 20; times++) await user(await old.sign({ sub: "Ann" }));
  assertEquals(server.state.asked, 1);

  server.state.keys = [old.jwk, fresh.jwk];
  clock.tick(10_000);
  for (let times = 0; times < 5; times++) {
    const [status, , retryAfter] = await refusal(await fresh.sign({}));
    assertEquals([status, Number(retryAfter) <= 20], [503, true]);
  }
  assertEquals(server.state.asked, 1, "unknown keys do not make the server ask each time");
  await afterSeconds(31, clock, async () => {
    assertEquals(await user(await fresh.sign({ sub: "Bob" })), "Bob");
  });
  assertEquals(server.state.asked, 2);
});

Deno.test("a key that a URL lacks is 401 at once where it is asked for it, however long that takes", async () => {
  const [known, never] = [await namedKey("known"), await namedKey("never")];
  await using server = keyServer([known.jwk]);
  const { clock, refusal } = byKeys(server.url);
  server.state.onAsked = () => clock.tick(700);
  assertEquals(await refusal(await never.sign({})), UNKNOWN);
});

Deno.test("a key that a URL still lacks when it is asked again is 401", async () => {
  const [known, never] = [await namedKey("known"), await namedKey("never")];
  await using server = keyServer([known.jwk]);
  const { clock, user, refusal } = byKeys(server.url);
  await user(await known.sign({}));
  clock.tick(1_000);
  assertEquals((await refusal(await never.sign({})))[0], 503);
  await afterSeconds(31, clock, async () => {
    assertEquals(await refusal(await never.sign({})), UNKNOWN);
    assertEquals(await refusal(await never.sign({})), UNKNOWN);
  });
});

Deno.test("of unknown keys a URL's last 1,000 are remembered: nobody fills the memory with their names", async () => {
  await using server = keyServer([]);
  const clock = new FakeClock();
  const find = await keySet(server.url, clock, new RecordingLog(), { keyFailures: 0 })();
  const ask = async (kid: string) => {
    const error = await assertRejects(async () =>
      await find({ alg: "ES256", kid }, { payload: "", signature: "" })
    );
    return error instanceof HttpError ? error.status : (error as { code?: string }).code;
  };
  const isKnown = "ERR_JWKS_NO_MATCHING_KEY";
  assertEquals(await ask("first"), isKnown);
  clock.tick(1_000);
  assertEquals(await ask("first"), isKnown);
  for (let i = 0; i < 1_000; i++) assertEquals(await ask(`key ${i}`), 503);
  assertEquals(await ask("first"), 503);
});

Deno.test("a key that is asked for while a URL is read may be newer than what that brings: 503", async () => {
  const [known, fresh] = [await namedKey("known"), await namedKey("fresh")];
  await using server = keyServer([known.jwk]);
  const { clock, user, refusal } = byKeys(server.url);
  const token = await fresh.sign({});
  let late: Promise<unknown[]> | undefined;
  server.state.onAsked = () => {
    clock.tick(700);
    late = refusal(token);
  };
  await user(await known.sign({}));
  assertEquals((await late)![0], 503);
});

Deno.test("a URL that gives no keys, or too many, is no fault of the token: 503, and a line in the log", async () => {
  const key = await namedKey("k1");
  await using server = keyServer([key.jwk]);
  const { log, authorize, user, refusal } = byKeys(server.url);
  server.state.keys = undefined;
  assertEquals(await refusal(await key.sign({})), later(5));
  assertEquals(await refusal(await key.sign({})), later(5));
  server.state.keys = [key.jwk];
  server.state.more = "x".repeat(1_000_000);
  assertEquals(await refusal(await key.sign({})), later(5));
  assertEquals(authorize.figures.keyFailures, 3);
  server.state.more = "";
  assertEquals(await user(await key.sign({ sub: "Ann" })), "Ann");
  assertEquals(log.lines.map(({ level, fields }) => [level, fields.event]), [
    ["error", "keys_unreadable"],
    ["info", "keys_readable"],
  ]);
});

Deno.test("a log that throws is no fault of the token either", async () => {
  await using server = keyServer([]);
  server.state.keys = undefined;
  const log = Object.assign(new RecordingLog(), {
    error() {
      throw new Error("the log is broken");
    },
  });
  const { refusal } = byKeys(server.url, log);
  assertEquals(await refusal(await (await namedKey("k1")).sign({})), later(5));
});

Deno.test("tokens that come at once ask a URL once", async () => {
  const key = await namedKey("k1");
  await using server = keyServer([key.jwk]);
  const { user } = byKeys(server.url);
  const token = await key.sign({ sub: "Ann" });
  assertEquals(await Promise.all([user(token), user(token), user(token)]), ["Ann", "Ann", "Ann"]);
  assertEquals(server.state.asked, 1);
});

Deno.test("keys of a URL are read again after ten minutes: one that left is refused", async () => {
  const [old, fresh] = [await namedKey("old"), await namedKey("fresh")];
  await using server = keyServer([old.jwk]);
  const { clock, user, refusal } = byKeys(server.url);
  await user(await old.sign({}));
  server.state.keys = undefined;
  clock.tick(599_999);
  await user(await old.sign({}));
  clock.tick(1);
  assertEquals(await refusal(await old.sign({})), later(5), "nobody knows whether it still counts");
  server.state.keys = [fresh.jwk];
  assertEquals(await refusal(await old.sign({})), UNKNOWN);
  assertEquals(await user(await fresh.sign({ sub: "Ann" })), "Ann");
});

Deno.test("the log tells why a URL's keys cannot be read, but not its password", async () => {
  const key = await namedKey("k1");
  const { url } = await (async () => {
    await using server = keyServer([]);
    return server;
  })();
  const { log, refusal } = byKeys(`${url.replace("//", "//parley:secret@")}?key=secret`);
  assertEquals(await refusal(await key.sign({})), later(5));
  const [{ text }] = log.lines;
  assertStringIncludes(text, `Cannot read the keys at ${url}: `);
  assertStringIncludes(text, "refused");
  assertEquals(text.includes("secret"), false);
});

Deno.test("a key that cannot be used is no fault of the token: 503", async () => {
  const key = await namedKey("k1", "ES256");
  await using file = await keyFile({ ...key.jwk, x: "*" });
  const { authorize, refusal } = byKeys(file.path);
  assertEquals(await refusal(await key.sign({})), later(5));
  assertEquals(authorize.figures.keyFailures, 1);
});

Deno.test("keys that cannot be read stop the start with one line", async () => {
  const refused = (jwks: string) => assertThrows(() => byKeys(jwks), OptionError).message;
  assertEquals(refused("/no/such.json"), "Cannot use jwks: no file at /no/such.json");
  assertEquals(refused("https://"), "Cannot use jwks: no URL: https://");
  await using file = await keyFile();
  for (const text of ["{}", '{"keys":[7]}', "null"]) {
    await Deno.writeTextFile(file.path, text);
    const list = 'Cannot use jwks: it has no list of keys named "keys"';
    assertEquals(refused(file.path), list, text);
  }
  await Deno.writeTextFile(file.path, "[");
  assertStringIncludes(refused(file.path), "Cannot use jwks: ");
});
