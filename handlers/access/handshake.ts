/** How a request becomes a socket: the only file with `Deno.upgradeWebSocket`. */
import { HttpError } from "../protocol/http_error.ts";
import { type Dialect, plain, v1 } from "../protocol/encode.ts";

/**
 * Checks what the runtime does not check of a handshake.
 * @returns the dialect that the client asks for
 * @throws {HttpError} 426 without an upgrade to version 13, 400 for a bad key. RFC 6455, 4.2.1
 */
export function checkHandshake({ headers, method }: Request): Dialect {
  if (method !== "GET" || !isUpgrade(headers)) {
    throw new HttpError(426, "upgrade_required", "This is a WebSocket endpoint.", {
      upgrade: "websocket",
      connection: "Upgrade",
    });
  }
  if (headers.get("sec-websocket-version") !== "13") {
    throw new HttpError(426, "bad_version", "Only version 13 of WebSocket is supported.", {
      "sec-websocket-version": "13",
    });
  }
  if (!/^[A-Za-z0-9+/]{22}==$/.test(headers.get("sec-websocket-key") ?? "")) {
    throw new HttpError(400, "bad_key", "Sec-WebSocket-Key must be 16 bytes in base64.");
  }
  return offeredProtocols(headers).includes(v1.protocol!) ? v1 : plain;
}

/** Whether a request asks for a WebSocket. */
export function isUpgrade(headers: Headers): boolean {
  return /(?:^|,)\s*websocket\s*(?:,|$)/i.test(headers.get("upgrade") ?? "") &&
    /(?:^|,)\s*upgrade\s*(?:,|$)/i.test(headers.get("connection") ?? "");
}

/** The subprotocols that a client offers, in its order. */
export function offeredProtocols(headers: Headers): string[] {
  return (headers.get("sec-websocket-protocol") ?? "").split(",").map((part) => part.trim());
}

/** What Parley needs of a `WebSocket`. */
export type Socket = Pick<
  WebSocket,
  | "binaryType"
  | "bufferedAmount"
  | "send"
  | "close"
  | "addEventListener"
  | "removeEventListener"
>;

const COPIED = "Cannot upgrade a copy of a request: give Parley the request that Deno.serve got " +
  "(in Hono c.req.raw, or app.mount with replaceRequest: false), and the path that it is below as " +
  "its option prefix.";

/** Upgrades a request: the socket, and the response that opens it. */
export type Upgrade = (
  request: Request,
  options: { dialect: Dialect; idleTimeoutSeconds: number },
) => { socket: Socket; response: Response };

/** Deno looks for a protocol in a list with a space after each comma, which a client need not write. */
function isFoundByDeno(headers: Headers, protocol: string): boolean {
  return headers.get("sec-websocket-protocol")?.split(", ").includes(protocol) ?? false;
}

/**
 * Upgrades by Deno. Pings after `idleTimeoutSeconds` of silence and ends a peer that does not answer.
 * @throws {TypeError} if the request is no WebSocket handshake
 * @throws {HttpError} 500 for a copy of a request, on which Deno would answer 101 and then break off
 */
export const denoUpgrade: Upgrade = (
  request,
  { dialect: { protocol }, idleTimeoutSeconds },
) => {
  if (protocol !== undefined && !isFoundByDeno(request.headers, protocol)) {
    // The socket keeps its request: a copy of its headers costs as much as all that we know of a client.
    const headers = new Headers(request.headers);
    headers.set("sec-websocket-protocol", protocol);
    Object.defineProperty(request, "headers", { value: headers });
  }
  const { socket, response } = Deno.upgradeWebSocket(request, {
    idleTimeout: idleTimeoutSeconds,
    ...(protocol !== undefined && { protocol }),
  });
  // Deno uses up the request that it upgrades, but not a copy of it.
  if (!request.bodyUsed) throw new HttpError(500, "copied_request", COPIED);
  return { socket, response };
};
