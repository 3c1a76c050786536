/**
 * A TCP proxy that cuts connections in the middle of whatever they carry.
 *
 * @module
 */

/** Numbers from 0 to 1 that come again with the same seed: mulberry32. */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, 1 | state);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}

/** Carries connections from a port of its own to another, until it cuts them. */
export class CuttingProxy implements AsyncDisposable {
  /** Connections that it cut. */
  cutCount = 0;
  /** How many bytes a new connection carries to the target, and back, before it is cut. */
  bytesUntilCut: () => { up: number; down: number } = () => ({ up: Infinity, down: Infinity });
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #links = new Set<() => void>();
  readonly #tasks = new Set<Promise<void>>();

  /** @param targetPort where connections go; it may change */
  constructor(public targetPort: number) {
    this.#run(this.#accept());
  }

  /** The port to connect to. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** Cuts every connection there is. */
  cutAll(): void {
    for (const cut of this.#links) cut();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.cutAll();
    await Promise.all(this.#tasks);
  }

  #run(task: Promise<void>): void {
    this.#tasks.add(task);
    task.finally(() => this.#tasks.delete(task));
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) this.#run(this.#link(client));
  }

  async #link(client: Deno.Conn): Promise<void> {
    let server: Deno.Conn;
    try {
      server = await Deno.connect({ hostname: "127.0.0.1", port: this.targetPort });
    } catch {
      return client.close();
    }
    const { up, down } = this.bytesUntilCut();
    const cut = () => {
      if (!this.#links.delete(cut)) return;
      this.cutCount++;
      client.close();
      server.close();
    };
    this.#links.add(cut);
    const carry = async (from: Deno.Conn, to: Deno.Conn, bytes: number) => {
      let left = Math.ceil(bytes);
      const buffer = new Uint8Array(16_384);
      try {
        for (;;) {
          const count = await from.read(buffer);
          if (count === null) break;
          const size = Math.min(count, left);
          left -= size;
          for (let sent = 0; sent < size;) sent += await to.write(buffer.subarray(sent, size));
          if (left <= 0) break;
        }
      } catch {
        // The other direction ended it.
      }
      cut();
    };
    await Promise.all([carry(client, server, up), carry(server, client, down)]);
  }
}
