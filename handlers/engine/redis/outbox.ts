/**
 * What the room `_events` is to hear. The script that changes who has joined writes it down in the room's
 * own slot; the node that ran it publishes it, and only then deletes it: nothing is lost with a node.
 */
import { EVENTS_ROOM } from "../../protocol/parse.ts";
import { type Engine, isRefusal } from "../engine.ts";
import { EVENTS_SENDER } from "../member_events.ts";
import { unpackAll } from "./encoding.ts";
import type { RedisNode, RedisRoom } from "./room.ts";

/** Publishes what rooms have in their outboxes: a room's events in order, at least once. */
export class Outbox {
  /** Rooms whose outbox is read now, and whether there may be more since. */
  readonly #running = new Map<string, { isDue: boolean; done: Promise<void> }>();
  /** Rooms whose outbox could not be read or published. */
  readonly #failed = new Map<string, RedisRoom>();

  constructor(readonly node: Pick<RedisNode, "run">, readonly publish: Engine["publish"]) {}

  flush(room: RedisRoom): Promise<void> {
    const running = this.#running.get(room.name);
    const run = running ?? { isDue: true, done: Promise.resolve() };
    run.isDue = true;
    if (running) return running.done;
    this.#running.set(room.name, run);
    return run.done = this.#empty(room, run);
  }

  retry(): void {
    for (const room of this.#failed.values()) this.flush(room);
  }

  async #empty(room: RedisRoom, run: { isDue: boolean }): Promise<void> {
    this.#failed.delete(room.name);
    for (let last = "0"; run.isDue;) {
      run.isDue = false;
      const entries = await this.node.run("outbox", room.keys, [last]);
      if (!Array.isArray(entries) || !await this.#publish(room.name, entries)) {
        this.#failed.set(room.name, room);
      } else if (entries.length > 0) {
        [last] = entries.at(-1).split(" ", 1);
        run.isDue = true;
      }
    }
    // With no `await` in between, whoever comes later starts another run.
    this.#running.delete(room.name);
  }

  /** Publishes one after the other, so that none overtakes one that fails. */
  async #publish(room: string, entries: string[]): Promise<boolean> {
    for (const entry of entries) {
      const [n, event, members] = entry.split(" ", 3);
      const packed = entry.slice(`${n} ${event} ${members} `.length);
      const [name, user] = unpackAll(packed);
      const message = { event, room, n: Number(n), name, user, members: Number(members) };
      const outcome = await this.publish(EVENTS_ROOM, {
        sender: EVENTS_SENDER,
        message: JSON.stringify(message),
        // It counts once, however many nodes publish it.
        key: { session: `events of ${room}`, id: n },
      });
      if (isRefusal(outcome)) return false;
    }
    return true;
  }
}
