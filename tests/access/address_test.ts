import { assert, assertEquals } from "@std/assert";
import { addressGroup, clientAddress, isLoopback } from "../../handlers/access/address.ts";
import { infoOf } from "../support/fakes.ts";

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
