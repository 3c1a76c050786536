/** How the store's Worker is known: in a bundle it runs the same module as the main thread. */

/** The name of the store's Worker. */
export const STORE_NAME = "store of parley";

/** Whether this thread is the store's Worker, for which importing `store.ts` is all there is to do. */
export function isStoreWorker(): boolean {
  return "WorkerGlobalScope" in globalThis && (globalThis as { name?: string }).name === STORE_NAME;
}
