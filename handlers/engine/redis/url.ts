/** The URL of Redis. */
import { OptionError } from "../../util/option_error.ts";

/** A URL in its parts. */
export interface RedisUrl {
  kind: "single" | "cluster" | "sentinel";
  /** A URL for each address. */
  seeds: string[];
  /** The name of the primary that Sentinel watches. */
  primary: string;
  database: number;
  /** Gives the URL of a server, with the same credentials. */
  urlOf(address: string): string;
}

/**
 * Reads a URL: `redis://` or `rediss://`, with `user:password@` and `/database` where needed;
 * several addresses with commas are a cluster; `redis+sentinel://host:26379,…/name[/database]`.
 * @throws {OptionError} if it is none of them; the URL is not repeated, as it may hold a password
 */
export function parseRedisUrl(url: string): RedisUrl {
  const [, scheme, credentials = "", hosts, path = ""] =
    /^(redis|rediss|redis\+sentinel):\/\/([^/?#]*@)?([^/?#@]+)(\/[^?#]*)?$/.exec(url) ?? [];
  const isSentinel = scheme === "redis+sentinel";
  const addresses = hosts?.split(",") ?? [];
  const pattern = isSentinel ? /^\/([\w.-]+)(?:\/(\d*))?$/ : /^()\/?(\d*)$/;
  const match = pattern.exec(path);
  const [, primary = "", number = ""] = match ?? [];
  const database = Number(number);
  const isCluster = !isSentinel && addresses.length > 1;
  // Servers name an IPv6 address without brackets.
  const hostOf = (address: string) => address.replace(/^([^[]*:[^[]*)(:\d+)$/, "[$1]$2");
  const urlOf = (address: string) =>
    `${scheme === "rediss" ? scheme : "redis"}://${credentials}${hostOf(address)}` +
    (isCluster ? "" : `/${database}`);
  const seeds = addresses.map((address) => isSentinel ? `redis://${address}` : urlOf(address));
  const isValid = seeds.length > 0 && seeds.every((seed) => URL.canParse(seed));
  if (!isValid || !match || (isCluster && database > 0)) {
    const kinds = "redis://… or rediss://…[/database], several such addresses with commas, " +
      "or redis+sentinel://host:port,…/name";
    throw new OptionError("url", `it is not ${kinds}`);
  }
  const kind = isSentinel ? "sentinel" : isCluster ? "cluster" : "single";
  return { kind, seeds, primary, database, urlOf };
}
