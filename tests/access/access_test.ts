import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  Access,
  type Need,
  unavailableReason,
  type Visitor,
} from "../../handlers/access/access.ts";
import { type Authorize, type Grants, OPEN_RIGHTS } from "../../handlers/access/grants.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
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
  await refused("https://b.example");
  assertEquals(log.lines.map(({ level, text }) => [level, text]), [
    ["warn", `Refused a page: ${message}`],
  ]);
  assertStringIncludes(message, "allowed origins same,https://b.example");
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
