/**
 * A program that publishes on a durable engine that has to drop much, and prints each ack, until it is killed.
 *
 *     deno run -A tests/faults/busy_engine.ts FILE
 *
 * @module
 */
import { createDurableEngine } from "../../handlers/engine/durable.ts";
import { isRefusal } from "../../handlers/engine/engine.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { silentLog } from "../../handlers/util/log.ts";
import { draft, ROOMY } from "../engine/contract.ts";

/** Half of the rooms that are used, and few messages of each. */
export const TIGHT = { ...ROOMY, historySize: 5, maxRooms: 50 };

if (import.meta.main) {
  const engine = await createDurableEngine(Deno.args[0], TIGHT, systemClock, silentLog);
  for (let caller = 0; caller < 100; caller++) {
    (async () => {
      for (let i = 0;; i++) {
        const room = `room-${Math.floor(Math.random() * 100)}`;
        const message = `${caller}.${i}`;
        const key = { session: `caller ${caller}`, id: `${i}` };
        const place = await engine.publish(room, draft(message, key));
        if (!isRefusal(place)) console.log(`${room} ${place.epoch} ${place.seq} ${message}`);
      }
    })();
  }
}
