/**
 * A raw TCP server that sends ready frames as fast as they are taken, to show how fast the load generator counts.
 *
 * `deno run -A firehose.ts PORT LISTENERS SENDERS BYTES plain|v1`: one write a listener carries one message of every
 * sender (and 64 at least), each in its own frame, or for `v1` as lines of one.
 */

import { senderName } from "../ledger.ts";
import { filler, MARK, writeMark } from "../text.ts";

const [port, listeners, senders, bytes] = Deno.args.slice(0, 4).map(Number);
const merged = Deno.args[4] === "v1";
const encoder = new TextEncoder();

function header(length: number): number[] {
  if (length < 126) return [0x81, length];
  if (length < 65536) return [0x81, 126, length >> 8, length & 255];
  return [
    0x81,
    127,
    0,
    0,
    0,
    0,
    ...[24, 16, 8, 0].map((by) => length >> by & 255),
  ];
}

function chatLine(sender: number): Uint8Array {
  const envelope = merged ? { room: "bench", seq: 123456789, time: 1700000000000 } : {};
  return encoder.encode(JSON.stringify({
    type: "chat",
    ...envelope,
    sender: senderName(sender),
    message: filler({ bytes }) + "~00000",
  }));
}

function frames(lines: Uint8Array[]): Uint8Array {
  const whole = merged ? [lines.flatMap((line, i) => i ? [10, ...line] : [...line])] : lines;
  return new Uint8Array(
    whole.flatMap((part) => [...header(part.length), ...part]),
  );
}

async function writeAll(connection: Deno.Conn, block: Uint8Array) {
  for (let at = 0; at < block.length;) {
    at += await connection.write(block.subarray(at));
  }
}

// At least this many messages a write, so that the generator is the slower side.
const rounds = Math.ceil(64 / senders);
const lines = Array.from(
  { length: senders * rounds },
  (_, i) => chatLine(i % senders),
);
// Groups keep a merged frame within 64 kB.
const group = Math.max(1, Math.floor(65536 / (lines[0].length + 5)));
const blocks: number[] = [];
for (let i = 0; i < lines.length; i += group) {
  blocks.push(...frames(lines.slice(i, i + group)));
}
const block = new Uint8Array(blocks);
// A header's 126 is a `~` too, but no zeros follow it.
const marks = [...block.keys()].filter((at) =>
  block[at] === MARK && block[at + 1] === 48 && block[at + 5] === 48
);

const connections: Deno.TcpConn[] = [];
const listener = Deno.listen({ hostname: "127.0.0.1", port });
while (connections.length < listeners) {
  const connection = await listener.accept();
  const got = await connection.read(new Uint8Array(1024)).catch(() => null);
  if (!got) continue;
  connection.setNoDelay(true);
  const protocol = merged ? "Sec-WebSocket-Protocol: parley.v1\r\n" : "";
  await writeAll(
    connection,
    encoder.encode(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" +
        "Connection: Upgrade\r\n" + protocol +
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ),
  );
  connections.push(connection);
}
addEventListener("unhandledrejection", () => Deno.exit());
for (let number = 0;; number += rounds) {
  for (const [i, at] of marks.entries()) {
    writeMark(block, at, i % senders, number + Math.floor(i / senders));
  }
  await Promise.all(connections.map((socket) => writeAll(socket, block)));
}
