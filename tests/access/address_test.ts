import { assert, assertEquals } from "@std/assert";
import { addressGroup, clientAddress } from "../../handlers/access/address.ts";

const PEER: Deno.NetAddr = { transport: "tcp", hostname: "10.0.0.1", port: 50_000 };
const UNIX: Deno.UnixAddr = { transport: "unix", path: "/tmp/parley.sock" };

Deno.test("clientAddress() is the peer's own where no proxy is trusted", () => {
  assertEquals(clientAddress(PEER, "203.0.113.9", 0), "10.0.0.1");
  assertEquals(clientAddress(PEER, null, 0), "10.0.0.1");
});

Deno.test("clientAddress() counts hops from the right, where the trusted proxies wrote", () => {
  const hops = "6.6.6.6, 203.0.113.9, 192.0.2.1";
  assertEquals(clientAddress(PEER, hops, 1), "192.0.2.1");
  assertEquals(clientAddress(PEER, hops, 2), "203.0.113.9");
});

Deno.test("clientAddress() is the peer's own where the header has too few hops", () => {
  assertEquals(clientAddress(PEER, "203.0.113.9", 2), "10.0.0.1");
  assertEquals(clientAddress(PEER, "", 1), "10.0.0.1");
  assertEquals(clientAddress(PEER, null, 1), "10.0.0.1");
});

Deno.test("clientAddress() is one for all over a Unix socket without a proxy's word", () => {
  assertEquals(clientAddress(UNIX, null, 0), "unix");
  assertEquals(clientAddress(UNIX, "203.0.113.9", 1), "203.0.113.9");
});

Deno.test("clientAddress() takes the port off, as some proxies write one", () => {
  assertEquals(clientAddress(PEER, "203.0.113.9:4711", 1), "203.0.113.9");
  assertEquals(clientAddress(PEER, "[2001:db8::1]:4711", 1), "2001:db8::1");
  assertEquals(clientAddress(PEER, "2001:db8::1", 1), "2001:db8::1");
});

Deno.test("addressGroup() is an IPv4 address itself, also where it is mapped into IPv6", () => {
  assertEquals(addressGroup("203.0.113.9"), "203.0.113.9");
  assertEquals(addressGroup("::ffff:203.0.113.9"), "203.0.113.9");
  assertEquals(addressGroup("::FFFF:203.0.113.9"), "203.0.113.9");
});

Deno.test("addressGroup() is the /64 of an IPv6 address, however it is written", () => {
  const group = "2001:db8:0:7::/64";
  for (
    const address of [
      "2001:db8:0:7::",
      "2001:db8:0:7::1",
      "2001:db8:0:7:ffff:ffff:ffff:ffff",
      "2001:0DB8:0000:0007:0:0:0:1",
      "2001:db8:0:7::1%eth0",
    ]
  ) assertEquals(addressGroup(address), group, address);
  assertEquals(addressGroup("2001:db8::7:0:0:0:1"), group);
  assertEquals(addressGroup("2001:db8:0:8::1"), "2001:db8:0:8::/64");
  assertEquals(addressGroup("::1"), "0:0:0:0::/64");
  assertEquals(addressGroup("fe80::1"), "fe80:0:0:0::/64");
});

Deno.test("whatever stands in a header, an address and its group are short", () => {
  const texts = ["unix", "x:y", ":::::", "::", "1::2::3", "%", "[", "[]", "[a".repeat(99)];
  texts.push(
    "a".repeat(9_000),
    "a:".repeat(9_000),
    `[${"a:".repeat(9_000)}]`,
    `1%${"z".repeat(99)}`,
  );
  for (const text of texts) {
    const address = clientAddress(PEER, text, 1);
    const lengths = [address.length, addressGroup(address).length];
    assert(Math.min(...lengths) > 0 && Math.max(...lengths) <= 70, `${text}: ${address}`);
  }
});
