import { assertEquals } from "@std/assert";
import { Budget } from "../../handlers/engine/budget.ts";
import { Expiry } from "../../handlers/engine/expiry.ts";
import { roomLimits } from "../../handlers/engine/room_rules.ts";
import { type ExpiringKey, RoomState } from "../../handlers/engine/room_state.ts";
import { FakeClock } from "../support/fakes.ts";

Deno.test("Expiry ends what is over, however many end at other times", () => {
  const clock = new FakeClock();
  const ended: number[] = [];
  const expiry = new Expiry<number>(clock, (one) => ended.push(one));
  // More than a call takes arguments.
  for (let i = 1; i <= 200_000; i++) expiry.add(i, clock.now() + i * 1_000);
  clock.tick(3_000);
  assertEquals(ended, [1, 2, 3]);
  expiry.clear();
  assertEquals(clock.timerCount, 0);
});

Deno.test("a key that is set again and again waits for one end: the last one's", () => {
  const clock = new FakeClock();
  const ended: ExpiringKey[] = [];
  const expiry = new Expiry<ExpiringKey>(clock, (one) => ended.push(one));
  const limits = roomLimits({ historySize: 1, historySeconds: 1 })("r");
  const state = new RoomState("r", limits, new Budget(1_000_000), expiry);
  const set = (ttlSeconds?: number) =>
    state.put(state.draft({ key: "k", value: "1", sender: "Ann", ttlSeconds }, clock.now()));
  for (let ttlSeconds = 1; ttlSeconds <= 9; ttlSeconds++) set(ttlSeconds);
  const last = set(60);
  clock.tick(60_000);
  assertEquals(ended.map(({ entry }) => entry), [last]);
  set();
  set(60);
  set();
  clock.tick(60_000);
  assertEquals(ended.length, 1);
});
