import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { addressGroup, clientAddress, isLoopback } from "../../handlers/access/address.ts";
import { OriginRules, SAME_ORIGIN } from "../../handlers/access/origins.ts";
import { OptionError } from "../../handlers/util/option_error.ts";
import { infoOf } from "../support/fakes.ts";

const AWAY = { host: "parley.example", isLocal: false };

/** The origins among these that a list of rules allows. */
function allowed(rules: string[], origins: string[], at = AWAY): string[] {
  const check = new OriginRules(rules);
  return origins.filter((origin) => check.allows(origin, at));
}

Deno.test("`same` allows the server's own host and port, whatever the scheme", () => {
  const own = ["http://parley.example", "https://parley.example", "HTTPS://Parley.Example"];
  const others = [
    "http://parley.example:8000",
    "https://sub.parley.example",
    "https://parley.example.evil.example",
    "https://evilparley.example",
    "http://localhost",
    "capacitor://parley.example",
    "null",
    "",
    "parley.example",
  ];
  assertEquals(allowed(SAME_ORIGIN, [...own, ...others]), own);
});

Deno.test("`same` takes a scheme's own port as none", () => {
  for (const host of ["parley.example", "parley.example:80", "parley.example:443"]) {
    assertEquals(allowed(SAME_ORIGIN, ["https://parley.example"], { host, isLocal: false }), [
      "https://parley.example",
    ]);
  }
  const at = { host: "parley.example:8000", isLocal: false };
  assertEquals(allowed(SAME_ORIGIN, ["http://parley.example", "http://parley.example:8000"], at), [
    "http://parley.example:8000",
  ]);
  assertEquals(allowed(SAME_ORIGIN, ["http://x"], { host: "", isLocal: false }), []);
});

Deno.test("`same` allows loopback pages and a blank tab only where the peer is this machine", () => {
  const pages = [
    "http://localhost:3000",
    "https://localhost",
    "http://app.localhost:5173",
    "http://127.0.0.1:8080",
    "http://127.1.2.3",
    "http://[::1]:3000",
    "null",
  ];
  const others = [
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "http://10.0.0.1",
  ];
  const local = { host: "localhost:8000", isLocal: true };
  assertEquals(allowed(SAME_ORIGIN, [...pages, ...others], local), pages);
  assertEquals(allowed(SAME_ORIGIN, [...pages, ...others], AWAY), []);
});

Deno.test("`*` allows any page, no rule allows none", () => {
  const origins = ["https://a.example", "null", "weird://x"];
  assertEquals(allowed(["*"], origins), origins);
  assertEquals(allowed([], origins, { host: "a.example", isLocal: true }), []);
});

Deno.test("a listed origin is taken as a whole, and whatever a browser can send can be listed", () => {
  const listed = [
    "https://a.example",
    "http://localhost:3000",
    "capacitor://localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "file://",
    "null",
    "http://[::1]:3000",
  ];
  assertEquals(allowed(listed, listed), listed);
  assertEquals(
    allowed(listed.filter((rule) => rule !== "null"), [
      "http://a.example",
      "https://a.example:8443",
      "https://a.example.evil.example",
      "http://localhost",
      "capacitor://localhost.evil",
      "null",
    ]),
    [],
  );
});

Deno.test("`*.example.com` is the hosts below it, by https; `http://*.example.com` by http", () => {
  const origins = [
    "https://a.example.com",
    "https://b.a.example.com:8443",
    "http://a.example.com",
    "https://example.com",
    "https://.example.com",
    "https://evilexample.com",
    "https://a.example.com.evil.example",
    "https://evil.example?.example.com",
    "capacitor://a.example.com",
    "null",
  ];
  assertEquals(allowed(["*.example.com"], origins), origins.slice(0, 2));
  assertEquals(allowed(["https://*.example.com"], origins), origins.slice(0, 2));
  assertEquals(allowed(["http://*.example.com"], origins), ["http://a.example.com"]);
  assertEquals(allowed(["*.example.com:8443"], origins), ["https://b.a.example.com:8443"]);
});

Deno.test("a rule that no browser's origin can match is refused, with the one that was meant", () => {
  const meant: Record<string, string> = {
    "https://a.example/": "write https://a.example",
    "https://a.example/chat": "write https://a.example",
    "https://a.example:443": "write https://a.example",
    "http://127.1": "write http://127.0.0.1",
    "http://[0:0::1]:3000": "write http://[::1]:3000",
    "https://bücher.example": "write https://xn--bcher-kva.example",
    "wss://a.example": "write https://a.example",
    "ws://a.example:8000": "write http://a.example:8000",
    "a.example": "write https://a.example",
    "*.bücher.example": "write https://*.xn--bcher-kva.example",
    "*a.example": "write https://a.example or *.example.com",
    "https://*": "write https://a.example or *.example.com",
    "ftp://*.a.example": "write https://a.example or *.example.com",
    "https://u@a.example": "write https://a.example",
    "": "write https://a.example",
  };
  for (const [rule, hint] of Object.entries(meant)) {
    const { message } = assertThrows(() => new OriginRules(["same", rule]), OptionError);
    assertStringIncludes(message, "Cannot use allowedOrigins: ");
    assertStringIncludes(message, JSON.stringify(rule));
    assertStringIncludes(message, hint);
  }
});

Deno.test("explain() tells what to add, and never a text that is unsafe in a shell", () => {
  const same = new OriginRules(SAME_ORIGIN);
  assertStringIncludes(
    same.explain("https://b.example"),
    "--allowed-origins same,https://b.example would",
  );
  assertStringIncludes(same.explain("null"), "--allowed-origins same,null would");
  const secret = new OriginRules(["https://internal.example"]);
  const text = secret.explain("https://b.example");
  assertStringIncludes(text, "it is not among --allowed-origins (in code allowedOrigins)");
  assert(!text.includes("internal"), "the list is nobody's business");
  for (
    const origin of [
      "https://x;curl evil|sh",
      "https://$(id)",
      "https://a.example/`id`",
      "https://A b",
      "https://b.example:443",
      `https://${"a".repeat(300)}.example`,
      "",
    ]
  ) assertEquals(same.explain(origin), "This origin is not allowed.", origin);
});

const PEER: Deno.NetAddr = { transport: "tcp", hostname: "10.0.0.1", port: 50_000 };
const UNIX: Deno.UnixAddr = { transport: "unix", path: "/tmp/parley.sock" };

/** The client's address behind `trustedProxies` proxies. */
function addressOf(forwardedFor: string | null, trustedProxies = 1, peer: Deno.Addr = PEER) {
  return clientAddress(peer, forwardedFor, trustedProxies).address;
}

Deno.test("clientAddress() is the peer's own where no proxy is trusted", () => {
  assertEquals(clientAddress(PEER, "203.0.113.9", 0), { address: "10.0.0.1", isForwarded: false });
  assertEquals(addressOf(null, 0), "10.0.0.1");
});

Deno.test("clientAddress() counts hops from the right, where the trusted proxies wrote", () => {
  const hops = "6.6.6.6, 203.0.113.9, 192.0.2.1";
  assertEquals(clientAddress(PEER, hops, 1), { address: "192.0.2.1", isForwarded: true });
  assertEquals(addressOf(hops, 2), "203.0.113.9");
});

Deno.test("clientAddress() is the peer's own where the header has too few hops, or no address", () => {
  assertEquals(addressOf("203.0.113.9", 2), "10.0.0.1");
  for (
    const text of ["", null, "unknown", "_hidden", "999.1.1.1", "1::2::3", "a.b", "[", "12:34"]
  ) {
    assertEquals(clientAddress(PEER, text, 1), { address: "10.0.0.1", isForwarded: false });
  }
});

Deno.test("clientAddress() is one for all over a Unix socket without a proxy's word", () => {
  assertEquals(addressOf(null, 0, UNIX), "unix");
  assertEquals(addressOf("203.0.113.9", 1, UNIX), "203.0.113.9");
});

Deno.test("clientAddress() knows an address in each of its spellings", () => {
  const spellings: Record<string, string[]> = {
    "203.0.113.9": [
      " 203.0.113.9 ",
      "203.0.113.9:4711",
      "203.000.113.009",
      "::ffff:203.0.113.9",
      "::FFFF:cb00:7109",
      "0:0:0:0:0:ffff:CB00:7109",
      "[::ffff:203.0.113.9]:4711",
    ],
    "2001:db8::1": [
      "2001:db8::1",
      "2001:0DB8:0000:0000::0001",
      "2001:db8:0:0:0:0:0:1",
      "[2001:db8::1]",
      "[2001:db8::1]:4711",
      '"[2001:db8::1]:4711"',
      "2001:db8::1%eth0",
    ],
  };
  for (const [address, texts] of Object.entries(spellings)) {
    for (const text of texts) assertEquals(addressOf(text), address, text);
    const peer = { ...PEER, hostname: texts.at(-1)!.replaceAll(/^\[|\]:\d+$/g, "") };
    assertEquals(addressOf(null, 0, peer), address, peer.hostname);
  }
});

Deno.test("addressGroup() is an IPv4 address itself, and the /64 of an IPv6 address", () => {
  assertEquals(addressGroup("203.0.113.9"), "203.0.113.9");
  const group = "2001:db8:0:7::/64";
  for (
    const address of [
      "2001:db8:0:7::",
      "2001:db8:0:7::1",
      "2001:db8:0:7:ffff:ffff:ffff:ffff",
      "2001:db8::7:0:0:0:1",
    ]
  ) assertEquals(addressGroup(address), group, address);
  assertEquals(addressGroup("2001:db8:0:8::1"), "2001:db8:0:8::/64");
  assertEquals(addressGroup("::1"), "0:0:0:0::/64");
  assertEquals(addressGroup("fe80::1"), "fe80:0:0:0::/64");
});

Deno.test("whatever stands in a header, an address and its group are short", () => {
  const texts = ["x:y", ":::::", "::", "%", "[]", "[a".repeat(99), "a".repeat(9_000)];
  texts.push("a:".repeat(9_000), `[${"a:".repeat(9_000)}]`, `1%${"z".repeat(99)}`);
  texts.push(`::1%${"z".repeat(9_000)}`, '"'.repeat(9_000));
  for (const text of texts) {
    const address = addressOf(text);
    const lengths = [address.length, addressGroup(address).length];
    assert(Math.min(...lengths) > 0 && Math.max(...lengths) <= 45, `${text}: ${address}`);
  }
});

Deno.test("isLoopback() knows this machine in each family, and no Unix socket", () => {
  const isLocal = (hostname: string) => isLoopback(infoOf(hostname).remoteAddr);
  assert(["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"].every(isLocal));
  assert(!["10.0.0.1", "::2", "::ffff:10.0.0.1", "unknown", "127.evil"].some(isLocal));
  assert(!isLoopback(UNIX));
});
