/**
 * The address of a client, as limits count it.
 *
 * @module
 */

/**
 * The address of a client. Behind `trustedProxies` proxies it is the nth from the right in
 * `X-Forwarded-For`: anybody may have written what is left of it.
 */
export function clientAddress(
  remote: Deno.Addr,
  forwardedFor: string | null,
  trustedProxies: number,
): string {
  const hops = (forwardedFor ?? "").split(",").map((hop) => hop.trim());
  const forwarded = trustedProxies > 0 ? hops.at(-trustedProxies) : undefined;
  if (forwarded) return stripPort(forwarded).slice(0, MAX_LENGTH);
  return "hostname" in remote ? remote.hostname : "unix";
}

/** What an address counts as: an IPv4 address as itself, an IPv6 one as its /64, which one customer has. */
export function addressGroup(address: string): string {
  if (!address.includes(":")) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped) return mapped[1];
  const [head, tail] = address.split("%")[0].split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail ? tail.split(":") : [];
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length);
  const groups = [...left, ...Array<string>(zeros).fill("0"), ...right];
  return groups.slice(0, 4).map((group) => group.replace(/^0+(?=.)/, "").toLowerCase()).join(":") +
    "::/64";
}

/** Longer than any IPv6 address with mapped IPv4 and a zone. */
const MAX_LENGTH = 64;

/** Some proxies write `1.2.3.4:5678` or `[::1]:5678`. */
function stripPort(hop: string): string {
  const bracketed = /^\[([^\]]+)\]/.exec(hop);
  if (bracketed) return bracketed[1];
  return hop.split(":").length === 2 ? hop.split(":")[0] : hop;
}
