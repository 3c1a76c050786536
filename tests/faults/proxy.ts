/**
 * A TCP proxy of a test's own, which can cut or swallow what goes through it.
 *
 * @module
 */

/** One direction of a connection. */
interface Pipe {
  from: Deno.Conn;
  to: Deno.Conn;
  isStalled: boolean;
  ended: Promise<void>;
}

/** Stands between a client and a server on this machine. */
export class Proxy implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #pipes = new Set<Pipe>();
  readonly #accepting: Promise<void>;
  /** What becomes of a new connection. */
  #mode: "pass" | "stall" | "refuse" = "pass";
  #healed = Promise.withResolvers<void>();

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

  /** Ends all connections, and each new one at once. */
  cut(): void {
    this.#mode = "refuse";
    for (const { from, to } of this.#pipes) close(from, to);
    this.#release();
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
      this.#open(client, server);
      this.#open(server, client);
    }
  }

  #open(from: Deno.Conn, to: Deno.Conn): void {
    const pipe = { from, to, isStalled: this.#mode === "stall", ended: Promise.resolve() };
    this.#pipes.add(pipe);
    pipe.ended = this.#copy(pipe).catch(() => {}).finally(() => {
      close(from, to);
      this.#pipes.delete(pipe);
    });
  }

  async #copy(pipe: Pipe): Promise<void> {
    const buffer = new Uint8Array(65_536);
    while (true) {
      const count = await pipe.from.read(buffer);
      if (pipe.isStalled) await this.#healed.promise;
      if (count === null) return;
      let written = 0;
      while (written < count) written += await pipe.to.write(buffer.subarray(written, count));
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
