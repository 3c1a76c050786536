/** The address of a client, as limits count it. */

/**
 * The address of a client, in its one spelling. Behind `trustedProxies` proxies it is the nth from the
 * right in `X-Forwarded-For`: anybody may have written what is left of it. Where that is no address it
 * is the connection's own, so that nobody gets a limit of their own by writing nonsense.
 */
export function clientAddress(
  remote: Deno.Addr,
  forwardedFor: string | null,
  trustedProxies: number,
): { address: string; isForwarded: boolean } {
  const hop = trustedProxies > 0 ? forwardedFor?.split(",").at(-trustedProxies) : undefined;
  const forwarded = hop === undefined ? undefined : canonicalAddress(hop);
  if (forwarded !== undefined) return { address: forwarded, isForwarded: true };
  const own = "hostname" in remote ? remote.hostname : "unix";
  return { address: canonicalAddress(own) ?? own, isForwarded: false };
}

/** What an address counts as: an IPv4 address as itself, an IPv6 one as its /64, which one customer has. */
export function addressGroup(address: string): string {
  if (!address.includes(":")) return address;
  const [left, right] = address.split("::").map((part) => part === "" ? [] : part.split(":"));
  const zeros = right ? Array<string>(8 - left.length - right.length).fill("0") : [];
  return [...left, ...zeros, ...right ?? []].slice(0, 4).join(":") + "::/64";
}

/** Whether a connection comes from this machine. */
export function isLoopback(remote: Deno.Addr): boolean {
  if (!("hostname" in remote)) return false;
  return /^(?:127\.|::1$)/.test(canonicalAddress(remote.hostname) ?? "");
}

/**
 * The one spelling of an IP address, however a proxy writes it: with a port, in brackets or quotes, with
 * a zone, as IPv4 in IPv6, in capitals, with zeros in front. Nothing if it is none.
 */
function canonicalAddress(text: string): string | undefined {
  const bare = text.trim().replaceAll('"', "").slice(0, MAX_LENGTH);
  const v4 = /^((?:\d{1,3}\.){3}\d{1,3})(?::\d*)?$/.exec(bare)?.[1].split(".").map(Number);
  if (v4) return v4.every((part) => part < 256) ? v4.join(".") : undefined;
  const v6 = /^\[([^\]]*)\]/.exec(bare)?.[1] ?? bare;
  const host = URL.parse(`http://[${v6.split("%")[0]}]`)?.hostname.slice(1, -1);
  const mapped = /^::ffff:([\da-f]+):([\da-f]+)$/.exec(host ?? "")?.slice(1);
  const bytes = mapped?.map((part) => parseInt(part, 16)).flatMap((
    part,
  ) => [part >> 8, part & 255]);
  return bytes?.join(".") ?? host;
}

/** Longer than any IPv6 address with a mapped IPv4 one, a zone and a port. */
const MAX_LENGTH = 100;
