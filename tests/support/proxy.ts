/**
 * The network between two programs: a TCP proxy that cuts, swallows or holds back what it carries.
 *
 * @module
 */

/** One direction of a connection. */
interface Pipe {
  from: Deno.Conn;
  to: Deno.Conn;
  /** How many bytes it still carries. */
  bytesLeft: number;
  filter: (chunk: Uint8Array) => Uint8Array;
  isStalled: boolean;
  ended: Promise<void>;
}

/** Carries connections from a port of its own to another. */
export class Proxy implements AsyncDisposable {
  /** How many bytes a new connection carries to the target, and back, before it is cut. */
  bytesUntilCut: () => { up: number; down: number } = () => ({ up: Infinity, down: Infinity });
  /** Changes what the target sends, a chunk at a time. */
  filter: (chunk: Uint8Array) => Uint8Array = (chunk) => chunk;
  /** Connections that have ended. */
  endCount = 0;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #pipes = new Set<Pipe>();
  readonly #accepting: Promise<void>;
  /** What becomes of a new connection. */
  #mode: "pass" | "stall" | "refuse" = "pass";
  #healed = Promise.withResolvers<void>();

  /** @param targetPort where connections go; it may change */
  constructor(public targetPort: number) {
    this.#accepting = this.#accept();
  }

  /** Where clients reach it. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** How many connections go through it. */
  get connectionCount(): number {
    return this.#pipes.size / 2;
  }

  /** Ends all connections; new ones pass. */
  cutAll(): void {
    for (const { from, to } of this.#pipes) close(from, to);
    this.#release();
  }

  /** Ends all connections, and each new one at once. */
  cut(): void {
    this.#mode = "refuse";
    this.cutAll();
  }

  /** Keeps its connections, but lets nothing through them: neither bytes nor an end. */
  stall(): void {
    for (const pipe of this.#pipes) pipe.isStalled = true;
  }

  /** The same for each new connection. */
  swallow(): void {
    this.#mode = "stall";
    this.stall();
  }

  /** Lets everything through again, what was held back first. */
  heal(): void {
    this.#mode = "pass";
    this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cut();
    await this.#accepting;
    await Promise.all([...this.#pipes].map((pipe) => pipe.ended));
  }

  #release(): void {
    for (const pipe of this.#pipes) pipe.isStalled = false;
    this.#healed.resolve();
    this.#healed = Promise.withResolvers();
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      const server = this.#mode === "refuse"
        ? undefined
        : await Deno.connect({ hostname: "127.0.0.1", port: this.targetPort })
          .catch(() => undefined);
      if (!server) {
        close(client);
        continue;
      }
      const { up, down } = this.bytesUntilCut();
      this.#open(client, server, up, (chunk) => chunk);
      this.#open(server, client, down, (chunk) => this.filter(chunk));
    }
  }

  #open(from: Deno.Conn, to: Deno.Conn, bytesLeft: number, filter: Proxy["filter"]): void {
    const isStalled = this.#mode === "stall";
    const pipe = { from, to, bytesLeft, filter, isStalled, ended: Promise.resolve() };
    this.#pipes.add(pipe);
    pipe.ended = this.#copy(pipe).catch(() => {}).finally(() => {
      close(from, to);
      this.#pipes.delete(pipe);
      this.endCount += 0.5;
    });
  }

  async #copy(pipe: Pipe): Promise<void> {
    const buffer = new Uint8Array(65_536);
    while (pipe.bytesLeft > 0) {
      const count = await pipe.from.read(buffer);
      if (pipe.isStalled) await this.#healed.promise;
      if (count === null) return;
      const size = Math.min(count, Math.ceil(pipe.bytesLeft));
      pipe.bytesLeft -= size;
      const bytes = pipe.filter(buffer.subarray(0, size));
      for (let sent = 0; sent < bytes.length;) sent += await pipe.to.write(bytes.subarray(sent));
    }
  }
}

function close(...connections: Deno.Conn[]): void {
  for (const connection of connections) {
    try {
      connection.close();
    } catch (error) {
      // The other direction closed it before.
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }
}
