/**
 * WebSocket clients for tests: one over the platform's socket, one over raw bytes.
 *
 * @module
 */
import { Inbox, soon } from "./inbox.ts";

/** A JSON object. */
export type Fields = Record<string, unknown>;

/** A WebSocket whose messages are awaited one by one. */
export class Client implements AsyncDisposable {
  /** How it ended; resolves when it did. */
  readonly closed: Promise<{ code: number; reason: string; wasClean: boolean }>;
  readonly #frames = new Inbox<string | Uint8Array>("a frame");
  readonly #objects: Fields[] = [];

  private constructor(readonly socket: WebSocket) {
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) =>
      this.#frames.push(typeof data === "string" ? data : new Uint8Array(data));
    this.closed = new Promise((resolve) => {
      socket.onclose = ({ code, reason, wasClean }) => {
        this.#frames.end(new Error(`the socket closed with ${code} ${reason}`));
        resolve({ code, reason, wasClean });
      };
    });
  }

  /** Connects. Rejects if the server refuses. */
  static async open(url: string, options: string | WebSocketOptions = {}): Promise<Client> {
    // A browser's types, which the pages bring in, know no options.
    const second = options as ConstructorParameters<typeof WebSocket>[1];
    const client = new Client(new WebSocket(url, second));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    client.socket.onopen = () => resolve();
    client.socket.onerror = (event) => reject(new Error((event as ErrorEvent).message));
    await soon(promise, `a connection to ${url}`);
    return client;
  }

  /** Connects to a chat room under a name, and takes the status that says so. */
  static async join(url: string, name: string): Promise<Client> {
    const client = await Client.open(url);
    client.send({ type: "join", name });
    await client.nextObject();
    return client;
  }

  /** Sends a text or bytes as they are, and an object as JSON. */
  send(message: string | Uint8Array<ArrayBuffer> | Fields): void {
    const isFrame = typeof message === "string" || message instanceof Uint8Array;
    this.socket.send(isFrame ? message : JSON.stringify(message));
  }

  /** The next frame. */
  next(): Promise<string | Uint8Array> {
    return this.#frames.next();
  }

  /** The next JSON object; a frame of `parley.v1` may hold several. */
  async nextObject(): Promise<Fields> {
    if (this.#objects.length === 0) {
      const frame = await this.next();
      if (typeof frame !== "string") throw new Error("binary came where JSON was expected");
      this.#objects.push(...frame.split("\n").map((line) => JSON.parse(line)));
    }
    return this.#objects.shift()!;
  }

  /** Closes and waits for the end. */
  async close(code = 1000): Promise<void> {
    if (this.socket.readyState <= WebSocket.OPEN) this.socket.close(code);
    await soon(this.closed, "the end of a socket");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Frame types of RFC 6455, 5.2. */
export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** A frame as it is on the wire, unmasked. */
export interface RawFrame {
  opcode: number;
  fin: boolean;
  payload: Uint8Array<ArrayBuffer>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A WebSocket over any connection, frame by frame. It reads only when it is told to. */
export class RawClient implements Disposable {
  /** The server's answer to the handshake: status line and headers. */
  head = "";
  #buffer = new Uint8Array(0);
  #isClosed = false;

  private constructor(readonly connection: Deno.Conn) {}

  /** Connects over TCP to a server's URL like `ws://127.0.0.1:1/chat/lobby` and upgrades. */
  static async open(url: string, headers: Record<string, string> = {}): Promise<RawClient> {
    const { hostname, port, pathname, search } = new URL(url);
    const connection = await Deno.connect({ hostname, port: Number(port) });
    connection.setNoDelay(true);
    return await RawClient.upgrade(connection, pathname + search, headers);
  }

  /** Upgrades a connection. What the server answered is in `head`. */
  static async upgrade(
    connection: Deno.Conn,
    path: string,
    headers: Record<string, string> = {},
  ): Promise<RawClient> {
    const client = new RawClient(connection);
    const all = {
      host: "localhost",
      upgrade: "websocket",
      connection: "Upgrade",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
      ...headers,
    };
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    await client.write(encoder.encode(`GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`));
    let end = -1;
    while (end < 0) {
      if (!await client.#fill()) break;
      client.head = decoder.decode(client.#buffer);
      end = client.head.indexOf("\r\n\r\n");
    }
    // An HTTP head is ASCII: its characters are its bytes.
    client.head = client.head.slice(0, end + 4);
    client.#buffer = client.#buffer.slice(end + 4);
    return client;
  }

  /** The status of the handshake's answer: 101 if it is a WebSocket now. */
  get status(): number {
    return Number(this.head.split(" ")[1]);
  }

  /** Writes bytes, all of them. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) {
      sent += await this.connection.write(bytes.subarray(sent));
    }
  }

  /** Sends one frame, masked as a client must. */
  async send(
    payload: string | Uint8Array,
    { opcode = OPCODE.text as number, fin = true } = {},
  ): Promise<void> {
    await this.write(maskedFrame(payload, { opcode, fin }));
  }

  /** The next frame; nothing when the server has ended the connection. */
  async read(): Promise<RawFrame | undefined> {
    for (;;) {
      const frame = this.#takeFrame();
      if (frame) return frame;
      if (!await this.#fill()) return undefined;
    }
  }

  /** The next data frame as text; pings are answered on the way. */
  async readText(): Promise<string> {
    for (;;) {
      const frame = await soon(this.read(), "a frame");
      if (frame?.opcode === OPCODE.text) return decoder.decode(frame.payload);
      if (frame?.opcode !== OPCODE.ping) {
        throw new Error(`no text came but ${frame ? `opcode ${frame.opcode}` : "the end"}`);
      }
      await this.send(frame.payload, { opcode: OPCODE.pong });
    }
  }

  /** Reads on to the server's Close frame, or to the end without one. */
  async readClose(): Promise<{ code: number; reason: string } | undefined> {
    for (;;) {
      const frame = await soon(this.read(), "a Close frame");
      if (!frame) return undefined;
      if (frame.opcode !== OPCODE.close) continue;
      const [high = 1005 >> 8, low = 1005 & 255] = frame.payload;
      return { code: high << 8 | low, reason: decoder.decode(frame.payload.subarray(2)) };
    }
  }

  /** Drops the TCP connection without a Close frame. */
  drop(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.connection.close();
  }

  [Symbol.dispose](): void {
    this.drop();
  }

  #takeFrame(): RawFrame | undefined {
    const bytes = this.#buffer;
    if (bytes.length < 2) return;
    const short = bytes[1] & 127;
    const start = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (bytes.length < start) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const length = short === 126
      ? view.getUint16(2)
      : short === 127
      ? Number(view.getBigUint64(2))
      : short;
    if (bytes.length < start + length) return;
    this.#buffer = bytes.subarray(start + length);
    return {
      opcode: bytes[0] & 15,
      fin: (bytes[0] & 128) !== 0,
      payload: bytes.slice(start, start + length),
    };
  }

  async #fill(): Promise<boolean> {
    const chunk = new Uint8Array(65_536);
    let count: number | null;
    try {
      count = await this.connection.read(chunk);
    } catch (error) {
      if (error instanceof Deno.errors.ConnectionReset) return false;
      throw error;
    }
    if (count === null) return false;
    const joined = new Uint8Array(this.#buffer.length + count);
    joined.set(this.#buffer);
    joined.set(chunk.subarray(0, count), this.#buffer.length);
    this.#buffer = joined;
    return true;
  }
}

/** A client's frame on the wire. RFC 6455, 5.2 and 5.3. */
export function maskedFrame(
  payload: string | Uint8Array,
  { opcode = OPCODE.text as number, fin = true } = {},
): Uint8Array<ArrayBuffer> {
  const bytes = typeof payload === "string" ? encoder.encode(payload) : payload;
  const { length } = bytes;
  const size = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const frame = new Uint8Array(2 + size + 4 + length);
  const view = new DataView(frame.buffer);
  frame[0] = (fin ? 128 : 0) | opcode;
  frame[1] = 128 | (size === 0 ? length : size === 2 ? 126 : 127);
  if (size === 2) view.setUint16(2, length);
  if (size === 8) view.setBigUint64(2, BigInt(length));
  const mask = crypto.getRandomValues(frame.subarray(2 + size, 6 + size));
  const data = frame.subarray(6 + size);
  for (let index = 0; index < length; index++) data[index] = bytes[index] ^ mask[index & 3];
  return frame;
}
