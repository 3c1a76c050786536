/**
 * `GET /rooms/{room}/events`: a room as Server-Sent Events. `PROTOCOL.md`, Endpoints.
 *
 * @module
 */
import {
  type ServerSentEventMessage,
  ServerSentEventStream,
} from "@std/http/server-sent-event-stream";
import type { ClientHandler, Slot } from "../access/slot.ts";
import type { App, Visitor } from "../app.ts";
import { isRefusal } from "../engine/engine.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { formatCursor } from "../protocol/position.ts";
import type { End } from "../registry/connection.ts";
import type { Reader } from "../registry/listener.ts";
import type { Client } from "../registry/registry.ts";
import { byteLength } from "../util/bytes.ts";
import { runAt } from "../util/clock.ts";
import { HttpError } from "../protocol/http_error.ts";

/** A comment that often keeps proxies from ending a quiet stream. */
const KEEP_ALIVE_MS = 15_000;

/** Makes the handler of event streams; `Last-Event-ID` or `?after=` resumes. */
export function events(app: App): ClientHandler {
  return async ({ request, url, room: name, visitor }, slot) => {
    const history = Number(url.searchParams.get("history"));
    const reader = new EventReader(app, visitor, slot);
    const wanted = {
      after: request.headers.get("last-event-id") ?? url.searchParams.get("after") ?? undefined,
      history: Number.isInteger(history) && history > 0 ? history : 0,
    };
    const room = app.registry.room(name);
    reader.onEnd = () => room.unlisten(reader);
    const refusal = await room.listen(reader, wanted);
    if (isRefusal(refusal)) {
      reader.close("goingAway");
      throw new HttpError(503, refusal.refused, "The room cannot be opened.", {
        "retry-after": "1",
      });
    }
    return new Response(reader.stream.pipeThrough(new ServerSentEventStream()), {
      headers: {
        "content-type": "text/event-stream",
        // A proxy that compresses would hold events back.
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
      },
    });
  };
}

/** One open stream: a listener of its room, and a client of the registry. */
class EventReader implements Reader, Client {
  readonly dialect = "events";
  readonly remote: string;
  readonly stream: ReadableStream<ServerSentEventMessage>;
  hasEnded = false;
  onEnd: () => void = () => {};
  #controller!: ReadableStreamDefaultController<ServerSentEventMessage>;
  #stopKeepAlive: () => void;
  #stopExpiry: () => void = () => {};

  constructor(readonly app: App, { remote, rights }: Visitor, readonly slot: Slot) {
    this.remote = remote;
    this.stream = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      cancel: () => this.#end({ by: "peer", code: 1000, reason: "closed" }),
    }, {
      highWaterMark: app.limits.maxQueueBytes,
      size: ({ data = "" }) => byteLength(data) + 64,
    });
    this.#stopKeepAlive = app.clock.every(KEEP_ALIVE_MS, () => this.#send({ comment: "" }));
    app.registry.add(this, "events");
    if (rights.expiresAt !== undefined) {
      const end = () => this.close("tokenExpired");
      this.#stopExpiry = runAt(app.clock, rights.expiresAt, end);
    }
  }

  /** Bytes that the reader has not taken. */
  get unsentBytes(): number {
    return this.app.limits.maxQueueBytes - (this.#controller.desiredSize ?? 0);
  }

  welcome(object: string, epoch: string, seq: number): void {
    this.#send({ event: "welcome", data: object, id: formatCursor({ epoch, seq }) });
  }

  chat(object: string, epoch: string, seq: number): void {
    this.#send({ data: object, id: formatCursor({ epoch, seq }) });
  }

  farewell(retryMs: number): void {
    this.#send({ retry: retryMs });
  }

  close(why: keyof typeof CLOSE): void {
    if (this.hasEnded) return;
    this.app.registry.counters.closes[why]++;
    // An error drops what is queued; a close would keep it for a reader that never reads.
    if (why === "tooSlow") this.#controller.error(new Error(CLOSE.tooSlow.reason));
    else this.#controller.close();
    this.#end({ by: "server", ...CLOSE[why] });
  }

  #send(message: ServerSentEventMessage): void {
    if (this.hasEnded) return;
    this.app.registry.counters.bytesOut += message.data?.length ?? 0;
    this.#controller.enqueue(message);
    if (this.#controller.desiredSize! < 0) this.close("tooSlow");
  }

  #end(end: End): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.#stopKeepAlive();
    this.#stopExpiry();
    this.slot.release();
    this.onEnd();
    this.app.registry.remove(this, "events", end);
  }
}
