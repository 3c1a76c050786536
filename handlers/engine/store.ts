/**
 * The store of the durable engine: a Worker that has the file, and its end in the main thread.
 *
 * This module is the Worker's, too, so that a bundle, where all modules are one, can start it.
 */
import type { Changes } from "./journal.ts";
import { SqliteFile, type TakeEntry } from "./sqlite.ts";
import { isStoreWorker, STORE_NAME } from "./store_name.ts";

/** Where changes are committed, one batch after the other. */
export interface Store {
  /** Settles when the changes are on the disk. Rejects if they may not be: give them again. */
  commit(changes: Changes): Promise<void>;
  close(): Promise<void>;
}

/** To the Worker, one at a time. */
type Request = { open: string; owner: string } | { commit: Changes } | { close: true };

/** The Worker's answer to its start and to each request. */
type Reply = { error?: string };

/**
 * Opens a store, and reads what it has: in this thread, as copying it from another takes longer.
 * @throws {Error} if the file cannot be used; the message says why
 */
export async function openStore(path: string, take: TakeEntry): Promise<Store> {
  const owner = crypto.randomUUID();
  const file = new SqliteFile(path, owner, false);
  try {
    file.read(take);
  } finally {
    file.close();
  }
  const store = new WorkerStore(path, owner);
  await store.start();
  return store;
}

class WorkerStore implements Store {
  #worker?: Worker;
  #pending?: PromiseWithResolvers<void>;

  constructor(readonly path: string, readonly owner: string) {}

  async start(): Promise<void> {
    const worker = new Worker(import.meta.url, { type: "module", name: STORE_NAME });
    this.#worker = worker;
    worker.onmessage = ({ data: { error } }: MessageEvent<Reply>) => {
      if (error === undefined) this.#pending?.resolve();
      else this.#pending?.reject(new Error(error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      if (this.#worker === worker) this.#end(`its thread ended: ${event.message}`);
    };
    try {
      await this.#request();
      await this.#request({ open: this.path, owner: this.owner });
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  async commit(changes: Changes): Promise<void> {
    if (!this.#worker) await this.start();
    await this.#request({ commit: changes });
  }

  async close(): Promise<void> {
    try {
      // One that is busy does not answer soon, if at all.
      if (this.#worker && !this.#pending) await this.#request({ close: true });
    } finally {
      this.#end();
    }
  }

  /** Settles with the next reply: to a request, or to the start. */
  async #request(request?: Request): Promise<void> {
    this.#pending = Promise.withResolvers();
    if (request) this.#worker!.postMessage(request);
    try {
      await this.#pending.promise;
    } finally {
      this.#pending = undefined;
    }
  }

  #end(reason = "it is closed"): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#pending?.reject(new Error(reason));
  }
}

function runStore(worker: { postMessage(reply: Reply): void }): void {
  let file: SqliteFile | undefined;
  addEventListener("message", (event) => {
    const request = (event as MessageEvent<Request>).data;
    try {
      if ("commit" in request) file!.commit(request.commit);
      else if ("close" in request) file?.close();
      else file = new SqliteFile(request.open, request.owner, true);
      worker.postMessage({});
    } catch (error) {
      worker.postMessage({ error: (error as Error).message });
    }
  });
  worker.postMessage({});
}

if (isStoreWorker()) {
  runStore(self as unknown as { postMessage(reply: Reply): void });
  // In a bundle the program that imports this stands behind it: it must not run here, too.
  await new Promise(() => {});
}
