/**
 * The store of the durable engine: a Worker that has the file, and its end in the main thread.
 *
 * This module is the Worker's, too, so that a bundle, where all modules are one, can start it.
 *
 * @module
 */
import type { Changes } from "./journal.ts";
import { SqliteFile, type TakeRows } from "./sqlite.ts";
import { isStoreWorker, STORE_NAME } from "./store_name.ts";

/** Where changes are committed, in the order they are given. */
export interface Store {
  /** Settles when the changes are on the disk. Rejects if they may not be: give them again. */
  commit(changes: Changes): Promise<void>;
  close(): Promise<void>;
}

/** To the Worker, one at a time. It answers each, and its own start, with a {@link Reply}. */
type Request =
  | { open: string; mayCreate: boolean; isToRead: boolean }
  | { commit: Changes }
  | { close: true };

/** From the Worker: rows while it opens the file, then how a request ended. */
type Reply = { rows: Parameters<TakeRows> } | { error?: string };

/**
 * Opens a store, and reads what it has.
 *
 * @param take is given the rows, each table in order, before the promise settles
 * @throws {Error} if the file cannot be used; the message says why
 */
export async function openStore(path: string, take: TakeRows): Promise<Store> {
  const store = new WorkerStore(path);
  await store.open(take);
  return store;
}

class WorkerStore implements Store {
  #worker?: Worker;
  #pending?: PromiseWithResolvers<void>;
  #take?: TakeRows;

  constructor(readonly path: string) {}

  async open(take: TakeRows): Promise<void> {
    this.#take = take;
    await this.#start({ open: this.path, mayCreate: true, isToRead: true });
    this.#take = undefined;
  }

  async commit(changes: Changes): Promise<void> {
    // The one before has died. A file that is gone is not made again: it would lack what it had.
    if (!this.#worker) await this.#start({ open: this.path, mayCreate: false, isToRead: false });
    await this.#request({ commit: changes });
  }

  async close(): Promise<void> {
    try {
      if (this.#worker) await this.#request({ close: true });
    } finally {
      this.#end();
    }
  }

  async #start(open: Request): Promise<void> {
    const worker = new Worker(import.meta.url, { type: "module", name: STORE_NAME });
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      if ("rows" in data) return this.#take?.(...data.rows);
      if (data.error === undefined) this.#pending?.resolve();
      else this.#pending?.reject(new Error(data.error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      if (this.#worker === worker) this.#end(`its thread ended: ${event.message}`);
    };
    try {
      await this.#reply();
      await this.#request(open);
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  #request(request: Request): Promise<void> {
    this.#worker!.postMessage(request);
    return this.#reply();
  }

  #reply(): Promise<void> {
    this.#pending = Promise.withResolvers();
    return this.#pending.promise;
  }

  #end(reason = "it is closed"): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#pending?.reject(new Error(reason));
    // Nobody may wait for it any more.
    this.#pending?.promise.catch(() => {});
  }
}

/** In the Worker: does one request after the other. */
function runStore(worker: { postMessage(reply: Reply): void }): void {
  let file: SqliteFile | undefined;
  const run = (request: Request) => {
    if ("commit" in request) file!.commit(request.commit);
    else if ("close" in request) file?.close();
    else {
      file = new SqliteFile(request.open, request.mayCreate);
      if (request.isToRead) file.read((...rows) => worker.postMessage({ rows }));
    }
  };
  addEventListener("message", (event) => {
    try {
      run((event as MessageEvent<Request>).data);
      worker.postMessage({});
    } catch (error) {
      worker.postMessage({ error: (error as Error).message });
    }
  });
  worker.postMessage({});
}

if (isStoreWorker()) runStore(self as unknown as { postMessage(reply: Reply): void });
