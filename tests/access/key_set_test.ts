import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { SignJWT } from "jose";
import { jwtAuthorizer } from "../../handlers/access/token.ts";
import { OptionError } from "../../handlers/util/option_error.ts";
import { FakeClock, RecordingLog } from "../support/fakes.ts";
import { namedKey, rejectionOf, requestWith } from "../support/jwt.ts";

/** An authorizer by a key set, with its clock and log. */
function byKeys(jwks: string) {
  const [clock, log] = [new FakeClock(), new RecordingLog()];
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
