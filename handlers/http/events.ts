/**
 * `GET /rooms/{room}/events`: a room as Server-Sent Events. `PROTOCOL.md`, Endpoints.
 *
 * @module
 */
import type { ClientHandler, Slot } from "../access/slot.ts";
import type { App, Visitor } from "../app.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { events as eventsDialect } from "../protocol/encode.ts";
import { readWanted } from "../protocol/position.ts";
import type { Registry } from "../registry/registry.ts";
import { type End, type Frame, Subscriber } from "../registry/subscriber.ts";
import { byteLength } from "../util/bytes.ts";
import { refusalError } from "./rooms.ts";

/** A comment that often keeps proxies from ending a quiet stream. */
const KEEP_ALIVE_MS = 15_000;
const KEEP_ALIVE = ":\n\n";

/** Makes the handler of event streams; `Last-Event-ID` or `?after=` resumes. */
export function events(app: App): ClientHandler {
  return async ({ request, url, room, visitor }, slot) => {
    const stream = new EventStream(app.registry, visitor, slot);
    const wanted = readWanted(url.searchParams);
    wanted.after = request.headers.get("last-event-id") ?? wanted.after;
    const opened = app.registry.room(room).subscribe(stream, wanted);
    // While it waits nothing else tells that the client gave up.
    if (opened instanceof Promise) {
      request.signal.addEventListener("abort", () => stream.cancel(), { once: true });
    }
    const refusal = await opened;
    if (refusal || stream.hasEnded) {
      stream.cancel();
      throw refusalError(refusal ?? { refused: "unavailable" });
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

/** A subscriber over one HTTP response. */
class EventStream extends Subscriber {
  readonly body: ReadableStream<string>;
  #controller!: ReadableStreamDefaultController<string>;
  #stopKeepAlive?: () => void;

  constructor(registry: Registry, visitor: Visitor, slot: Slot) {
    super(registry, { ...visitor, slot, dialect: eventsDialect });
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
    if (this.#controller.desiredSize! < 0) this.close("tooSlow");
  }

  protected closeTransport(why: keyof typeof CLOSE): void {
    // An error drops what is queued; a close would keep it for a client that never reads.
    if (why === "tooSlow") this.#controller.error(new Error(CLOSE.tooSlow.reason));
    else this.#controller.close();
  }

  protected override end(end: End): void {
    this.#stopKeepAlive?.();
    super.end(end);
    this.release();
  }
}
