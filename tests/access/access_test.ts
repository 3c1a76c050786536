import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  authorize,
  isAllowedOrigin,
  type Need,
  unavailableReason,
} from "../../handlers/access/access.ts";
import { checkHandshake, isUpgrade, offeredProtocols } from "../../handlers/access/handshake.ts";
import { type Grants, OPEN_GRANTS } from "../../handlers/access/token.ts";
import type { Visitor } from "../../handlers/app.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import { createTestApp, handshakeHeaders, infoOf, type TestAppOptions } from "../support/fakes.ts";

function requestOf(headers: Record<string, string>, method = "GET"): Request {
  return new Request("http://parley.test/chat", { method, headers });
}

/** The refusal of `task` as `status code`. */
async function refusalOf(task: () => unknown): Promise<string> {
  try {
    await task();
  } catch (error) {
    if (error instanceof HttpError) return `${error.status} ${error.code}`;
    throw error;
  }
  return "none";
}

Deno.test("isAllowedOrigin() lets every page in where none is named", () => {
  assert(isAllowedOrigin("https://a.example", []));
  assert(isAllowedOrigin("null", []));
});

Deno.test("isAllowedOrigin() takes a named origin as a whole", () => {
  const allowed = ["https://a.example", "http://localhost:3000"];
  assert(isAllowedOrigin("https://a.example", allowed));
  assert(isAllowedOrigin("http://localhost:3000", allowed));
  for (
    const origin of [
      "http://a.example",
      "https://a.example:8443",
      "https://a.example.evil.example",
      "https://evila.example",
      "http://localhost",
      "null",
      "",
    ]
  ) assert(!isAllowedOrigin(origin, allowed), origin);
});

Deno.test("isAllowedOrigin() takes *.example.com as the hosts below it, not as itself", () => {
  const allowed = ["*.example.com"];
  assert(isAllowedOrigin("https://a.example.com", allowed));
  assert(isAllowedOrigin("http://b.a.example.com:81", allowed));
  for (
    const origin of [
      "https://example.com",
      "https://.example.com",
      "https://evilexample.com",
      "https://a.example.com.evil.example",
      "https://evil.example/a.example.com",
      "https://evil.example?.example.com",
      "null",
      "",
    ]
  ) assert(!isAllowedOrigin(origin, allowed), origin);
});

Deno.test("checkHandshake() tells the dialect that the client asks for", () => {
  const dialectOf = (protocols?: string) =>
    checkHandshake(requestOf({
      ...handshakeHeaders(),
      ...(protocols !== undefined && { "sec-websocket-protocol": protocols }),
    }));
  assertEquals(dialectOf(), "plain");
  assertEquals(dialectOf("parley.v1"), "v1");
  assertEquals(dialectOf("soap, parley.v1"), "v1");
  assertEquals(dialectOf("soap,parley.v1,token.x"), "v1");
  assertEquals(dialectOf("soap"), "plain");
  assertEquals(dialectOf("Parley.v1"), "plain");
  assertEquals(dialectOf("parley.v11"), "plain");
});

Deno.test("checkHandshake() answers 426 to what asks for no WebSocket", async () => {
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
  ) assertEquals(await refusalOf(() => checkHandshake(request)), "426 upgrade_required");
  const { headers } = assertThrows(() => checkHandshake(requestOf({})), HttpError);
  assertEquals(headers, { upgrade: "websocket", connection: "Upgrade" });
});

Deno.test("checkHandshake() answers 426 to another version, and names its own", async () => {
  for (const version of ["8", "14", "13, 8", "013", ""]) {
    const request = requestOf({ ...handshakeHeaders(), "sec-websocket-version": version });
    assertEquals(await refusalOf(() => checkHandshake(request)), "426 bad_version");
    const { headers } = assertThrows(() => checkHandshake(request), HttpError);
    assertEquals(headers, { "sec-websocket-version": "13" });
  }
});

Deno.test("checkHandshake() answers 400 to a key that is not 16 bytes of base64", async () => {
  const keys = ["", "x", "a".repeat(24), "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ== x"];
  keys.push("dGhlIHNhbXBsZSBub25jZTE=", "dGhlIHNhbXBsZSBub25-ZQ==", btoa("17 bytes are here"));
  for (const key of keys) {
    const request = requestOf({ ...handshakeHeaders(), "sec-websocket-key": key });
    assertEquals(await refusalOf(() => checkHandshake(request)), "400 bad_key", key);
  }
  const { "sec-websocket-key": _, ...keyless } = handshakeHeaders();
  assertEquals(await refusalOf(() => checkHandshake(requestOf(keyless))), "400 bad_key");
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

/** Authorizes a request with these headers, or to this URL. */
function enter(
  options: TestAppOptions,
  { headers = {}, path = "/chat/ops", need = "grants", room = "ops" }: {
    headers?: Record<string, string>;
    path?: string;
    need?: Need;
    room?: string;
  },
): Promise<Visitor> {
  const url = new URL(path, "http://parley.test");
  const { app } = createTestApp(options);
  const request = new Request(url, { headers });
  return authorize(app, { request, url, info: infoOf("192.0.2.1", 5), need, room });
}

Deno.test("authorize() answers 403 to a page of another origin, and lets programs in", async () => {
  const options = { settings: { ALLOWED_ORIGINS: ["https://a.example"] } };
  const origin = (origin: string) => () => enter(options, { headers: { origin } });
  assertEquals(await refusalOf(origin("https://a.example")), "none");
  assertEquals(await refusalOf(origin("https://b.example")), "403 forbidden");
  assertEquals(await refusalOf(origin("null")), "403 forbidden");
  assertEquals(await refusalOf(() => enter(options, {})), "none");
});

Deno.test("authorize() tells who comes, through trusted proxies too", async () => {
  const headers = { "x-forwarded-for": "198.51.100.7, 2001:db8:1:2:3::4, 203.0.113.9" };
  const seen = async (TRUST_PROXY: number) => {
    const { remote, address } = await enter({ settings: { TRUST_PROXY } }, { headers });
    return [remote, address];
  };
  assertEquals(await seen(0), ["192.0.2.1:5", "192.0.2.1"]);
  assertEquals(await seen(1), ["203.0.113.9", "203.0.113.9"]);
  assertEquals(await seen(2), ["[2001:db8:1:2:3::4]", "2001:db8:1:2::/64"]);
});

const GRANTS: Grants = { ...OPEN_GRANTS, isAdmin: false, mayHear: (room) => room === "ops" };

Deno.test("authorize() finds the token in header, subprotocol or query, in this order", async () => {
  const seen: string[] = [];
  const tokens = (token: string) => {
    seen.push(token);
    return Promise.resolve(GRANTS);
  };
  const authorization = "Bearer one";
  const offered = { "sec-websocket-protocol": "parley.v1, token.two" };
  const path = "/chat/ops?token=three";
  const { grants } = await enter({ tokens }, { headers: { authorization, ...offered }, path });
  assertEquals(grants, GRANTS);
  await enter({ tokens }, { headers: offered, path });
  await enter({ tokens }, { path });
  assertEquals(seen, ["one", "two", "three"]);
  const traced = () => enter({ tokens, isTraced: true }, { path });
  assertEquals(await refusalOf(traced), "401 bad_token");
});

Deno.test("authorize() checks what a route needs: nothing, a token for the room, or an admin's", async () => {
  const tokens = () => Promise.resolve(GRANTS);
  const headers = { authorization: "Bearer x" };
  assertEquals(await refusalOf(() => enter({ tokens }, {})), "401 no_token");
  assertEquals(await refusalOf(() => enter({ tokens }, { need: "nothing" })), "none");
  assertEquals(await refusalOf(() => enter({ tokens }, { headers })), "none");
  assertEquals(await refusalOf(() => enter({ tokens }, { headers, room: "hr" })), "403 forbidden");
  assertEquals(
    await refusalOf(() => enter({ tokens }, { headers, need: "admin" })),
    "403 forbidden",
  );
  const admin = () => Promise.resolve({ ...GRANTS, isAdmin: true });
  assertEquals(await refusalOf(() => enter({ tokens: admin }, { headers, need: "admin" })), "none");
});
