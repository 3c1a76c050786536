import { assert, assertEquals, assertRejects } from "@std/assert";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { createTokenCheck, type Grants, OPEN_GRANTS } from "../../handlers/access/token.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import { SettingError } from "../../handlers/util/setting_error.ts";
import { FakeClock } from "../support/fakes.ts";

const SECRET = "a secret of thirty-two characters";
const secretKey = new TextEncoder().encode(SECRET);

function sign(claims: JWTPayload, secret = secretKey, alg = "HS256"): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg }).sign(secret);
}

/** A check by AUTH_SECRET, and its clock. */
async function checkBySecret() {
  const clock = new FakeClock();
  const check = await createTokenCheck({ AUTH_SECRET: SECRET, AUTH_JWKS: "" }, clock);
  return { clock, check: check! };
}

/** What a token with these claims grants. */
async function grantsOf(claims: JWTPayload): Promise<Grants> {
  const { check } = await checkBySecret();
  return await check(await sign(claims));
}

/** A task's refusal; the clock is turned until the task has ended. */
async function refusalOf(clock: FakeClock, task: Promise<unknown>): Promise<HttpError> {
  let isDone = false;
  const turning = (async () => {
    while (!isDone) {
      clock.tick(50);
      await new Promise((resolve) => setTimeout(resolve));
    }
  })();
  const error = await assertRejects(() => task, HttpError);
  isDone = true;
  await turning;
  return error;
}

Deno.test("createTokenCheck() gives no check where tokens are off", async () => {
  assertEquals(
    await createTokenCheck({ AUTH_SECRET: "", AUTH_JWKS: "" }, new FakeClock()),
    undefined,
  );
  assert(OPEN_GRANTS.mayHear("any") && OPEN_GRANTS.maySpeak("any") && OPEN_GRANTS.mayPublish);
});

Deno.test("a token's name is its claim `name`, else `sub`", async () => {
  assertEquals((await grantsOf({ sub: "u1" })).name, "u1");
  const both = await grantsOf({ sub: "u1", name: "Ann" });
  assertEquals([both.subject, both.name], ["u1", "Ann"]);
  assertEquals((await grantsOf({ name: "Ann" })).subject, "Ann");
  assertEquals((await grantsOf({})).name, undefined);
});

Deno.test("a token lets hear the rooms that it lists, by name or by `prefix*`", async () => {
  const grants = await grantsOf({ rooms: ["ops", "team-*"] });
  const heard = ["ops", "team-", "team-a", "team", "opsx", "lobby"].filter(grants.mayHear);
  assertEquals(heard, ["ops", "team-", "team-a"]);
  assertEquals(["ops", "lobby"].filter(grants.maySpeak), ["ops"]);
});

Deno.test("a token without `rooms` lets hear all, with `[]` none, with `*` all", async () => {
  assert((await grantsOf({})).mayHear("any"));
  assert(!(await grantsOf({ rooms: [] })).mayHear("any"));
  assert((await grantsOf({ rooms: ["*"] })).mayHear("any"));
});

Deno.test("a token lets speak where `speak` says, and only in rooms that it lets hear", async () => {
  const { maySpeak, mayHear } = await grantsOf({ rooms: ["ops", "news"], speak: ["ops", "lobby"] });
  assertEquals(["ops", "news", "lobby"].filter(maySpeak), ["ops"]);
  assertEquals(["ops", "news", "lobby"].filter(mayHear), ["ops", "news"]);
  assert(!(await grantsOf({ speak: [] })).maySpeak("ops"));
});

Deno.test("a token lets publish and rule only by a claim that is true itself", async () => {
  const { mayPublish, isAdmin } = await grantsOf({ publish: true, admin: true });
  assertEquals([mayPublish, isAdmin], [true, true]);
  for (const value of [undefined, false, "true", 1, {}]) {
    const grants = await grantsOf({ publish: value, admin: value });
    assertEquals([grants.mayPublish, grants.isAdmin], [false, false]);
  }
});

Deno.test("a token lets hear the server's own rooms only with `admin`, and speak there never", async () => {
  assert(!(await grantsOf({ rooms: ["*", "_status"] })).mayHear("_status"));
  assert((await grantsOf({ admin: true, rooms: [] })).mayHear("_status"));
});

Deno.test("a token ends at its `exp`", async () => {
  const { clock, check } = await checkBySecret();
  const exp = clock.now() / 1_000 + 60;
  const token = await sign({ exp });
  assertEquals((await check(token)).expiresAt, exp * 1_000);
  clock.tick(60_000);
  assertEquals((await refusalOf(clock, check(token))).code, "token_expired");
});

/** Tokens that must be refused, by what is wrong with them. */
async function badTokens(clock: FakeClock): Promise<Record<string, string>> {
  const good = await sign({ sub: "Ann", admin: false });
  const [header, body, signature] = good.split(".");
  const forged = btoa(JSON.stringify({ sub: "Ann", admin: true })).replaceAll("=", "");
  const { privateKey } = await generateKeyPair("RS256");
  const foreign = new TextEncoder().encode("another secret of 32 characters!");
  const noneInCapitals = btoa('{"alg":"NONE"}').replaceAll("=", "");
  return {
    "alg none": new UnsecuredJWT({ sub: "Ann" }).encode(),
    "alg NONE": `${noneInCapitals}.${body}.`,
    "foreign key": await sign({ sub: "Ann" }, foreign),
    "another algorithm with our key": await sign({ sub: "Ann" }, secretKey, "HS512"),
    "an asymmetric key": await new SignJWT({}).setProtectedHeader({ alg: "RS256" }).sign(
      privateKey,
    ),
    "changed claims": `${header}.${forged}.${signature}`,
    "no signature": `${header}.${body}.`,
    "two parts": `${header}.${body}`,
    "no token": "Ann",
    "nothing": "",
    "very long": "a".repeat(8_000) + "." + body + "." + signature,
    "not yet": await sign({ nbf: clock.now() / 1_000 + 60 }),
    "a name with a line break": await sign({ name: "Ann\nBob" }),
    "a name that is no text": await sign({ name: 7 }),
    "rooms that are no list": await sign({ rooms: "ops" }),
    "a room that is no text": await sign({ rooms: ["ops", 1] }),
    "speak that is no list": await sign({ speak: { ops: true } }),
    "expired": await sign({ exp: clock.now() / 1_000 - 1 }),
  };
}

Deno.test("a bad token is refused with 401, a code, and no word about why", async () => {
  const { clock, check } = await checkBySecret();
  for (const [what, token] of Object.entries(await badTokens(clock))) {
    const error = await refusalOf(clock, check(token));
    const isExpired = what === "expired";
    assertEquals(error.status, 401, what);
    assertEquals(error.code, isExpired ? "token_expired" : "bad_token", what);
    assertEquals(
      error.message,
      isExpired ? "The token has expired." : "The token is not valid.",
      what,
    );
    assertEquals(error.headers, { "www-authenticate": "Bearer" }, what);
  }
});

Deno.test("every refusal takes the same time: 50 ms, whatever is wrong", async () => {
  const { clock, check } = await checkBySecret();
  for (const [what, token] of Object.entries(await badTokens(clock))) {
    let isSettled = false;
    const asked = assertRejects(() => check(token), HttpError).then(() => isSettled = true);
    clock.tick(49);
    // More turns than the verification needs.
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve));
    assert(!isSettled, `${what} is refused too early`);
    clock.tick(1);
    await asked;
  }
  assertEquals(clock.timerCount, 0);
});

Deno.test("a good token leaves no timer behind", async () => {
  const { clock, check } = await checkBySecret();
  await check(await sign({ sub: "Ann" }));
  assertEquals(clock.timerCount, 0);
});

/** A key pair for a key set, under a name. */
async function namedKey(kid: string, alg = "ES256") {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = { ...await exportJWK(publicKey), kid, alg, use: "sig" };
  const signAs = (claims: JWTPayload, header = { alg, kid }) =>
    new SignJWT(claims).setProtectedHeader(header).sign(privateKey);
  return { jwk, sign: signAs };
}

/** A file of keys, written anew by `write`. */
async function keyFile(...keys: object[]) {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  const write = (...keys: object[]) => Deno.writeTextFile(path, JSON.stringify({ keys }));
  await write(...keys);
  return { path, write, [Symbol.asyncDispose]: () => Deno.remove(path) };
}

Deno.test("AUTH_JWKS takes each kind of key", async () => {
  for (const alg of ["RS256", "PS256", "ES256", "ES384", "EdDSA"]) {
    const key = await namedKey("k1", alg);
    await using file = await keyFile(key.jwk);
    const check = await createTokenCheck(
      { AUTH_SECRET: "", AUTH_JWKS: file.path },
      new FakeClock(),
    );
    assertEquals((await check!(await key.sign({ sub: "Ann" }))).name, "Ann", alg);
  }
});

Deno.test("AUTH_JWKS refuses a foreign key of the same name, and its public key as a secret", async () => {
  const [key, foreign] = [await namedKey("k1", "RS256"), await namedKey("k1", "RS256")];
  await using file = await keyFile(key.jwk);
  const clock = new FakeClock();
  const check = await createTokenCheck({ AUTH_SECRET: "", AUTH_JWKS: file.path }, clock);
  const publicKey = new TextEncoder().encode(JSON.stringify(key.jwk));
  const confused = await new SignJWT({ sub: "Ann" })
    .setProtectedHeader({ alg: "HS256", kid: "k1" }).sign(publicKey);
  for (const token of [await foreign.sign({ sub: "Ann" }), confused]) {
    assertEquals((await refusalOf(clock, check!(token))).code, "bad_token");
  }
});

Deno.test("AUTH_JWKS looks into its file every 5 s: a new key comes, one that left is refused", async () => {
  const [old, fresh] = [await namedKey("old"), await namedKey("fresh")];
  await using file = await keyFile(old.jwk);
  const clock = new FakeClock();
  const check = (await createTokenCheck({ AUTH_SECRET: "", AUTH_JWKS: file.path }, clock))!;
  await file.write(fresh.jwk);
  assertEquals(
    (await refusalOf(clock, check(await fresh.sign({})))).code,
    "bad_token",
    "too early",
  );
  clock.tick(5_000);
  assertEquals((await check(await fresh.sign({ sub: "Ann" }))).name, "Ann");
  assertEquals((await refusalOf(clock, check(await old.sign({})))).code, "bad_token", "retired");
  await file.write();
  clock.tick(5_000);
  assertEquals((await refusalOf(clock, check(await fresh.sign({})))).code, "bad_token", "revoked");
});

Deno.test("AUTH_JWKS keeps its keys while the file cannot be read", async () => {
  const [old, fresh] = [await namedKey("old"), await namedKey("fresh")];
  await using file = await keyFile(old.jwk);
  const clock = new FakeClock();
  const check = (await createTokenCheck({ AUTH_SECRET: "", AUTH_JWKS: file.path }, clock))!;
  await Deno.writeTextFile(file.path, '{"keys":[');
  clock.tick(5_000);
  await refusalOf(clock, check(await fresh.sign({})));
  assertEquals((await check(await old.sign({ sub: "Ann" }))).name, "Ann");
});

/** A server of keys that counts who asks. */
function keyServer(keys: object[]) {
  const state = { keys: keys as object[] | undefined, asked: 0 };
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, () => {
    state.asked++;
    return Response.json({ keys: state.keys });
  });
  const url = `http://127.0.0.1:${server.addr.port}/keys.json`;
  return { state, url, [Symbol.asyncDispose]: () => server.shutdown() };
}

Deno.test("AUTH_JWKS asks a URL once for many tokens, and again for a new key after a pause", async () => {
  const [old, fresh] = [await namedKey("old"), await namedKey("fresh")];
  await using server = keyServer([old.jwk]);
  const clock = new FakeClock();
  const check = (await createTokenCheck({ AUTH_SECRET: "", AUTH_JWKS: server.url }, clock))!;
  for (let times = 0; times < 20; times++) await check(await old.sign({ sub: "Ann" }));
  assertEquals(server.state.asked, 1);

  server.state.keys = [old.jwk, fresh.jwk];
  for (let times = 0; times < 5; times++) await refusalOf(clock, check(await fresh.sign({})));
  assertEquals(server.state.asked, 1, "unknown keys do not make the server ask each time");

  // The library looks at the machine's clock.
  const { now } = Date;
  Date.now = () => now() + 31_000;
  try {
    assertEquals((await check(await fresh.sign({ sub: "Bob" }))).name, "Bob");
  } finally {
    Date.now = now;
  }
  assertEquals(server.state.asked, 2);
});

Deno.test("a URL that gives no keys is no fault of the token: 503, and later it is checked", async () => {
  const key = await namedKey("k1");
  await using server = keyServer([key.jwk]);
  const clock = new FakeClock();
  const check = (await createTokenCheck({ AUTH_SECRET: "", AUTH_JWKS: server.url }, clock))!;
  server.state.keys = undefined;
  const error = await refusalOf(clock, check(await key.sign({})));
  assertEquals([error.status, error.code, error.headers], [503, "unavailable", {
    "retry-after": "5",
  }]);
  server.state.keys = [key.jwk];
  assertEquals((await check(await key.sign({ sub: "Ann" }))).name, "Ann");
});

Deno.test("keys that cannot be read stop the start with one line", async () => {
  const create = (AUTH_JWKS: string) =>
    createTokenCheck({ AUTH_SECRET: "", AUTH_JWKS }, new FakeClock());
  await assertRejects(() => create("/no/such.json"), SettingError, "no file at /no/such.json");
  await assertRejects(() => create("https://"), SettingError, "no URL: https://");
  await using file = await keyFile();
  await Deno.writeTextFile(file.path, "{}");
  await assertRejects(() => create(file.path), SettingError, "Cannot read AUTH_JWKS: ");
});
