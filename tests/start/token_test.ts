import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { decodeJwt } from "jose";
import { jwtAuthorizer } from "../../handlers/access/token.ts";
import { mintToken } from "../../handlers/start/token.ts";
import { SECRET } from "../support/jwt.ts";

/** Mints with SECRET and other variables. */
function mint(args: string[], env: Record<string, string> = {}): Promise<string> {
  return mintToken(args, (name) => ({ AUTH_SECRET: SECRET, ...env })[name]);
}

/** What a server grants for a token. */
function grantsOf(token: string, options = {}) {
  const headers = { authorization: `Bearer ${token}` };
  const authorize = jwtAuthorizer({ secret: SECRET, ...options });
  return authorize(new Request("http://localhost/", { headers }));
}

Deno.test("mintToken() makes the claims that its flags name, for an hour", async () => {
  const token = await mint(["--sub", "ann", "--rooms", "ops, user:*", "--publish"]);
  const { user, name, rooms, speak, publish, admin } = await grantsOf(token);
  assertEquals({ user, name, rooms, speak, publish, admin }, {
    user: "ann",
    name: "ann",
    rooms: ["ops", "user:*"],
    speak: undefined,
    publish: true,
    admin: false,
  });
  const { iat, exp } = decodeJwt(token);
  assertEquals(exp! - iat!, 3_600);
});

Deno.test("mintToken() keeps to --expires, AUTH_ISSUER, AUTH_AUDIENCE and a secret in base64", async () => {
  const secret = `base64:${new TextEncoder().encode(SECRET).toBase64()}`;
  const env = { AUTH_ISSUER: "shop", AUTH_AUDIENCE: "parley", AUTH_SECRET: secret };
  const token = await mint(["--admin", "--expires", "7d"], env);
  assertEquals((await grantsOf(token, { issuer: "shop", audience: "parley" })).admin, true);
  const { iat, exp } = decodeJwt(token);
  assertEquals(exp! - iat!, 7 * 86_400);
});

Deno.test("mintToken() says what it cannot use", async () => {
  const refusal = async (args: string[], env?: Record<string, string>) =>
    (await assertRejects(() => mint(args, env), Error)).message;
  assertMatch(await refusal(["--expires", "soon"]), /--expires: must be like 15m or 1h, is soon/);
  assertMatch(await refusal(["--room", "ops"]), /^Cannot understand "--room"/);
  assertMatch(await refusal([], { AUTH_SECRET: "" }), /AUTH_SECRET is not set/);
  assertMatch(await refusal([], { AUTH_SECRET: "short" }), /it has 5 bytes, at least 32/);
  assertMatch(await refusal(["--name", "a\nb"]), /name/);
});
