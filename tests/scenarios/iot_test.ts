/**
 * Internet of things: a device keeps its last reading as a key, and that it is online as a key that is
 * bound to it. When it dies that one goes by itself, its last will, and the reading stays. A backend
 * reads all of it at any time, and goes on from where it was.
 */
import { assertEquals } from "@std/assert";
import { connect } from "../../handlers/client/client.js";
import { eventually } from "../support/inbox.ts";
import { startServer } from "../support/servers.ts";
import { range } from "../support/v1.ts";

const DEVICES = 50;

Deno.test("IoT: last values, devices that go, and a backend that asks on from where it was", async () => {
  await using server = await startServer();
  using stack = new DisposableStack();
  const devices = range(1, DEVICES).map((number) => {
    const client = connect(`${server.ws}/chat/greenhouse`, { name: `device ${number}` });
    stack.defer(() => client.close());
    return client;
  });
  for (const celsius of [20, 21]) {
    await Promise.all(devices.flatMap((device, index) => [
      device.set(`devices/${index}/celsius`, celsius),
      device.set(`devices/${index}/online`, true, { bind: true }),
    ]));
  }

  const read = async (since = "") => {
    const response = await fetch(`${server.url}/rooms/greenhouse/state${since}`);
    return await response.json() as {
      epoch: string;
      rev: number;
      since?: number;
      entries: { key: string; value: unknown; sender: string }[];
    };
  };
  const all = await read();
  assertEquals(all.entries.length, 2 * DEVICES);
  assertEquals(all.rev, 4 * DEVICES);
  assertEquals(all.entries[0].value, 21);

  // Half of the devices die: what they were bound to goes, their last values stay.
  for (const device of devices.slice(0, DEVICES / 2)) device.close();
  const since = `?since=${all.epoch}:${all.rev}`;
  const { entries } = await eventually(() => read(since), (page) => {
    return page.entries.length === DEVICES / 2;
  });
  for (const { key, value } of entries) {
    assertEquals([/^devices\/\d+\/online$/.test(key), value], [true, null]);
  }
  assertEquals((await read()).entries.length, 1.5 * DEVICES);
});
