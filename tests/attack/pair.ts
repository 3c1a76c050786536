/**
 * Two who only want to chat while somebody attacks.
 *
 * @module
 */
import { Inbox, soon } from "../support/inbox.ts";

/** How the chat went, when nothing was lost. */
export interface PairReport {
  messages: number;
  /** From Ann's `send` to Bob's event. */
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
}

/** One after the other: Deno checks the types of a thread's module until it has done so once. */
let starting: Promise<unknown> = Promise.resolve();

/** Ann and Bob. Their messages are numbered: one that is lost, doubled or out of order fails. */
export class InnocentPair implements Disposable {
  readonly #worker: Worker;
  readonly #answers = new Inbox<PairReport | "ready">("an answer of the innocent pair");

  private constructor() {
    const url = new URL("./pair_worker.ts", import.meta.url);
    this.#worker = new Worker(url, { type: "module" });
    this.#worker.onmessage = ({ data }) => {
      if (data.error) this.#answers.end(new Error(data.error));
      else this.#answers.push(data);
    };
  }

  /** Begins a chat that goes on until {@link InnocentPair.stop}. */
  static start(ws: string): Promise<InnocentPair> {
    const started = starting.then(async () => {
      const pair = new InnocentPair();
      pair.#worker.postMessage({ ws });
      await pair.#answers.next();
      return pair;
    });
    starting = started.catch(() => {});
    return started;
  }

  /** Waits for the last message. Rejects if one was lost. */
  async stop(): Promise<PairReport> {
    this.#worker.postMessage("stop");
    const report = await soon(this.#answers.next(), "the pair's last message");
    return report as PairReport;
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }
}
