/**
 * A program of a project that links Parley, with all that can be imported. It serves rooms that live in a
 * file, and opens a chat whose list of protocols has no space after the comma, as `ws` on npm writes it.
 *
 * @module
 */
import { createParley, OptionError } from "@parley/parley";
import { connect } from "@parley/parley/client";
import { durableEngine } from "@parley/parley/durable";
import { redisEngine } from "@parley/parley/redis";

const folder = await Deno.makeTempDir();
const engine = await durableEngine(`${folder}/parley.db`);
const parley = createParley({ engine, limits: { drainSeconds: 0 } });
const hostname = "127.0.0.1";
const server = Deno.serve({ hostname, port: 0, onListen() {} }, parley.fetch);
const connection = await Deno.connect({ hostname, port: server.addr.port });
const head = [
  "GET /chat/ops HTTP/1.1",
  "Host: localhost",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Protocol: token.x,parley.v1",
];
await connection.write(new TextEncoder().encode(head.join("\r\n") + "\r\n\r\n"));
let answer = "";
for await (const part of connection.readable.pipeThrough(new TextDecoderStream())) {
  answer += part;
  if (answer.includes("\r\n\r\n")) break;
}
if (!/^HTTP\/1.1 101[^]*\r\nsec-websocket-protocol: parley.v1\r\n/i.test(answer)) {
  throw new Error(`Cannot open a chat: the answer is ${answer}`);
}

const message = await new Promise<number>((resolve) => {
  const client = connect<number>(`ws://${hostname}:${server.addr.port}/chat/ops`, {
    name: "Ann",
    onMessage: ({ message }) => {
      client.close();
      resolve(message);
    },
  });
  client.send(7);
});
if (message !== 7) throw new Error(`Cannot hear a message: it is ${message}`);
const error = await redisEngine("http://redis.example").catch((error: unknown) => error);
if (!(error instanceof OptionError)) throw new Error(`Cannot tell a wrong URL: ${error}`);
await parley[Symbol.asyncDispose]();
await server.shutdown();
await Deno.remove(folder, { recursive: true });
console.log("opened");
// Deno's timer of a socket whose peer is gone would keep the process for another 15 s.
Deno.exit(0);
