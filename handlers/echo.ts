/** `/echo`: what comes in goes back. `handlers/README.md`, Echo. */
import { checkHandshake } from "./access/handshake.ts";
import { Allowance } from "./access/rate_limit.ts";
import type { App, ClientHandler } from "./app.ts";
import { plain } from "./protocol/encode.ts";
import { Connection } from "./registry/connection.ts";
import { byteLength } from "./util/bytes.ts";

/** Makes the handler of echo sockets. Text comes back behind `?prefix=` (`Echo: `), binary as it is. */
export function echo(app: App): ClientHandler {
  return ({ request, url, visitor }, slot) => {
    checkHandshake(request);
    const { registry, clock, limits } = app;
    const prefix = url.searchParams.get("prefix") ?? "Echo: ";
    const { signal } = request;
    const { idleTimeoutSeconds } = limits;
    const { socket, response } = app.upgrade(request, { dialect: plain, idleTimeoutSeconds });
    const options = { ...visitor, slot, signal, dialect: plain, kind: "echo" } as const;
    const connection = new Connection(socket, registry, options);
    const allowance = new Allowance(limits, clock.now());
    const answer = (size: number, data: string | ArrayBuffer) => {
      registry.counters.messagesIn++;
      const retry = allowance.tryConsume(size, false, clock.now());
      if (retry > 0) connection.close("rateLimited");
      else connection.send(data);
    };
    connection.handler = {
      text: (text) => answer(byteLength(text), prefix + text),
      binary: (data) => answer(data.byteLength, data),
    };
    return response;
  };
}
