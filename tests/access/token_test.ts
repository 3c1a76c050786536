import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import type { Grants } from "../../handlers/access/grants.ts";
import { jwtAuthorizer, type JwtOptions } from "../../handlers/access/token.ts";
import type { HttpError } from "../../handlers/protocol/http_error.ts";
import { OptionError } from "../../handlers/util/option_error.ts";
import { FakeClock } from "../support/fakes.ts";
import { rejectionOf, requestWith, SECRET } from "../support/jwt.ts";

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
  for (const value of [undefined, false, "true", 1, {}]) {
    const { publish, admin } = await grantsOf({ publish: value, admin: value });
    assertEquals([publish, admin], [false, false]);
  }
});

Deno.test("a token ends at its `exp`, without leeway", async () => {
  const { clock, now, check, refuse } = bySecret();
  const claims = { exp: now + 60 };
  assertEquals((await check(claims)).expiresAt, clock.now() + 60_000);
  clock.tick(60_000);
  assertEquals(reason(await refuse(claims)), "token_expired: The token has expired.");
});

Deno.test("a token's `nbf` may be 5 s ahead", async () => {
  const { now, check, refuse } = bySecret();
  await check({ nbf: now + 5 });
  assertEquals(reason(await refuse({ nbf: now + 6 })), "bad_token: The token is not valid yet.");
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
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setTimeout(resolve));
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
