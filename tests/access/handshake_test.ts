import { assert, assertEquals, assertThrows } from "@std/assert";
import { checkHandshake, isUpgrade, offeredProtocols } from "../../handlers/access/handshake.ts";
import { HttpError } from "../../handlers/protocol/http_error.ts";
import { handshakeHeaders } from "../support/fakes.ts";

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
