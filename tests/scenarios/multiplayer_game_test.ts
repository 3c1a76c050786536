/**
 * A multiplayer game: ten players say where they are thirty times a second. A position is a key that
 * is bound to its player, and everybody gets what changed at most each 33 ms; whose turn it is is a
 * lock that one of them gets.
 */
import { assertEquals } from "@std/assert";
import { connect } from "../../handlers/client/client.js";
import { eventually } from "../support/inbox.ts";
import { startServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";

const PLAYERS = 10;
const TICKS = 10;

Deno.test("multiplayer game: positions at 30 Hz, bound to their players, and a lock", async () => {
  await using server = await startServer();
  using stack = new DisposableStack();
  const players = range(1, PLAYERS).map((number) => {
    const name = `player ${number}`;
    const client = connect(`${server.ws}/chat/arena`, { name, state: { every: 33 } });
    stack.defer(() => client.close());
    return client;
  });
  const key = (index: number) => `players/${index + 1}`;

  for (const tick of range(1, TICKS)) {
    await Promise.all(
      players.map((player, index) => player.set(key(index), { x: index, y: tick }, { bind: true })),
    );
  }
  const everyone = Object.fromEntries(
    players.map((_, index) => [key(index), { x: index, y: TICKS }]),
  );
  const seen = (player: typeof players[number]) => Object.fromEntries(player.state());
  for (const player of players) {
    await eventually(
      () => seen(player)[key(PLAYERS - 1)],
      (last) => (last as { y?: number })?.y === TICKS,
    );
    assertEquals(seen(player), everyone);
  }

  // All of them want the turn; one gets it, and it is free again once that one is gone.
  const wants = players.map((player, index) =>
    player.set("turn", index, { if: 0, bind: true }).then(() => index, ({ code }) => code)
  );
  const results = await Promise.all(wants);
  const [holder] = results.filter((result) => typeof result === "number");
  assertEquals(results.filter((result) => result === "rev_conflict").length, PLAYERS - 1);
  players[holder].close();
  const other = players[(holder + 1) % PLAYERS];
  await eventually(() => seen(other), (state) => !("turn" in state) && !(key(holder) in state));
  assertEquals(Object.keys(seen(other)).length, PLAYERS - 1);
  await other.set("turn", "mine", { if: 0, bind: true });
});
