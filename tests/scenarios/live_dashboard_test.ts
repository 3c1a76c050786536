/**
 * A live dashboard: a thousand sensors put their values over HTTP and through the library, and a
 * viewer shows all of them, at most ten times a second. Who arrives late is current at once.
 */
import { assert, assertEquals } from "@std/assert";
import { connect } from "../../handlers/client/client.js";
import { EventReader } from "../support/event_source.ts";
import { eventually } from "../support/inbox.ts";
import { startServer, type TestServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";

const SENSORS = 1_000;
const ROUNDS = 20;

/** A sensor's new value, as any program that speaks HTTP can say it. */
async function put({ url }: TestServer, sensor: number, value: number): Promise<void> {
  const response = await fetch(`${url}/rooms/plant/state/sensors/${sensor}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ value }),
  });
  assertEquals(response.status, 200);
  await response.body?.cancel();
}

Deno.test("live dashboard: 1,000 sensors, and viewers that are current at once and stay so", async () => {
  await using server = await startServer({ POST_RATE: 0 });
  const plant = server.registry.room("plant");
  const set = (sensor: number, value: number) =>
    plant.change({ key: `sensors/${sensor}`, value: `{"value":${value}}`, sender: "gateway" });
  for (const sensor of range(1, SENSORS)) set(sensor, 0);
  await Promise.all(range(1, 20).map((sensor) => put(server, sensor, 1)));

  // A page on a phone: changes come together, whatever their rate.
  let updates = 0;
  const viewer = connect(`${server.ws}/chat/plant`, {
    state: { every: 100 },
    onState: () => updates++,
  });
  using _ = { [Symbol.dispose]: () => viewer.close() };
  const shown = () => viewer.state() as ReadonlyMap<string, { value: number }>;
  await eventually(() => shown().size, (size) => size === SENSORS);
  assertEquals(shown().get("sensors/1"), { value: 1 });
  assertEquals(shown().get("sensors/21"), { value: 0 });

  // And one with no more than an EventSource.
  await using stream = new EventReader(await fetch(`${server.url}/rooms/plant/events?state=1`));
  assertEquals((await stream.next()).event, "welcome");

  for (const round of range(1, ROUNDS)) {
    for (const sensor of range(1, SENSORS)) set(sensor, round);
    await put(server, 7, round);
  }
  await eventually(
    () => [...shown().values()].every(({ value }) => value === ROUNDS),
    (isCurrent) => isCurrent,
  );
  assertEquals(shown().size, SENSORS);
  assert(updates < SENSORS, `${updates} updates for ${SENSORS * ROUNDS} changes`);
});
