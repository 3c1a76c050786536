/** `GET /rooms/{room}/events`: a room as Server-Sent Events. `handlers/README.md`, HTTP. */
import type { ClientHandler } from "../app.ts";
import { events as dialect } from "../protocol/encode.ts";
import { readWanted } from "../protocol/position.ts";
import { subscribe } from "../registry/membership.ts";
import type { Rejection } from "../registry/sender.ts";
import { StreamSubscriber } from "../registry/stream_subscriber.ts";
import type { End, Frame } from "../registry/subscriber.ts";
import { errorText } from "../util/log.ts";
import { refusalError } from "./error.ts";

/** A comment that often keeps proxies from ending a quiet stream. */
const KEEP_ALIVE_MS = 15_000;
const KEEP_ALIVE = ":\n\n";
const encoder = new TextEncoder();
/** A room that opens later is answered before: its client learns that the server is there. */
const ANSWER_MS = 1_000;
/** `lastEventId` of event-source-polyfill, `evs_last_event_id` of eventsource-polyfill, and their like. */
const QUERY_ID = /^(?:evs_)?last[-_]?event[-_]?id$/i;

/** Answers with an event stream; `Last-Event-ID` or `?after=` resumes. */
export const events: ClientHandler = async (
  { request, url, room, visitor },
  { registry },
  slot,
) => {
  const { signal } = request;
  const wanted = readWanted(url.searchParams);
  const id = lastEventId(request.headers, url.searchParams);
  if (id !== undefined) Object.assign(wanted, wanted.state ? splitId(id) : { after: id });
  const stream = new EventStream(registry, { ...visitor, slot, signal, dialect });
  signal.addEventListener("abort", () => stream.cancel(), { once: true });
  const opened = subscribe(registry.room(room), stream, wanted);
  const refusal = await (opened instanceof Promise ? stream.awaitRoom(opened) : opened);
  if (refusal) {
    stream.cancel();
    throw refusalError(refusal);
  }
  stream.start();
  return new Response(stream.frames, {
    headers: {
      "content-type": "text/event-stream",
      // A proxy that compresses would hold events back.
      "cache-control": "no-store, no-transform",
      "x-accel-buffering": "no",
    },
  });
};

/** Where a reader was in messages and state; an id of two parts tells nothing of the state. */
function splitId(id: string): { after: string; since?: string } {
  const [epoch, seq, rev] = id.split(":");
  return { after: `${epoch}:${seq}`, since: rev && `${epoch}:${rev}` };
}

/** Where a reader was: from its header, or from the query, where polyfills put it. */
function lastEventId(headers: Headers, query: URLSearchParams): string | undefined {
  const [, inQuery] = [...query].find(([name]) => QUERY_ID.test(name)) ?? [];
  // Empty means none.
  return headers.get("last-event-id") || inQuery || undefined;
}

class EventStream extends StreamSubscriber<Uint8Array<ArrayBuffer>> {
  #gone?: PromiseWithResolvers<Rejection | undefined>;
  #stopKeepAlive?: () => void;

  /** Waits for the room, but not for long, and no longer than the client does. A late refusal ends the stream. */
  awaitRoom(opened: Promise<Rejection | undefined>): Promise<Rejection | undefined> {
    const { promise, resolve } = this.#gone = Promise.withResolvers<Rejection | undefined>();
    const { clock, log } = this.registry;
    const stopLimit = clock.after(ANSWER_MS, () => resolve(undefined));
    // No engine of Parley's rejects; a program's own might.
    const settled = opened.catch((error): Rejection => {
      log.error(`Cannot answer: ${errorText(error)}`, { event: "error" });
      return { refused: "unavailable" };
    });
    settled.then((refusal) => {
      stopLimit();
      resolve(refusal);
      if (refusal) this.stop();
    });
    return promise;
  }

  start(): void {
    if (this.hasEnded || !this.open()) return;
    this.#stopKeepAlive = this.registry.clock.every(KEEP_ALIVE_MS, () => this.send(KEEP_ALIVE));
  }

  // A stream of the runtime's that encodes would cost each client seven kilobytes.
  protected encode(frame: string): Uint8Array<ArrayBuffer> {
    return encoder.encode(frame);
  }

  override send(frame: Frame): void {
    if (typeof frame === "string" && !this.hasEnded) {
      this.registry.counters.bytesOut += frame.length;
    }
    super.send(frame);
  }

  protected override end(end: End): void {
    this.#stopKeepAlive?.();
    this.#gone?.resolve({ refused: "unavailable" });
    super.end(end);
    this.release();
  }
}
