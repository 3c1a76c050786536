/**
 * Senders on every node who repeat what was not acked, and the checker that compares what every
 * node heard, and every ack, with what is kept.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type Engine, isRefusal } from "../../handlers/engine/engine.ts";
import type { Cursor } from "../../handlers/protocol/position.ts";
import { eventually, hear, type Recorder, untilGranted } from "../support/recorder.ts";
import { IS_FULL, sized } from "../support/run.ts";

/** What traffic needs of a node: an engine, or a whole server. */
export type TrafficNode = Pick<Engine, "host" | "publish" | "read">;

interface Ack extends Cursor {
  room: string;
  message: string;
}

interface View {
  node: number;
  room: string;
  start: Cursor;
  recorder: Recorder;
}

/** What a sender waits before its next message: less than all it can, while others work beside it. */
const PAUSE_MS = sized(10, 0);
/** What a sender waits before it repeats, in ms. */
const REPEAT_AFTER_MS = 20;
/** The longest that an answer may take, in ms. */
const ANSWER_WITHIN_MS = 1_000;

/** Traffic in some rooms, each heard on every node. Dispose of it before the nodes. */
export class Traffic implements AsyncDisposable {
  readonly acks: Ack[] = [];
  /** How many answers were `unavailable`. */
  refusals = 0;
  /** The slowest answer, in ms. */
  slowestMs = 0;
  readonly views: View[] = [];
  #isOver = false;
  #isGivenUp = false;
  #senders: Promise<void>[] = [];

  private constructor(readonly nodes: TrafficNode[], readonly rooms: string[]) {}

  /** Opens the rooms everywhere, and has `senders` a room and node begin. */
  static async start(nodes: TrafficNode[], rooms: string[], senders = 3): Promise<Traffic> {
    const traffic = new Traffic(nodes, rooms);
    for (const room of rooms) {
      for (const [node, engine] of nodes.entries()) {
        const { recorder, head } = await hear(engine, room);
        traffic.views.push({ node, room, start: head, recorder });
      }
    }
    for (const room of rooms) {
      for (const [node, engine] of nodes.entries()) {
        for (let i = 0; i < senders; i++) {
          traffic.#senders.push(traffic.#send(engine, room, `${node}.${i}`));
        }
      }
    }
    return traffic;
  }

  /** Settles when `count` more messages have been acked. */
  async flow(count: number): Promise<void> {
    const goal = this.acks.length + count;
    await eventually(() => this.acks.length, (acked) => acked >= goal);
  }

  /** Ends the senders when their last message is acked, and waits until every node heard all. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#senders);
    for (const { node, room, recorder } of this.views) {
      const { seq } = await untilGranted(() => this.nodes[node].read(room));
      await recorder.until(() => placeOf(recorder).seq === seq);
    }
  }

  /**
   * Compares every view and every ack with what is kept: one order, no gap, no repeat, no ack lost.
   *
   * @param mayReset whether a new epoch may have begun; it keeps an older one's up to where it began
   * @param withinMs the longest that an answer may have taken, at full size
   */
  async check(
    { mayReset, withinMs = ANSWER_WITHIN_MS }: { mayReset: boolean; withinMs?: number },
  ): Promise<void> {
    assert(!IS_FULL || this.slowestMs < withinMs, `an answer took ${this.slowestMs} ms`);
    for (const room of this.rooms) {
      const kept = await untilGranted(() => this.nodes[0].read(room));
      const messages = new Map(kept.chats.map(({ seq, message }) => [seq, message]));
      assertEquals([...messages.keys()], kept.chats.map((_, i) => i + 1), "the log has a gap");
      assertEquals(new Set(messages.values()).size, messages.size, "the log has a repeat");
      const views = this.views.filter((view) => view.room === room);
      const ends = endsOf(views);
      for (const ack of this.acks.filter((ack) => ack.room === room)) {
        if (mayReset && ack.seq > (ends.get(ack.epoch) ?? 0)) continue;
        if (!mayReset) assertEquals(ack.epoch, kept.epoch, "an ack of another epoch");
        assertEquals(messages.get(ack.seq), ack.message, "an ack without its message");
      }
      for (const view of views) {
        checkView(view, kept.epoch, messages, mayReset);
      }
    }
  }

  /** Ends the senders, acked or not. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = this.#isGivenUp = true;
    await Promise.all(this.#senders);
  }

  async #send(engine: TrafficNode, room: string, name: string): Promise<void> {
    for (let i = 0; !this.#isOver; i++) {
      const message = JSON.stringify(`${name}.${i}`);
      const key = { session: `session of sender ${name}`, id: `${i}` };
      while (!this.#isGivenUp) {
        const start = performance.now();
        const place = await engine.publish(room, { sender: name, message, key });
        this.slowestMs = Math.max(this.slowestMs, performance.now() - start);
        if (!isRefusal(place)) {
          this.acks.push({ ...place, room, message });
          break;
        }
        assertEquals(place.refused, "unavailable");
        this.refusals++;
        await sleep(REPEAT_AFTER_MS);
      }
      if (PAUSE_MS > 0) await sleep(PAUSE_MS);
    }
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** How far a host has heard. */
export function placeOf({ events }: Recorder): Partial<Cursor> {
  const last = events.findLast((event) => event.type === "chat" || event.type === "reset");
  if (last?.type === "chat") return { seq: last.chat.seq };
  return last?.type === "reset" ? { epoch: last.epoch, seq: last.seq } : {};
}

/** How far each epoch lives on in those after it, as every view was told; the last one: all. */
function endsOf(views: View[]): Map<string, number> {
  const ends = new Map<string, number>();
  for (const { start, recorder } of views) {
    const epochs = [start.epoch];
    for (const event of recorder.events) {
      if (event.type !== "reset") continue;
      for (const epoch of epochs) ends.set(epoch, Math.min(ends.get(epoch) ?? Infinity, event.seq));
      epochs.push(event.epoch);
    }
    const last = epochs.at(-1)!;
    if (!ends.has(last)) ends.set(last, Infinity);
  }
  return ends;
}

function checkView(
  { node, room, start, recorder }: View,
  epoch: string,
  messages: Map<number, string>,
  mayReset: boolean,
): void {
  const where = `node ${node} in ${room}`;
  const place = { epoch: start.epoch, seq: start.seq };
  const heard = new Set<string>();
  for (const event of recorder.events) {
    if (event.type === "reset") {
      assert(mayReset, `${where} heard of a new epoch`);
      assert(event.epoch !== place.epoch, `${where} heard of a new epoch that is none`);
      assert(event.seq <= place.seq, `${where} was not told all`);
      // Redis lost numbers, and the ids with them: they may come again.
      if (event.seq < place.seq) heard.clear();
      Object.assign(place, { epoch: event.epoch, seq: event.seq });
    } else if (event.type === "chat") {
      const { seq, message } = event.chat;
      assertEquals(seq, place.seq + 1, `${where} has a gap or a repeat`);
      assert(!heard.has(message), `${where} heard ${message} twice`);
      if (place.epoch === epoch) assertEquals(message, messages.get(seq), where);
      heard.add(message);
      place.seq = seq;
    }
  }
  assertEquals(place, { epoch, seq: messages.size }, `${where} has not heard all`);
}
