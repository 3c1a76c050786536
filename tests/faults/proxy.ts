/**
 * A TCP proxy of a test's own, which can cut or swallow what goes through it.
 *
 * @module
 */

/** Stands between a client and a server on this machine. */
export class Proxy implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  readonly #pipes = new Set<Promise<void>>();
  readonly #accepting: Promise<void>;
  #isCut = false;
  /** Settles when bytes may go through again. */
  #passage?: PromiseWithResolvers<void>;

  constructor(public targetPort: number) {
    this.#accepting = this.#accept();
  }

  /** Where clients reach it. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** Ends all connections, and each new one at once. */
  cut(): void {
    this.#isCut = true;
    this.#closeAll();
  }

  /** Keeps connections, and takes new ones, but lets nothing through: neither bytes nor an end. */
  swallow(): void {
    this.#passage ??= Promise.withResolvers();
  }

  /** Lets everything through again, what was held back first. */
  heal(): void {
    this.#isCut = false;
    this.#passage?.resolve();
    this.#passage = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.heal();
    this.cut();
    await this.#accepting;
    await Promise.all(this.#pipes);
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      if (this.#isCut) {
        client.close();
        continue;
      }
      const server = await Deno.connect({ hostname: "127.0.0.1", port: this.targetPort })
        .catch(() => undefined);
      if (!server) {
        client.close();
        continue;
      }
      this.#pipe(client, server);
      this.#pipe(server, client);
    }
  }

  #pipe(from: Deno.Conn, to: Deno.Conn): void {
    const pipe = this.#copy(from, to).catch(() => {}).finally(() => {
      for (const connection of [from, to]) {
        if (this.#open.delete(connection)) connection.close();
      }
      this.#pipes.delete(pipe);
    });
    this.#open.add(from);
    this.#pipes.add(pipe);
  }

  async #copy(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(65_536);
    while (true) {
      const count = await from.read(buffer);
      await this.#passage?.promise;
      if (count === null) return;
      let written = 0;
      while (written < count) written += await to.write(buffer.subarray(written, count));
    }
  }

  #closeAll(): void {
    for (const connection of this.#open) connection.close();
    this.#open.clear();
  }
}
