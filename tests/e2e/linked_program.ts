/**
 * A program of a project that links Parley. It serves, and opens a chat whose list of protocols has no
 * space after the comma, as `ws` on npm writes it; it ends with an error if that is refused.
 *
 * @module
 */
import { createParley } from "@parley/parley";

const parley = createParley({ log: console });
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
console.log("opened");
Deno.exit(0);
