/** `/echo`: what comes in goes back. `handlers/README.md`, Echo. */
import { checkHandshake } from "./access/handshake.ts";
import { TokenBucket } from "./access/rate_limit.ts";
import type { ClientHandler } from "./app.ts";
import { plain } from "./protocol/encode.ts";
import { Connection } from "./registry/connection.ts";
import type { Registry } from "./registry/registry.ts";
import { byteLength } from "./util/bytes.ts";

/** Opens an echo socket: text comes back behind `?prefix=` (`Echo: `), binary as it is. */
export const echo: ClientHandler = ({ request, url, visitor }, app, slot) => {
  checkHandshake(request);
  const { idleTimeoutSeconds } = app.limits;
  const { signal } = request;
  const { socket, response } = app.upgrade(request, { dialect: plain, idleTimeoutSeconds });
  const options = { ...visitor, slot, signal, dialect: plain, kind: "echo" } as const;
  const echoSocket = new EchoSocket(socket, app.registry, options);
  echoSocket.prefix = url.searchParams.get("prefix") ?? "Echo: ";
  return response;
};

class EchoSocket extends Connection {
  readonly #messages = createBucket(this.registry, "messageRate");
  readonly #bytes = createBucket(this.registry, "byteRate");
  prefix = "";

  protected text(text: string): void {
    this.#answer(byteLength(text), this.prefix + text);
  }

  protected binary(bytes: ArrayBuffer): void {
    this.#answer(bytes.byteLength, bytes);
  }

  #answer(size: number, frame: string | ArrayBuffer): void {
    const { clock, counters } = this.registry;
    counters.messagesIn++;
    const now = clock.elapsedMs();
    const retry = this.#messages.tryConsume(1, now) + this.#bytes.tryConsume(size, now);
    if (retry > 0) this.close("rateLimited");
    else this.send(frame);
  }
}

function createBucket({ limits, clock }: Registry, rate: "messageRate" | "byteRate"): TokenBucket {
  return new TokenBucket(limits[rate], limits[rate], clock.elapsedMs());
}
