/** Which pages may connect. `handlers/README.md`, Origins. */
import { OptionError } from "../util/option_error.ts";

/** The default: pages of the server's own host. */
export const SAME_ORIGIN = ["same"];

/** A scheme and a host, with or without a port. */
const ORIGIN = /^[a-z][a-z0-9+.-]*:\/\/[^\s/?#@,\\*]+$/;
const WEB = /^(?:https?|wss?):/;
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
  readonly #wildcards: RegExp[] = [];

  /** @throws {OptionError} if a rule could never match what a browser sends */
  constructor(readonly rules: string[]) {
    for (const rule of rules.map((rule) => rule.toLowerCase())) {
      if (rule === "*") this.isAny = true;
      else if (rule === "same") this.#allowsSame = true;
      else if (rule.includes("*")) this.#wildcards.push(readWildcard(rule));
      else if (isOrigin(rule)) this.#exact.add(rule);
      else neverMatches(rule, meantBy(rule));
    }
  }

  /**
   * Whether a page of `origin` may connect.
   * @param host `Host`, or the host of the URL
   * @param isLocal the connection comes from this machine itself, not through a proxy
   */
  allows(origin: string, { host, isLocal }: { host: string; isLocal: boolean }): boolean {
    const sent = origin.toLowerCase();
    if (this.isAny || this.#exact.has(sent)) return true;
    if (this.#wildcards.some((wildcard) => wildcard.test(sent))) return true;
    if (!this.#allowsSame) return false;
    if (sent === "null") return isLocal;
    const url = URL.parse(sent);
    if (!url || !/^https?:$/.test(url.protocol)) return false;
    if (isLocal && LOOPBACK.test(url.hostname)) return true;
    return host !== "" && withoutDefaultPort(url.host) === withoutDefaultPort(host);
  }

  /** Tells a page that may not connect, and the log, how to allow it. */
  explain(origin: string): string {
    const sent = origin.toLowerCase();
    if (!PLAIN.test(sent) || !isOrigin(sent)) return "This origin is not allowed.";
    return this.rules.join() === SAME_ORIGIN.join()
      ? `The origin ${sent} is not allowed: --allowed-origins same,${sent} would allow it (in code allowedOrigins).`
      : `The origin ${sent} is not allowed: it is not among --allowed-origins (in code allowedOrigins).`;
  }
}

/** The scheme of a page is not the server's where a proxy ends TLS, so a default port is none. */
function withoutDefaultPort(host: string): string {
  return host.toLowerCase().replace(/:(?:80|443)$/, "");
}

/** Matches the hosts below a rule's: by https if it names no scheme, on any port if it names none. */
function readWildcard(rule: string): RegExp {
  const [, scheme = "https", host] = WILDCARD.exec(rule) ?? neverMatches(rule);
  const example = `${scheme}://x.${host}`;
  const { origin, port } = URL.parse(example) ?? neverMatches(rule);
  if (origin !== example) neverMatches(rule, origin.replace("x.", "*."));
  const anyPort = port === "" ? "(?::\\d+)?" : "";
  return new RegExp(`^${scheme}://[^\\s/?#@:]+\\.${RegExp.escape(host)}${anyPort}$`);
}

/** Whether a browser can send this, in this spelling. */
function isOrigin(text: string): boolean {
  if (text === "null" || text === "file://") return true;
  return ORIGIN.test(text) && (!WEB.test(text) || meantBy(text) === text);
}

/** The origin that somebody meant who wrote what can't be one, if it is clear. */
function meantBy(rule: string): string | undefined {
  return WEB.test(rule) ? URL.parse(rule.replace(/^ws/, "http"))?.origin : undefined;
}

function neverMatches(rule: string, instead = "https://a.example or *.example.com"): never {
  const reason = `no browser sends the origin ${JSON.stringify(rule)}, write ${instead}`;
  throw new OptionError("allowedOrigins", reason);
}
