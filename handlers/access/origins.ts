/**
 * Which pages may connect. `handlers/README.md`, Origins.
 *
 * @module
 */
import { SettingError } from "../util/setting_error.ts";

/** Where a request arrived. */
export interface Arrival {
  /** `Host`, or the host of the URL. */
  host: string;
  /** The connection comes from this machine itself, not through a proxy. */
  isLocal: boolean;
}

/** The default: pages of the server's own host. */
export const SAME_ORIGIN = ["same"];

/** A scheme and a host, with or without a port. */
const ORIGIN = /^[a-z][a-z0-9+.-]*:\/\/[^\s/?#@,\\*]+$/;
const WILDCARD = /^(?:(https?):\/\/)?\*\.([^\s/?#@,\\*]+)$/;
/** An origin that is safe to copy from a log into a shell. */
const PLAIN = /^(?:null|[a-z][a-z0-9+.-]{0,30}:\/\/[a-z0-9.:_-]{0,200})$/;
/** Hosts of URLs that are this machine. */
const LOOPBACK = /^(?:localhost|.+\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** A list of origins: `same`, `*`, `https://a.example`, `*.example.com`, `null`, `app://id`, … */
export class OriginRules {
  /** Every page may connect. */
  isAny = false;
  #allowsSame = false;
  readonly #exact = new Set<string>();
  readonly #wildcards: Wildcard[] = [];

  /** @throws {SettingError} if a rule could never match what a browser sends */
  constructor(readonly rules: string[]) {
    for (const rule of rules.map((rule) => rule.toLowerCase())) {
      if (rule === "*") this.isAny = true;
      else if (rule === "same") this.#allowsSame = true;
      else if (rule.includes("*")) this.#wildcards.push(readWildcard(rule));
      else this.#exact.add(checkOrigin(rule));
    }
  }

  /** Whether a page of `origin` may connect. */
  allows(origin: string, { host, isLocal }: Arrival): boolean {
    const sent = origin.toLowerCase();
    if (this.isAny || this.#exact.has(sent)) return true;
    if (sent === "null") return this.#allowsSame && isLocal;
    const url = URL.parse(sent);
    if (!url || !/^https?:$/.test(url.protocol)) return false;
    if (this.#allowsSame) {
      if (isLocal && LOOPBACK.test(url.hostname)) return true;
      if (host !== "" && withoutDefaultPort(url.host) === withoutDefaultPort(host)) return true;
    }
    return this.#wildcards.some(({ scheme, host, port }) =>
      url.protocol === scheme && url.hostname.length > host.length &&
      url.hostname.endsWith(host) && (port === "" || url.port === port)
    );
  }

  /** Tells a page that may not connect, and the log, how to allow it. */
  explain(origin: string): string {
    const sent = origin.toLowerCase();
    if (!PLAIN.test(sent) || !canBeRule(sent)) return "This origin is not allowed.";
    return this.rules.join() === SAME_ORIGIN.join()
      ? `The origin ${sent} is not allowed: --allowed-origins same,${sent} allows it.`
      : `The origin ${sent} is not allowed: ${sent} in --allowed-origins allows it.`;
  }
}

/** `*.example.com`: the hosts below it. Without a port, any. */
interface Wildcard {
  scheme: string;
  host: string;
  port: string;
}

/** The scheme of a page is not the server's where a proxy ends TLS, so a default port is none. */
function withoutDefaultPort(host: string): string {
  return host.toLowerCase().replace(/:(?:80|443)$/, "");
}

function readWildcard(rule: string): Wildcard {
  const [, scheme = "https", host] = WILDCARD.exec(rule) ?? neverMatches(rule);
  const example = `${scheme}://x.${host}`;
  const { origin, protocol, hostname, port } = URL.parse(example) ?? neverMatches(rule);
  if (origin !== example) neverMatches(rule, origin.replace("x.", "*."));
  return { scheme: protocol, host: hostname.slice(1), port };
}

function checkOrigin(rule: string): string {
  if (rule === "null" || rule === "file://") return rule;
  const origin = URL.parse(rule.replace(/^ws/, "http"))?.origin;
  const isWeb = /^(?:https?|wss?):/.test(rule);
  if (!ORIGIN.test(rule) || isWeb && origin !== rule) {
    neverMatches(rule, isWeb ? origin : undefined);
  }
  return rule;
}

function canBeRule(origin: string): boolean {
  try {
    return checkOrigin(origin) === origin;
  } catch {
    return false;
  }
}

function neverMatches(rule: string, instead = "https://a.example or *.example.com"): never {
  throw new SettingError(
    `Cannot use ALLOWED_ORIGINS: no browser sends the origin ${JSON.stringify(rule)}, ` +
      `write ${instead}`,
  );
}
