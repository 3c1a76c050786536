/**
 * A bot that hears a room and answers in it: `!time` tells the time.
 *
 *     deno run -A tests/examples/bot.ts
 *
 * @module
 */
import { createParley, type Parley } from "../../handlers/parley.ts";

/** Answers in a room until the signal, or the end of `parley`. */
export async function runBot(parley: Parley, room: string, signal?: AbortSignal): Promise<void> {
  for await (const event of parley.subscribe(room, { signal })) {
    if (event.type !== "chat" || event.message !== "!time") continue;
    await parley.publish(room, new Date(event.time).toISOString(), { sender: "clock" });
  }
}

if (import.meta.main) {
  const parley = createParley();
  runBot(parley, "lobby");
  Deno.serve(parley.fetch);
}
