/** What strangers do: they give up before the answer, flood, or stop reading. */
import net from "node:net";
import type { RawClient } from "../support/clients.ts";
import type { Target } from "./target.ts";

const V1 = { "sec-websocket-protocol": "parley.v1" };
/** A peer that reads nothing stays so long: the system's own buffers take the first 4 MB. */
const STUCK_SECONDS = 15;
/** What is posted to those who are stuck, each second. */
const POSTS = Array<string>(10).fill(JSON.stringify({ message: "x".repeat(60_000) }));

/** A handshake without its end. */
export function upgradeOf(path: string): string {
  return `GET ${path} HTTP/1.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\n` +
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
}

/** Sends a request, and resets the connection before the answer can come. */
export function requestAndReset(port: number, request: string): Promise<void> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1", () => {
      socket.write(`${request}\r\nhost: x\r\n\r\n`, () => {
        socket.resetAndDestroy();
        resolve();
      });
    });
    socket.on("error", () => resolve());
  });
}

/** Sends far more than its rate, until the server ends it. */
async function flood(target: Target): Promise<void> {
  using client = await target.open("/chat/flood", V1);
  const frame = Array<string>(1_200).fill('{"type":"ping"}').join("\n");
  await client.send(frame);
  // A server that still reads what is on its way may reset the connection.
  await client.readClose().catch(() => {});
}

/** Each second one who gives up, one who floods, and one who stops reading for a while. */
export class Strangers {
  /** How many seconds' worth of them came. */
  seconds = 0;
  readonly #stuck: RawClient[] = [];

  constructor(readonly target: Target) {}

  /** Sends those of one second. */
  async come(): Promise<void> {
    const { target } = this;
    const port = Number(new URL(target.url).port);
    this.seconds++;
    const path = ["/echo", "/chat/soak-0"][this.seconds % 2];
    await Promise.all([requestAndReset(port, upgradeOf(path)), flood(target)]);
    this.#stuck.push(await target.open("/chat/stuck", this.seconds % 2 ? V1 : {}));
    if (this.#stuck.length > STUCK_SECONDS) this.#stuck.shift()!.drop();
    const headers = { "content-type": "application/json" };
    for (const body of POSTS) {
      const init = { method: "POST", headers, body };
      await (await fetch(`${target.url}/rooms/stuck/messages`, init)).body?.cancel();
    }
  }

  /** Takes the last of them away. */
  go(): void {
    for (const client of this.#stuck) client.drop();
  }
}
