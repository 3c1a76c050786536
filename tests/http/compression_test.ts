// Answers are compressed by the runtime, as `handlers/start/listen.ts` asks it to.
import { assert, assertEquals, assertLess } from "@std/assert";
import { startServer } from "../support/servers.ts";

/** Asks as a browser does, and leaves the answer compressed. */
async function ask(url: string): Promise<{ encoding: string; bytes: ReadableStreamDefaultReader }> {
  const { hostname, port, pathname } = new URL(url);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  const lines = [`GET ${pathname} HTTP/1.1`, `Host: ${hostname}:${port}`, "Accept-Encoding: gzip"];
  await connection.write(new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`));
  const bytes = connection.readable.getReader();
  const { value } = await bytes.read();
  const head = new TextDecoder("latin1").decode(value);
  return { encoding: /content-encoding: (\w+)/i.exec(head)?.[1] ?? "", bytes };
}

Deno.test("client.js goes out compressed, to a third at most", async () => {
  await using server = await startServer();
  const { encoding, bytes } = await ask(`${server.url}/client.js`);
  await bytes.cancel();
  assertEquals(encoding, "gzip");
  const response = await fetch(`${server.url}/client.js`);
  const text = await response.text();
  const packed = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  const size = (await new Response(packed).bytes()).length;
  assertLess(size * 2.5, text.length);
});

Deno.test("an event stream goes out as it comes, not compressed", async () => {
  await using server = await startServer();
  const { encoding, bytes } = await ask(`${server.url}/rooms/ops/events`);
  assertEquals(encoding, "");
  const response = await fetch(`${server.url}/rooms/ops/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: '{"message":"now"}',
  });
  assertEquals(response.status, 202);
  await response.body?.cancel();
  let seen = "";
  while (!seen.includes('"message":"now"')) {
    const { value, done } = await bytes.read();
    assert(!done);
    seen += new TextDecoder().decode(value);
  }
  await bytes.cancel();
});
