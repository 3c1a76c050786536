/**
 * A multiplayer game: twenty players tell each other where they are, thirty times a second, as a few
 * bytes. Parley relays binary frames to all others of the room and keeps nothing of them.
 */
import { assertEquals } from "@std/assert";
import { Client } from "../support/clients.ts";
import { startServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";

const PLAYERS = 20;
const TICKS = 10;
const HZ = 30;

/** A player's state in 12 bytes: who, at which tick, and where. */
function encode(player: number, tick: number): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(12));
  view.setUint16(0, player);
  view.setUint16(2, tick);
  view.setFloat32(4, Math.sin(tick));
  view.setFloat32(8, Math.cos(tick));
  return new Uint8Array(view.buffer);
}

Deno.test("multiplayer game: 20 players share binary state at 30 Hz", async () => {
  await using server = await startServer();
  await using stack = new AsyncDisposableStack();
  const players: Client[] = [];
  for (const number of range(1, PLAYERS)) {
    players.push(stack.use(await Client.join(`${server.ws}/chat/arena`, `player ${number}`)));
  }

  let heard = 0;
  const play = async (me: Client, number: number) => {
    const lastTicks = new Map<number, number>();
    for (let left = (PLAYERS - 1) * TICKS; left > 0;) {
      const frame = await me.next();
      // Text tells who joined.
      if (typeof frame === "string") continue;
      left--;
      const view = new DataView(frame.buffer);
      const player = view.getUint16(0);
      const tick = view.getUint16(2);
      // Every state of every other player, once and in order.
      assertEquals(tick, (lastTicks.get(player) ?? 0) + 1);
      lastTicks.set(player, tick);
      heard++;
    }
    assertEquals(lastTicks.size, PLAYERS - 1);
    assertEquals(lastTicks.has(number), false);
  };
  const playing = players.map((player, index) => play(player, index + 1));

  // The clock of the game: all players send their state at each tick.
  for (const tick of range(1, TICKS)) {
    await new Promise((resolve) => setTimeout(resolve, 1_000 / HZ));
    players.forEach((player, index) => player.send(encode(index + 1, tick)));
  }
  await Promise.all(playing);

  assertEquals(heard, PLAYERS * (PLAYERS - 1) * TICKS);
});
