/** Deno's own OpenTelemetry beside the server. */
import { assert, assertEquals } from "@std/assert";
import { Inbox } from "../support/inbox.ts";
import { ServerProcess } from "../support/process.ts";

Deno.test("with OTEL_DENO=true the server answers as ever, and its requests are traced", async () => {
  const exported = new Inbox<{ path: string; body: string }>("an export");
  const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
  await using collector = Deno.serve(options, async (request) => {
    exported.push({ path: new URL(request.url).pathname, body: await request.text() });
    return new Response();
  });
  await using server = await ServerProcess.start([], {
    env: {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.addr.port}`,
      OTEL_BSP_SCHEDULE_DELAY: "50",
    },
  });
  const response = await fetch(`${server.url}/healthz`);
  assertEquals([response.status, await response.text()], [200, "ok\n"]);
  const socket = new WebSocket(`${server.ws}/echo`);
  const answer = Promise.withResolvers<unknown>();
  socket.onopen = () => socket.send("x");
  socket.onmessage = ({ data }) => answer.resolve(data);
  assertEquals(await answer.promise, "Echo: x");
  const closed = new Promise((resolve) => socket.onclose = resolve);
  socket.close();
  await closed;
  for (;;) {
    const { path, body } = await exported.next();
    if (path === "/v1/traces" && body.includes("/healthz")) break;
    assert(path.startsWith("/v1/"), path);
  }
});
