import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  Access,
  type Need,
  unavailableReason,
  type Visitor,
} from "../../handlers/access/access.ts";
import {
  type Authorize,
  type Grants,
  OPEN_RIGHTS,
  rightsOf,
} from "../../handlers/access/grants.ts";
import { checkHandshake, isUpgrade, offeredProtocols } from "../../handlers/access/handshake.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import { nextTurn } from "../support/inbox.ts";
import { createTestApp, handshakeHeaders, infoOf, RecordingLog } from "../support/fakes.ts";

Deno.test("unavailableReason() tells why nobody new should come", async () => {
  const { registry } = createTestApp({ settings: { MAX_CONNECTIONS: 1 } });
  assertEquals(unavailableReason(registry), undefined);
  registry.isOverMemory = true;
  assertEquals(unavailableReason(registry), "overloaded");
  const slot = await registry.acquire("192.0.2.1");
  assertEquals(unavailableReason(registry), "full");
  registry.isDraining = true;
  assertEquals(unavailableReason(registry), "draining");
  [registry.isDraining, registry.isOverMemory] = [false, false];
  assert(typeof slot === "object");
  slot.release();
  assertEquals(unavailableReason(registry), undefined);
});

/** Rules, and a request to check by them. */
interface Case {
  allowedOrigins?: string[];
  trustedProxies?: number;
  authorize?: Authorize;
  log?: RecordingLog;
  headers?: Record<string, string>;
  path?: string;
  need?: Need;
  room?: string;
  hostname?: string;
}

/** The visitor that a request brings, or the refusal as `status code`. */
async function enter(options: Case): Promise<Visitor | Response | string> {
  const { allowedOrigins = ["same"], trustedProxies = 0, authorize, headers = {} } = options;
  const { log = new RecordingLog(), path = "/chat/ops", need = "grants", room = "ops" } = options;
  const access = new Access({ allowedOrigins, trustedProxies, authorize, log });
  const request = new Request(new URL(path, "http://parley.test"), { headers });
  const info = infoOf(options.hostname ?? "192.0.2.1", 5);
  try {
    return await access.authorize({ request, info, need, room });
  } catch (error) {
    if (error instanceof HttpError) return `${error.status} ${error.code}`;
    throw error;
  }
}

/** The same, of who must be let in. */
async function visitorOf(options: Case): Promise<Visitor> {
  const visitor = await enter(options);
  if (typeof visitor === "string" || visitor instanceof Response) {
    throw new Error(`It was refused: ${visitor}`);
  }
  return visitor;
}

Deno.test("Access refuses a page of another origin with 403, and lets programs in", async () => {
  const allowedOrigins = ["https://a.example"];
  await visitorOf({ allowedOrigins });
  await visitorOf({ allowedOrigins, headers: { origin: "https://a.example" } });
  for (const origin of ["https://b.example", "null"]) {
    assertEquals(await enter({ allowedOrigins, headers: { origin } }), "403 forbidden", origin);
  }
});

Deno.test("Access takes the server's own host from Host, else from the URL", async () => {
  await visitorOf({ headers: { origin: "https://parley.test" } });
  const headers = { host: "chat.example", origin: "https://chat.example" };
  await visitorOf({ headers });
  assertEquals(
    await enter({ headers: { ...headers, origin: "http://parley.test" } }),
    "403 forbidden",
  );
});

Deno.test("Access lets loopback pages in from this machine, but not through a proxy on it", async () => {
  for (const origin of ["http://localhost:3000", "null"]) {
    const headers = { origin };
    for (const hostname of ["127.0.0.1", "::1", "::ffff:127.0.0.1"]) {
      await visitorOf({ headers, hostname });
      const proxied = await enter({ headers, hostname, trustedProxies: 1 });
      assertEquals(proxied, "403 forbidden");
    }
    assertEquals(await enter({ headers, hostname: "192.0.2.1" }), "403 forbidden");
  }
});

Deno.test("a refused origin is one line at `warn`, once, and of at most 100 origins", async () => {
  const log = new RecordingLog();
  const { app } = createTestApp();
  const access = new Access({ ...app, log });
  const refused = (origin: string) => {
    const request = new Request("http://parley.test/chat", { headers: { origin } });
    const asked = { request, info: infoOf("192.0.2.1"), need: "grants" } as const;
    return assertRejects(() => access.authorize(asked), HttpError);
  };
  const { message } = await refused("https://b.example");
  for (const again of ["https://b.example", "HTTPS://B.example"]) await refused(again);
  assertEquals(log.lines.map(({ level, text }) => [level, text]), [
    ["warn", `Refused a page: ${message}`],
  ]);
  assertStringIncludes(message, "--allowed-origins same,https://b.example would");
  for (let index = 0; index < 200; index++) await refused(`https://${index}.example`);
  await refused("https://" + "b".repeat(5_000));
  assertEquals(log.lines.length, 100);
});

Deno.test("Access tells who comes, through trusted proxies too", async () => {
  const headers = { "x-forwarded-for": "198.51.100.7, 2001:db8:1:2:3::4, 203.0.113.9" };
  const seen = async (trustedProxies: number) => {
    const { remote, address, rateKey } = await visitorOf({ trustedProxies, headers });
    assertEquals(rateKey, address);
    return [remote, address];
  };
  assertEquals(await seen(0), ["192.0.2.1:5", "192.0.2.1"]);
  assertEquals(await seen(1), ["203.0.113.9", "203.0.113.9"]);
  assertEquals(await seen(2), ["[2001:db8:1:2:3::4]", "2001:db8:1:2::/64"]);
  assertEquals((await visitorOf({ hostname: "::1" })).remote, "[::1]:5");
});

Deno.test("Access asks `authorize` with request and room, unless a route needs nothing", async () => {
  const asked: unknown[] = [];
  const authorize: Authorize = ({ url }, room) => {
    asked.push([new URL(url).pathname, room]);
    return { user: "ann", rooms: ["ops"] };
  };
  const { rights, rateKey } = await visitorOf({ authorize });
  assertEquals([rights.user, rights.isAdmin, rateKey], ["ann", false, "user ann"]);
  assertEquals(asked, [["/chat/ops", "ops"]]);
  const open = await visitorOf({ authorize, need: "nothing" });
  assertEquals([open.rights, asked.length], [OPEN_RIGHTS, 1]);
  assertEquals((await visitorOf({})).rights, OPEN_RIGHTS);
});

Deno.test("Access refuses by Response, by a room that is not granted, and by a missing `admin`", async () => {
  const refusal = new Response("no", { status: 418 });
  assertEquals(await enter({ authorize: () => refusal }), refusal);
  const by = (grants: Grants, options: Case = {}) => enter({ ...options, authorize: () => grants });
  assertEquals(await by({ rooms: ["ops"] }, { room: "hr" }), "403 forbidden");
  assertEquals(await by({ rooms: ["ops"] }, { need: "admin" }), "403 forbidden");
  const admin = await visitorOf({ authorize: () => ({ admin: true }), need: "admin" });
  assertEquals([admin.rights.isAdmin, admin.rateKey], [true, undefined]);
});

Deno.test("Access throws what `authorize` throws, and what it returns wrongly", async () => {
  const boom = () => {
    throw new RangeError("boom");
  };
  await assertRejects(() => enter({ authorize: boom }), RangeError);
  await assertRejects(
    () => enter({ authorize: () => Promise.reject(new RangeError()) }),
    RangeError,
  );
  await assertRejects(
    () => enter({ authorize: () => ({ name: "a\nb" }) }),
    TypeError,
    "is no name",
  );
});

Deno.test("a refusal is one line at `debug` with its reason, and never the token", async () => {
  const log = new RecordingLog(true);
  const authorize = () => {
    throw new HttpError(401, "bad_token", "The token's signature is wrong.");
  };
  await enter({ log, authorize, headers: { authorization: "Bearer s3cret" } });
  assertEquals(log.lines, [{
    level: "debug",
    text: "Refused 192.0.2.1:5: The token's signature is wrong.",
    fields: { event: "refused", remote: "192.0.2.1:5", code: "bad_token" },
  }]);
});

Deno.test("rules with {sub} that name no room are one line at `debug`, and never the token", async () => {
  const lines = async (grants: Grants, headers = { authorization: "Bearer s3cret" }) => {
    const log = new RecordingLog(true);
    await visitorOf({ log, headers, authorize: () => grants });
    return log.lines.map(({ level, text }) => `${level}: ${text}`);
  };
  const rules = { rooms: ["ops", "team:{sub}:*"], listen: ["lobby", "user:{sub}"] };
  for (const user of ["auth0|1", "ann@mail.example", "a".repeat(64), undefined]) {
    const found = JSON.stringify({ sub: user, rules: ["team:{sub}:*", "user:{sub}"] });
    assertEquals(await lines({ user, ...rules }), [
      `debug: Rules of 192.0.2.1:5 name no room: ${found}`,
    ]);
  }
  assertEquals(await lines({ user: "auth0.1", ...rules }), []);
  assertEquals(await lines({ user: "auth0|1", rooms: ["ops", "user:*"] }), []);
});

Deno.test("an `authorize` that does not answer has 30 s, at the door and for a fresh token", async () => {
  const { clock, ask, app, log } = createTestApp({ authorize: () => new Promise(() => {}) });
  const asked = ask("/rooms");
  clock.tick(29_999);
  assertEquals([log.lines.length, clock.timerCount > 0], [0, true]);
  clock.tick(1);
  const answer = await asked;
  assertEquals([answer.status, (await answer.json()).message], [500, "Server error."]);
  assertMatch(log.lines[0].text, /^Cannot answer GET of .*: Error: authorize did not answer/);
  let isAnswering = true;
  const authorize = () => isAnswering ? {} : new Promise<Grants>(() => {});
  const access = new Access({ ...app, authorize });
  const request = new Request("http://parley.test/chat", { headers: handshakeHeaders() });
  const visitor = await access.authorize({ request, info: infoOf("192.0.2.1", 5), need: "grants" });
  isAnswering = false;
  const renewed = (visitor as Visitor).renew!("fresh");
  await nextTurn();
  clock.tick(30_000);
  await assertRejects(() => renewed, Error, "authorize did not answer");
});

Deno.test("renew() asks `authorize` again with the upgrade's URL and headers, and the new token", async () => {
  const asked: unknown[] = [];
  const authorize: Authorize = ({ url, headers }, room) => {
    const authorization = headers.get("authorization");
    asked.push([url, headers.get("cookie"), authorization, room]);
    if (authorization === "Bearer bad") return new Response(null, { status: 401 });
    return { user: authorization ?? undefined };
  };
  const headers = { ...handshakeHeaders(), cookie: "a=b", authorization: "Bearer old" };
  const { renew } = await visitorOf({ authorize, headers, path: "/chat/ops?x=1" });
  assertEquals((await renew!("new")).user, "Bearer new");
  await assertRejects(() => renew!("bad"), HttpError);
  await assertRejects(() => renew!("two\nlines"), TypeError);
  const url = "http://parley.test/chat/ops?x=1";
  assertEquals(asked, [
    [url, "a=b", "Bearer old", "ops"],
    [url, "a=b", "Bearer new", "ops"],
    [url, "a=b", "Bearer bad", "ops"],
  ]);
  const other = await visitorOf({ authorize, headers: { authorization: "Bearer old" } });
  assert(!other.renew, "only a socket can send a token");
});

const ROOMS = ["ops", "opsx", "team-", "team-a", "team", "lobby", "user:ann", "user:bob", "user:*"];

/** The rooms that these grants let a visitor subscribe to, and speak in. */
function roomsOf(grants: Grants): [string[], string[]] {
  const { maySubscribe, maySpeak } = rightsOf(grants);
  return [ROOMS.filter(maySubscribe), ROOMS.filter(maySpeak)];
}

Deno.test("OPEN_RIGHTS allow everything", () => {
  const { maySubscribe, maySpeak, mayPublish, isAdmin } = OPEN_RIGHTS;
  assert(maySubscribe("any") && maySubscribe("_stats") && maySpeak("any") && mayPublish && isAdmin);
});

Deno.test("rightsOf() reads rooms by name and by `prefix*`; missing is all, empty is none", () => {
  assertEquals(roomsOf({ rooms: ["ops", "team-*"] })[0], ["ops", "team-", "team-a"]);
  assertEquals(roomsOf({})[0], ROOMS);
  assertEquals(roomsOf({ rooms: ["*"] })[0], ROOMS);
  assertEquals(roomsOf({ rooms: [] })[0], []);
});

Deno.test("rightsOf() lets a visitor speak where `speak` says, and only in granted rooms", () => {
  assertEquals(roomsOf({ rooms: ["ops", "team"], speak: ["ops", "lobby"] })[1], ["ops"]);
  assertEquals(roomsOf({ rooms: ["ops", "team"] })[1], ["ops", "team"]);
  assertEquals(roomsOf({ speak: [] })[1], []);
});

Deno.test("rightsOf() grants `publish` and `admin` only where they are true", () => {
  const { mayPublish, isAdmin } = rightsOf({ publish: true, admin: true });
  assertEquals([mayPublish, isAdmin], [true, true]);
  const none = rightsOf({});
  assertEquals([none.mayPublish, none.isAdmin], [false, false]);
});

Deno.test("rightsOf() keeps the server's own rooms for an admin, who speaks there as little", () => {
  assert(!rightsOf({ rooms: ["*", "_stats"], listen: ["_stats"] }).maySubscribe("_stats"));
  assert(rightsOf({ admin: true, rooms: [] }).maySubscribe("_stats"));
});

Deno.test("rightsOf() grants `listen` rooms in addition to `rooms`, to subscribe and not to speak", () => {
  const grants = { user: "ann", rooms: ["ops"], listen: ["user:{sub}", "lobby"] };
  assertEquals(rightsOf(grants).listen, ["user:ann", "lobby"]);
  assertEquals(roomsOf(grants), [["ops", "lobby", "user:ann"], ["ops"]]);
});

Deno.test("{sub} is the user in each rule, also one who is called like a rule", () => {
  const rules = { rooms: ["user:{sub}", "{sub}*"], speak: ["user:{sub}"], listen: ["user:{sub}"] };
  assertEquals(roomsOf({ user: "ann", ...rules }), [["user:ann"], ["user:ann"]]);
  assertEquals(roomsOf({ user: "*", ...rules })[0], ["user:*"]);
  assertEquals(roomsOf({ user: "team", ...rules })[0], ["team-", "team-a", "team"]);
  assertEquals(roomsOf({ user: "$&", rooms: ["{sub}"] })[0], []);
});

Deno.test("{sub} without a user is no room", () => {
  const rules = { rooms: ["user:{sub}", "{sub}*", "ops"], listen: ["user:{sub}"] };
  assertEquals(roomsOf(rules)[0], ["ops"]);
  assertEquals(rightsOf(rules).listen, []);
});

Deno.test("`listen` names rooms, and what names none is left out", () => {
  const listen = ["ops", "user:{sub}", "user:*", "a b", ""];
  assertEquals(rightsOf({ user: "auth0|7", listen }).listen, ["ops"]);
  assert(!rightsOf({ user: "auth0|7", rooms: [], listen }).maySubscribe("user:auth0|7"));
});

Deno.test("rightsOf() counts idempotency keys by user, else by name", () => {
  assertEquals(rightsOf({ user: "u1", name: "Ann" }).subject, "u1");
  assertEquals(rightsOf({ name: "Ann" }).subject, "Ann");
  assertEquals(rightsOf({}).subject, "");
});

Deno.test("rightsOf() refuses what is of the wrong kind", () => {
  const wrong: [unknown, string][] = [
    [{ name: "Ann\nBob" }, '"Ann\\nBob" is no name'],
    [{ user: 7 }, "7 is no user"],
    [{ user: null }, "null is no user"],
    [{ expiresAt: "2030-01-01" }, '"2030-01-01" is no time'],
    [{ expiresAt: NaN }, "null is no time"],
    [{ rooms: "user:*" }, '"user:*" is no list of rooms'],
    [{ speak: "*" }, '"*" is no list of rooms'],
    [["ops"], '"[object Array]" is no Grants'],
  ];
  for (const [grants, text] of wrong) {
    assertThrows(() => rightsOf(grants as Grants), TypeError, text);
  }
  for (const grants of [{ rooms: [7] }, { rooms: null }, { listen: "ops" }]) {
    assertThrows(() => rightsOf(grants as unknown as Grants), TypeError);
  }
});

function requestOf(headers: Record<string, string>, method = "GET"): Request {
  return new Request("http://parley.test/chat", { method, headers });
}

/** The refusal of a handshake as `status code`. */
function refusalOf(request: Request): string {
  const { status, code } = assertThrows(() => checkHandshake(request), HttpError);
  return `${status} ${code}`;
}

Deno.test("checkHandshake() tells the dialect that the client asks for", () => {
  const dialectOf = (protocols?: string) =>
    checkHandshake(requestOf({
      ...handshakeHeaders(),
      ...(protocols !== undefined && { "sec-websocket-protocol": protocols }),
    })).name;
  assertEquals(dialectOf(), "plain");
  assertEquals(dialectOf("parley.v1"), "v1");
  assertEquals(dialectOf("soap, parley.v1"), "v1");
  assertEquals(dialectOf("soap,parley.v1,token.x"), "v1");
  assertEquals(dialectOf("soap"), "plain");
  assertEquals(dialectOf("Parley.v1"), "plain");
  assertEquals(dialectOf("parley.v11"), "plain");
});

Deno.test("checkHandshake() answers 426 to what asks for no WebSocket", () => {
  const good = handshakeHeaders();
  const { upgrade: _, ...withoutUpgrade } = good;
  const { connection: __, ...withoutConnection } = good;
  for (
    const request of [
      requestOf({}),
      requestOf(withoutUpgrade),
      requestOf(withoutConnection),
      requestOf({ ...good, upgrade: "h2c" }),
      requestOf({ ...good, connection: "close" }),
      requestOf(good, "POST"),
    ]
  ) assertEquals(refusalOf(request), "426 upgrade_required");
  const { headers } = assertThrows(() => checkHandshake(requestOf({})), HttpError);
  assertEquals(headers, { upgrade: "websocket", connection: "Upgrade" });
});

Deno.test("checkHandshake() answers 426 to another version, and names its own", () => {
  for (const version of ["8", "14", "13, 8", "013", ""]) {
    const request = requestOf({ ...handshakeHeaders(), "sec-websocket-version": version });
    assertEquals(refusalOf(request), "426 bad_version");
    const { headers } = assertThrows(() => checkHandshake(request), HttpError);
    assertEquals(headers, { "sec-websocket-version": "13" });
  }
});

Deno.test("checkHandshake() answers 400 to a key that is not 16 bytes of base64", () => {
  const keys = ["", "x", "a".repeat(24), "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ== x"];
  keys.push("dGhlIHNhbXBsZSBub25jZTE=", "dGhlIHNhbXBsZSBub25-ZQ==", btoa("17 bytes are here"));
  for (const key of keys) {
    const request = requestOf({ ...handshakeHeaders(), "sec-websocket-key": key });
    assertEquals(refusalOf(request), "400 bad_key", key);
  }
  const { "sec-websocket-key": _, ...keyless } = handshakeHeaders();
  assertEquals(refusalOf(requestOf(keyless)), "400 bad_key");
});

Deno.test("isUpgrade() reads lists of tokens in any case", () => {
  const headers = (upgrade: string, connection: string) => new Headers({ upgrade, connection });
  assert(isUpgrade(headers("websocket", "Upgrade")));
  assert(isUpgrade(headers("WebSocket", "keep-alive, upgrade")));
  assert(isUpgrade(headers("h2c , WEBSOCKET", "Upgrade,keep-alive")));
  assert(!isUpgrade(headers("websockets", "Upgrade")));
  assert(!isUpgrade(headers("websocket", "keep-alive")));
  assert(!isUpgrade(new Headers()));
});

Deno.test("offeredProtocols() keeps the client's order", () => {
  const headers = new Headers({ "sec-websocket-protocol": "b,  a ,c" });
  assertEquals(offeredProtocols(headers), ["b", "a", "c"]);
});
