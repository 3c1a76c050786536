/**
 * Loaded before a server's program (`deno run --preload`): says on stderr where it listens, as soon as
 * it takes signals too, whatever its settings do to its log. Imports nothing: it may run anywhere.
 *
 * @module
 */
const { serve, addSignalListener } = Deno;
let url = "";

function urlOf({ addr }: Deno.HttpServer<Deno.Addr>, isTls: boolean): string {
  if (!("hostname" in addr)) return "path" in addr ? `unix:${addr.path}` : "";
  const { hostname, port } = addr;
  const host = ["0.0.0.0", "::"].includes(hostname) ? "localhost" : hostname;
  return `${isTls ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

Object.assign(Deno, {
  serve(...args: [{ cert?: string }]) {
    const server = Reflect.apply(serve, Deno, args) as Deno.HttpServer<Deno.Addr>;
    url = urlOf(server, args[0].cert !== undefined);
    return server;
  },
  addSignalListener(signal: Deno.Signal, handler: () => void) {
    addSignalListener(signal, handler);
    if (signal === "SIGTERM") console.error(`test server: ${url}`);
  },
});
