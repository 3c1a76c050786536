/** The Dockerfile's image: what runs in it, as whom, and how it ends. */
import { assertEquals, assertMatch } from "@std/assert";
import { Client } from "../support/clients.ts";
import { eventually, soon } from "../support/inbox.ts";
import { freePort } from "../support/process.ts";
import { post } from "../support/servers.ts";
import { firstProcess, Image, MISSING_CONTAINERS } from "./image.ts";

Deno.test({
  name: "the image serves as a user without rights, tells its health, and drains" +
    MISSING_CONTAINERS,
  ignore: MISSING_CONTAINERS !== "",
  async fn() {
    await using image = await Image.build("handlers/start/Dockerfile");
    const port = `${freePort()}`;
    const url = `http://127.0.0.1:${port}`;
    const env = { PORT: port, MAX_CONNECTIONS: "1", DRAIN_SECONDS: "0" };
    assertEquals(await image.check(env), 1, "before it is started");
    {
      await using server = image.start(env, "--workers", "2", "--data-file", "/data/parley.db");
      await server.line(/ started: /);
      const pid = await firstProcess(server);
      const status = await Deno.readTextFile(`/proc/${pid}/status`);
      assertMatch(status, /^Uid:\s+65532\s+65532/m);
      assertMatch(status, /^Gid:\s+65532\s+65532/m);
      assertMatch(status, /^NSpid:.*\t1$/m);
      assertEquals(await image.check(env), 0);

      const client = await Client.open(`ws://127.0.0.1:${port}/chat/ops`, "parley.v1");
      assertEquals((await client.nextObject()).type, "welcome");
      assertEquals((await post({ url }, "/rooms/ops/messages", { message: "kept" })).status, 202);
      assertEquals((await client.nextObject()).message, "kept");
      // A thread hears from the others within a second that the server is full.
      await eventually(() => image.check(env), (code) => code === 1, "unhealthy when full");

      Deno.kill(pid, "SIGTERM");
      assertEquals((await soon(client.closed, "the drain")).code, 1001);
      assertEquals((await server.status).code, 0);
      assertEquals(server.lines().filter((line) => /ERR|denied|access/.test(line)), []);
    }
    await using server = image.start(env, "--data-file", "/data/parley.db");
    await server.line(/ started: /);
    const { messages } = await (await fetch(`${url}/rooms/ops/messages`)).json();
    assertEquals(messages.map(({ message }: { message: string }) => message), ["kept"]);
  },
});
