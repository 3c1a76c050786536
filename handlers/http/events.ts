/**
 * `GET /rooms/{room}/events`: a room as Server-Sent Events. `handlers/README.md`, HTTP.
 *
 * @module
 */
import type { App, ClientHandler } from "../app.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { events as eventsDialect } from "../protocol/encode.ts";
import { readWanted } from "../protocol/position.ts";
import type { Registry } from "../registry/registry.ts";
import type { Rejection } from "../registry/room.ts";
import {
  type End,
  type Frame,
  Subscriber,
  type SubscriberOptions,
} from "../registry/subscriber.ts";
import { byteLength } from "../util/bytes.ts";
import { refusalError } from "./error.ts";

/** A comment that often keeps proxies from ending a quiet stream. */
const KEEP_ALIVE_MS = 15_000;
const KEEP_ALIVE = ":\n\n";
/** `lastEventId` of event-source-polyfill, `evs_last_event_id` of eventsource-polyfill, and their like. */
const QUERY_ID = /^(?:evs_)?last[-_]?event[-_]?id$/i;

/** Makes the handler of event streams; `Last-Event-ID` or `?after=` resumes. */
export function events(app: App): ClientHandler {
  return async ({ request, url, room, visitor }, slot) => {
    const stream = new EventStream(app.registry, { ...visitor, slot, signal: request.signal });
    const wanted = readWanted(url.searchParams);
    wanted.after = lastEventId(request.headers, url.searchParams) ?? wanted.after;
    const opened = app.registry.room(room).subscribe(stream, wanted);
    const refusal = await Promise.race([opened, stream.gone]);
    if (refusal) {
      stream.cancel();
      throw refusalError(refusal);
    }
    stream.start();
    return new Response(stream.body.pipeThrough(new TextEncoderStream()), {
      headers: {
        "content-type": "text/event-stream",
        // A proxy that compresses would hold events back.
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
      },
    });
  };
}

/** Where a reader was: its header, or what polyfills that can set no header put into the query. */
function lastEventId(headers: Headers, query: URLSearchParams): string | undefined {
  const [, inQuery] = [...query].find(([name]) => QUERY_ID.test(name)) ?? [];
  return headers.get("last-event-id") ?? inQuery;
}

/** A subscriber over one HTTP response. */
class EventStream extends Subscriber {
  readonly body: ReadableStream<string>;
  #controller!: ReadableStreamDefaultController<string>;
  #stopKeepAlive?: () => void;

  readonly #gone = Promise.withResolvers<Rejection>();

  constructor(registry: Registry, options: Omit<SubscriberOptions, "dialect">) {
    super(registry, { ...options, dialect: eventsDialect });
    options.signal?.addEventListener("abort", () => this.cancel(), { once: true });
    this.body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      cancel: () => this.cancel(),
    }, {
      highWaterMark: registry.limits.maxQueueBytes,
      size: (text) => byteLength(text),
    });
  }

  /** The end of the stream before it has begun, as an answer to its request. */
  get gone(): Promise<Rejection> {
    return this.#gone.promise;
  }

  get unsentBytes(): number {
    return this.registry.limits.maxQueueBytes - (this.#controller.desiredSize ?? 0);
  }

  /** The room is open: the client is counted in. */
  start(): void {
    if (this.hasEnded || !this.open()) return;
    this.#stopKeepAlive = this.registry.clock.every(KEEP_ALIVE_MS, () => this.send(KEEP_ALIVE));
  }

  /** The client has gone, or there is nothing to give it. */
  cancel(): void {
    this.end({ by: "peer", code: 1000, reason: "closed" });
  }

  send(frame: Frame): void {
    if (this.hasEnded || typeof frame !== "string") return;
    this.registry.counters.bytesOut += frame.length;
    this.#controller.enqueue(frame);
    if (this.unsentBytes > this.registry.queueLimit) this.close("tooSlow");
  }

  protected closeTransport(why: keyof typeof CLOSE): void {
    // An error drops what is queued; a close would keep it for a client that never reads.
    if (why === "tooSlow") this.#controller.error(new Error(CLOSE.tooSlow.reason));
    else this.#controller.close();
  }

  protected override end(end: End): void {
    this.#stopKeepAlive?.();
    this.#gone.resolve({ refused: "unavailable" });
    super.end(end);
    this.release();
  }
}
