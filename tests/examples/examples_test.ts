// The whole server is one function of a request: the examples put a program beside and around it.
import { assertEquals, assertMatch } from "@std/assert";
import type { Fetch } from "../../handlers/router.ts";
import { Client } from "../support/clients.ts";
import { withTiming } from "./middleware.ts";
import { createParley } from "../../handlers/parley.ts";
import { ordersBeside } from "./rest_beside.ts";
import { RecordingLog } from "../support/fakes.ts";

/** Serves what `wrap` makes of a Parley, on a free port. */
function serve(wrap: (parley: Fetch) => Fetch) {
  const log = new RecordingLog();
  const parley = createParley({ log });
  const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
  const server = Deno.serve(options, wrap(parley.fetch));
  return {
    log,
    origin: `127.0.0.1:${server.addr.port}`,
    async [Symbol.asyncDispose]() {
      await parley[Symbol.asyncDispose]();
      await server.shutdown();
    },
  };
}

Deno.test("a REST app stands beside the sockets on one port, and talks to their rooms", async () => {
  await using server = serve(ordersBeside);
  const url = `http://${server.origin}`;
  await using client = await Client.open(`ws://${server.origin}/chat/orders`);
  const created = await fetch(`${url}/orders`, { method: "POST", body: '{"item":"tea"}' });
  const order = { id: 1, item: "tea" };
  assertEquals([created.status, await created.json()], [201, order]);
  assertEquals(await client.nextObject(), { type: "chat", sender: "shop", message: order });
  assertEquals(await (await fetch(`${url}/orders`)).json(), [order]);
  for (const body of ["x", "null", "[]", "{}", '{"item":1}']) {
    const refused = await fetch(`${url}/orders`, { method: "POST", body });
    assertEquals([refused.status, (await refused.json()).message], [
      400,
      'An order is {"item":"…"}.',
    ]);
  }
  const rooms = await (await fetch(`${url}/rooms`)).json();
  assertEquals(rooms, { rooms: [{ room: "orders", members: 0, listeners: 1, seq: 1 }] });
  assertEquals(await (await fetch(`${url}/healthz`)).text(), "ok\n");
  const nowhere = await fetch(`${url}/nowhere`);
  assertEquals([nowhere.status, await nowhere.text()], [404, "Not Found"]);
});

Deno.test("a middleware wraps every answer, and sockets open through it", async () => {
  await using server = serve(withTiming);
  for (const path of ["/healthz", "/nowhere", "/chat"]) {
    const response = await fetch(`http://${server.origin}${path}`);
    await response.body?.cancel();
    assertMatch(response.headers.get("server-timing") ?? "", /^parley;dur=\d+\.\d$/);
  }
  await using echo = await Client.open(`ws://${server.origin}/echo`);
  echo.send("hello");
  assertEquals(await echo.next(), "Echo: hello");
  await using ann = await Client.open(`ws://${server.origin}/chat/ops`, "parley.v1");
  assertEquals(ann.socket.protocol, "parley.v1");
  assertEquals((await ann.nextObject()).type, "welcome");
  assertMatch(String(server.log.of("connected")[0].fields.remote), /^127\.0\.0\.1:\d+$/);
});
