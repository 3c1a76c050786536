/** Bytes below WebSocket: what breaks RFC 6455, and what only looks so. */
import { assertEquals } from "@std/assert";
import { maskedFrame, OPCODE, type RawClient } from "../support/clients.ts";
import { eventually, soon } from "../support/inbox.ts";
import { IS_FULL, sized } from "../support/run.ts";
import { Target, weigh } from "./target.ts";
import { test } from "./attack_step.ts";

/** A client's frame with an empty mask, its header as it is given. RFC 6455, 5.2. */
function frame(first: number, lengthBytes: number[], payload: number[] = []): Uint8Array {
  return Uint8Array.of(first, ...lengthBytes, 0, 0, 0, 0, ...payload);
}

const TEXT = 0x81;
const MASKED = 0x80;
const fragment = (payload: string, opcode: number = OPCODE.continuation) =>
  maskedFrame(payload, { opcode, fin: false });
const bytes = (...values: number[]) => Uint8Array.from(values);

/** What ends a connection, by what is wrong with it: the frames, one behind the other. */
const VIOLATIONS: Record<string, Uint8Array[]> = {
  "reserved bit 1": [frame(TEXT | 0x40, [MASKED | 1], [65])],
  "reserved bit 2": [frame(TEXT | 0x20, [MASKED | 1], [65])],
  "reserved bit 3": [frame(TEXT | 0x10, [MASKED | 1], [65])],
  "reserved opcode 3": [frame(0x83, [MASKED | 1], [65])],
  "reserved opcode 15": [frame(0x8f, [MASKED | 0])],
  "a ping of 126 bytes": [frame(0x89, [MASKED | 126, 0, 126], Array(126).fill(0))],
  "a ping in fragments": [frame(0x09, [MASKED | 1], [65])],
  "a continuation of nothing": [frame(0x80, [MASKED | 1], [65])],
  "a text inside a fragmented text": [fragment("a", OPCODE.text), maskedFrame("b")],
  "a close code of one byte": [frame(0x88, [MASKED | 1], [3])],
  "a close code that is reserved": [frame(0x88, [MASKED | 2], [3, 0xed])],
  "a close code that is none": [frame(0x88, [MASKED | 2], [0, 1])],
  "a close reason that is no UTF-8": [frame(0x88, [MASKED | 3], [3, 0xe8, 0xff])],
  "text that is no UTF-8": [frame(TEXT, [MASKED | 2], [0xc0, 0xaf])],
  "half a character": [frame(TEXT, [MASKED | 2], [0xe3, 0x81])],
  "a surrogate in UTF-8": [frame(TEXT, [MASKED | 3], [0xed, 0xa0, 0x80])],
  "a length of 2^64 - 1": [frame(TEXT, [MASKED | 127, ...Array(8).fill(255)])],
  "a length of 2^63": [frame(TEXT, [MASKED | 127, 0x80, ...Array(7).fill(0)])],
  "a length of 65 MiB": [frame(TEXT, [MASKED | 127, 0, 0, 0, 0, 4, 0x10, 0, 0])],
  "HTTP": [new TextEncoder().encode("GET / HTTP/1.1\r\nhost: x\r\n\r\n")],
  "TLS": [bytes(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3)],
};

/** Reads on until the server ends the connection, by a Close frame or without. */
async function ended(client: RawClient): Promise<void> {
  while (await client.read());
}

test("each violation of the protocol ends its own connection, and nothing else", async () => {
  await using target = await Target.start();
  await target.endure("violations of RFC 6455", async () => {
    for (const path of ["/echo", "/chat/violated"]) {
      for (const [what, frames] of Object.entries(VIOLATIONS)) {
        using client = await target.open(path);
        for (const bytes of frames) await client.write(bytes);
        await soon(ended(client), `the end after ${what}`);
      }
    }
  });
});

test("a character split over fragments, and over packets, is one character", async () => {
  await using target = await Target.start();
  using client = await target.open("/echo");
  const text = "a\u00e9\u3042\u{1F600}";
  const encoded = new TextEncoder().encode(text);
  for (let index = 0; index < encoded.length; index++) {
    const opcode = index === 0 ? OPCODE.text : OPCODE.continuation;
    const fin = index === encoded.length - 1;
    const part = maskedFrame(encoded.subarray(index, index + 1), { opcode, fin });
    for (const byte of part) await client.write(bytes(byte));
  }
  assertEquals(await client.readText(), `Echo: ${text}`);
});

test("half a character at the end of fragments reaches nobody", async () => {
  await using target = await Target.start();
  using client = await target.open("/echo");
  await client.send(bytes(65, 0xf0, 0x9f), { fin: false });
  await client.send(bytes(0x98), { opcode: OPCODE.continuation });
  // The runtime drops it; a runtime that ends the connection is right, too.
  const answer = await soon(client.read(), "an answer or the end");
  if (answer?.opcode === OPCODE.text) {
    assertEquals(new TextDecoder().decode(answer.payload), "Echo: A");
  }
});

test("frames that only look wrong are taken", async () => {
  await using target = await Target.start();
  using client = await target.open("/echo?prefix=");
  const taken: [Uint8Array, string][] = [
    [frame(TEXT, [MASKED | 126, 0, 1], [65]), "A"],
    [frame(TEXT, [MASKED | 127, 0, 0, 0, 0, 0, 0, 0, 1], [66]), "B"],
    [bytes(TEXT, 1, 67), "C"],
    [frame(TEXT, [MASKED | 0]), ""],
  ];
  for (const [bytes, text] of taken) {
    await client.write(bytes);
    assertEquals(await client.readText(), text);
  }
  await client.send("d", { fin: false });
  await client.send("between", { opcode: OPCODE.ping });
  await client.send("", { opcode: OPCODE.continuation, fin: false });
  await client.send("e", { opcode: OPCODE.continuation });
  const pong = await client.read();
  assertEquals([pong?.opcode, new TextDecoder().decode(pong?.payload)], [OPCODE.pong, "between"]);
  assertEquals(await client.readText(), "de");
});

test("headers that promise 60 MiB cost nothing until the bytes come", async () => {
  await using target = await Target.start();
  await target.endure("promised lengths", async () => {
    const clients = [];
    for (let index = 0; index < sized(50, 1_000); index++) {
      const client = await target.open("/echo");
      await client.write(frame(0x82, [MASKED | 127, 0, 0, 0, 0, 3, 0xc0, 0, 0], [1, 2, 3]));
      clients.push(client);
    }
    weigh(await target.totals(), 200);
    for (const client of clients) client.drop();
  }, { maxRssMb: 200 });
});

test("pings and empty fragments without end stop nobody, and hold no memory", async () => {
  await using target = await Target.start();
  const flood = async (bytes: Uint8Array, isRead: boolean) => {
    using client = await target.open("/echo");
    const many = new Uint8Array(bytes.length * 2_000);
    for (let at = 0; at < many.length; at += bytes.length) many.set(bytes, at);
    const reading = isRead ? ended(client).catch(() => {}) : Promise.resolve();
    // Who does not read is waited for no longer.
    const timer = setTimeout(() => client.drop(), 2_000);
    await client.write(fragment("a", OPCODE.text));
    try {
      for (let times = sized(5, Infinity); times > 0; times--) await client.write(many);
    } catch {
      // Dropped.
    }
    clearTimeout(timer);
    client.drop();
    await reading;
  };
  await target.endure(
    "pings, read",
    () => flood(frame(0x89, [MASKED | 125], Array(125).fill(1)), true),
  );
  await target.endure("pings, unread", () => {
    return flood(frame(0x89, [MASKED | 125], Array(125).fill(1)), false);
  });
  const peers = sized(1, 4);
  await target.endure(`empty fragments of ${peers}`, async () => {
    await Promise.all(Array.from({ length: peers }, () => flood(frame(0, [MASKED]), false)));
  });
});

test("over MAX_RSS_MB the server is not ready, and lets nobody in", async () => {
  await using target = await Target.start(["--max-rss-mb", "1"]);
  using late = await target.open("/echo");
  assertEquals(late.status, 503);
  const { status, body } = await fetch(`${target.url}/readyz`);
  await body?.cancel();
  assertEquals(status, 503);
});

// It takes 400 MB, and whether the memory is free again a collection decides.
if (IS_FULL) test("an endless message shuts the door until its sender goes", sendEndlessly);

async function sendEndlessly() {
  await using target = await Target.start(["--max-rss-mb", "250"]);
  await target.endure("an endless message", async () => {
    using client = await target.open("/echo");
    const megabyte = "x".repeat(1_000_000);
    await client.write(fragment(megabyte, OPCODE.text));
    for (let count = 0; count < 400; count++) await client.write(fragment(megabyte));
    const isReady = async () => {
      const { status, body } = await fetch(`${target.url}/readyz`);
      await body?.cancel();
      return status === 200;
    };
    await eventually(isReady, (isOpen) => !isOpen);
    using late = await target.open("/echo");
    assertEquals(late.status, 503);
    client.drop();
    await eventually(isReady, (isOpen) => isOpen);
  });
}
