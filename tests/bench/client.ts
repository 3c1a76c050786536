/** One WebSocket connection of the load generator, on a raw socket. */

import { LineReader } from "./line_reader.ts";
import { clientFrame } from "./text.ts";

/** Where to connect, and how. */
export interface Target {
  /** A port of 127.0.0.1, or the path of a Unix domain socket. */
  address: number | string;
  /** For a port. @default {"127.0.0.1"} */
  hostname?: string;
  /** Path of the URL. */
  path: string;
  /** Subprotocol to ask for. */
  protocol?: string;
}

/** What a {@linkcode Client} tells its owner. */
export interface ClientEvents {
  /** See {@linkcode LineSink.line}. */
  line(bytes: Uint8Array, from: number, to: number): boolean;
  /** Waited for after each read: what comes meanwhile is read at once. */
  pause?(): Promise<void> | undefined;
  /** The connection ended or broke the protocol; not called after {@linkcode Client.close}. */
  failed(reason: Error): void;
}

// The key and answer of RFC 6455, 1.3.
const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const decoder = new TextDecoder();

/** A connected WebSocket client that counts, and decodes nothing. */
export class Client {
  /** Whether a frame is on its way into the socket: its bytes may not be changed. */
  writing = false;
  readonly #connection: Deno.Conn;
  readonly #reader: LineReader;
  readonly #events: ClientEvents;
  readonly #waiting: Uint8Array[] = [];
  #closed = false;

  private constructor(
    connection: Deno.Conn,
    events: ClientEvents,
    bufferBytes: number,
    merged: boolean,
  ) {
    this.#connection = connection;
    this.#events = events;
    this.#reader = new LineReader(bufferBytes, merged, {
      line: (bytes, from, to) => events.line(bytes, from, to),
      control: (opcode, payload) => this.#control(opcode, payload),
    });
  }

  /** Connects and upgrades. Throws if the server answers anything but the right 101. */
  static async connect(
    target: Target,
    events: ClientEvents,
    bufferBytes: number,
  ): Promise<Client> {
    let connection: Deno.Conn;
    if (typeof target.address === "number") {
      const tcp = await Deno.connect({
        hostname: target.hostname ?? "127.0.0.1",
        port: target.address,
      });
      tcp.setNoDelay(true);
      connection = tcp;
    } else {
      connection = await Deno.connect({
        transport: "unix",
        path: target.address,
      });
    }
    const merged = target.protocol !== undefined;
    const client = new Client(connection, events, bufferBytes, merged);
    try {
      await client.#upgrade(target);
    } catch (error) {
      connection.close();
      throw error;
    }
    client.#pump();
    return client;
  }

  /** Sends one ready frame; while {@linkcode writing}, behind those before it. */
  send(frame: Uint8Array): void {
    if (this.writing) this.#waiting.push(frame);
    else this.#write(frame);
  }

  /** Ends the connection at once, without a Close frame. */
  close(): void {
    this.#closed = true;
    this.#connection.close();
  }

  async #upgrade({ path, protocol }: Target): Promise<void> {
    const request = `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n` +
      `Upgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n` +
      (protocol ? `Sec-WebSocket-Protocol: ${protocol}\r\n` : "") + "\r\n";
    await this.#connection.write(new TextEncoder().encode(request));
    const space = this.#reader.space();
    let length = 0;
    let head = "";
    let end = -1;
    while (end < 0) {
      const count = await this.#connection.read(space.subarray(length));
      if (!count) throw new Error(`Cannot upgrade ${path}: closed`);
      length += count;
      head = decoder.decode(space.subarray(0, length));
      end = head.indexOf("\r\n\r\n");
    }
    const answer = head.slice(0, end);
    if (!/^HTTP\/1.1 101 /.test(answer) || !answer.includes(ACCEPT)) {
      throw new Error(`Cannot upgrade ${path}: ${answer}`);
    }
    if (protocol && !answer.includes(protocol)) {
      throw new Error(`Cannot upgrade ${path}: no ${protocol} in ${answer}`);
    }
    // An HTTP head is ASCII, so characters are bytes up to `end`.
    space.copyWithin(0, end + 4, length);
    this.#reader.take(length - end - 4);
  }

  async #pump(): Promise<void> {
    const reader = this.#reader;
    const { pause } = this.#events;
    try {
      for (;;) {
        if (pause) await pause();
        const count = await this.#connection.read(reader.space());
        if (count === null) throw new Error("the server ended the connection");
        reader.take(count);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  async #write(first: Uint8Array): Promise<void> {
    this.writing = true;
    try {
      let frame: Uint8Array | undefined = first;
      while (frame) {
        let count = await this.#connection.write(frame);
        while (count < frame.length) {
          count += await this.#connection.write(frame.subarray(count));
        }
        frame = this.#waiting.shift();
      }
    } catch (error) {
      this.#fail(error);
    }
    this.writing = false;
  }

  #control(opcode: number, payload: Uint8Array): void {
    if (opcode === 9) this.send(clientFrame(payload, 10));
    if (opcode !== 8) return;
    const code = payload.length > 1 ? payload[0] << 8 | payload[1] : 1005;
    const reason = decoder.decode(payload.subarray(2));
    throw new Error(`the server closed with ${code} ${reason}`);
  }

  #fail(error: unknown): void {
    if (this.#closed) return;
    this.#events.failed(error instanceof Error ? error : Error(String(error)));
  }
}
