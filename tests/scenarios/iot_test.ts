/**
 * Internet of things: a hundred devices post readings over HTTP, again if no answer came. One watcher
 * goes away in the middle, comes back with the place it had seen, and misses nothing.
 */
import { assertEquals } from "@std/assert";
import { Client } from "../support/clients.ts";
import { post, startServer, type TestServer } from "../support/servers.ts";
import { range, take } from "../support/v1.ts";

const DEVICES = 100;
const ROUNDS = 3;

/** Posts a reading under a key of its own: the same again is published once. */
async function read(server: TestServer, device: number, round: number): Promise<void> {
  const reading = { sender: `device ${device}`, message: { celsius: 20 + round } };
  const headers = { "idempotency-key": `device ${device}, reading ${round}` };
  const { status } = await post(server, "/rooms/greenhouse/messages", reading, headers);
  assertEquals(status, 202);
}

Deno.test("IoT: 100 devices post readings, a watcher comes back and misses nothing", async () => {
  // All devices are behind one address: the limit for an address is not for them.
  await using server = await startServer({ POST_RATE: 0, HISTORY_SIZE: 1_000 });
  const url = `${server.ws}/chat/greenhouse`;
  const watcher = await Client.open(url, "parley.v1");
  const { epoch } = await watcher.nextObject();
  const report = (round: number) =>
    Promise.all(range(1, DEVICES).map((device) => read(server, device, round)));

  await report(1);
  const seen = await take(watcher, DEVICES);
  assertEquals(seen.map(({ seq }) => seq), range(1, DEVICES));

  // The watcher is away. Devices go on, and repeat themselves, as after a lost answer.
  await watcher.close();
  await report(2);
  await report(2);
  await using again = await Client.open(`${url}?after=${epoch}:${DEVICES}`, "parley.v1");
  assertEquals((await again.nextObject()).recovered, true);
  const missed = await take(again, DEVICES);
  assertEquals(missed.map(({ seq }) => seq), range(DEVICES + 1, 2 * DEVICES));
  assertEquals(new Set(missed.map(({ sender }) => sender)).size, DEVICES);

  // And all goes on where it was.
  await report(ROUNDS);
  const live = await take(again, DEVICES);
  assertEquals(live.map(({ seq }) => seq), range(2 * DEVICES + 1, ROUNDS * DEVICES));
  assertEquals(live[0].message, { celsius: 20 + ROUNDS });
});
