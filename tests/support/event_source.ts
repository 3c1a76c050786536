/**
 * A reader of Server-Sent Events for tests: block by block, as they are on the wire.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { Inbox } from "./inbox.ts";

/** One block of an event stream: its fields, or a comment. */
export interface EventBlock {
  event?: string;
  data?: string;
  id?: string;
  retry?: string;
  /** The text behind the colon of a comment line. */
  comment?: string;
}

/** An open stream. */
export class EventReader implements AsyncDisposable {
  readonly #blocks = new Inbox<EventBlock>("an event");
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  /** Resolves when the stream has. */
  readonly ended: Promise<void>;

  /** @throws if the response is no event stream */
  constructor(readonly response: Response) {
    assertEquals(response.status, 200);
    assertEquals(response.headers.get("content-type"), "text/event-stream");
    this.#reader = response.body!.getReader();
    this.ended = this.#read();
  }

  /** The next block. Rejects when the stream has ended. */
  next(): Promise<EventBlock> {
    return this.#blocks.next();
  }

  /** The next event's data, read as JSON, with its id. */
  // deno-lint-ignore no-explicit-any -- whatever the server sent
  async nextData(): Promise<any> {
    const { data, id } = await this.next();
    return { ...JSON.parse(data!), id };
  }

  /** Goes away, as a page does that is closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader.cancel().catch(() => {});
    await this.ended;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    let why = "the stream has ended";
    try {
      for (;;) {
        const { value, done } = await this.#reader.read();
        if (done) break;
        const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
        rest = blocks.pop()!;
        for (const block of blocks) this.#blocks.push(parseBlock(block));
      }
    } catch (error) {
      why = `the stream broke: ${error}`;
    }
    this.#blocks.end(new Error(why));
  }
}

function parseBlock(text: string): EventBlock {
  const lines = text.split("\n").map((line) => {
    const [, name, value] = /^([^:]*):(.*)$/.exec(line) ?? ["", "", line];
    return [name || "comment", value];
  });
  return Object.fromEntries(lines);
}
