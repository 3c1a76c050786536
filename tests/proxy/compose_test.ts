/** The compose file fits its parts, and two nodes behind Caddy share their rooms. */
import { assert, assertEquals } from "@std/assert";
import { parse } from "npm:deno-std@1.4.0/yaml/parse.js";
import { SETTINGS } from "../../handlers/start/settings.ts";
import { Client } from "../support/clients.ts";
import { eventually, soon } from "../support/inbox.ts";
import { freePort, ROOT, ServerProcess } from "../support/process.ts";
import { hasRedis, RedisServer } from "../support/redis_server.ts";
import { post } from "../support/servers.ts";
import { CADDY_OF_NODES, proxyTest, startProxy } from "./programs.ts";

/** What is read of a compose file's service. */
interface Service {
  image: string;
  build?: { context: string; dockerfile: string };
  environment?: Record<string, string>;
  depends_on?: string[] | Record<string, unknown>;
  volumes?: string[];
  command?: string;
}

Deno.test("compose.yaml names settings, files and services that are there", async () => {
  const folder = `${ROOT}tests/proxy/`;
  const text = await Deno.readTextFile(`${folder}compose.yaml`);
  const { services } = parse(text) as { services: Record<string, Service> };
  const nodes = Object.entries(services).filter(([, { image }]) => image === "parley");
  const caddyfile = await Deno.readTextFile(`${folder}nodes.Caddyfile`);
  assert(caddyfile.includes(` ${nodes.map(([name]) => `${name}:8000`).join(" ")} `));
  for (const [, { build, environment }] of nodes) {
    await Deno.stat(`${folder}${build!.context}/${build!.dockerfile}`);
    for (const name of Object.keys(environment!)) assert(Object.hasOwn(SETTINGS, name), name);
    assertEquals(environment!.REDIS_URL, "redis://redis:6379");
  }
  for (const { depends_on = [], volumes = [] } of Object.values(services)) {
    const needed = Array.isArray(depends_on) ? depends_on : Object.keys(depends_on);
    for (const name of needed) assert(Object.hasOwn(services, name), name);
    for (const volume of volumes.filter((volume) => volume.startsWith("."))) {
      await Deno.stat(folder + volume.split(":")[0]);
    }
  }
});

proxyTest(
  CADDY_OF_NODES,
  "two nodes behind Caddy have one room, and one goes on when the other drains",
  async () => {
    assert(hasRedis, "needs redis-server: apt-get install redis-server");
    await using redis = await RedisServer.start();
    const flags = ["--redis-url", redis.url, "--trust-proxy", "1", "--drain-seconds", "0"];
    await using nodes = new AsyncDisposableStack();
    const [first, second] = await Promise.all(
      [1, 2].map(async () => nodes.use(await ServerProcess.start(flags))),
    );
    const directory = await Deno.makeTempDir({ prefix: "parley-proxy-" });
    nodes.defer(() => Deno.remove(directory, { recursive: true }));
    const port = freePort();
    const places = [first, second].map((node) => `127.0.0.1:${node.port}`);
    await using _proxy = await startProxy(CADDY_OF_NODES, { port, directory, nodes: places });
    const url = `http://127.0.0.1:${port}`;
    const ready = async () => (await fetch(`${url}/readyz`)).text();
    await eventually(ready, (text) => text === "ready\n", "a node that Caddy has found");

    const clients: Client[] = [];
    const isHeldBy = (node: ServerProcess) =>
      node.lines().some((line) => line.includes("connected"));
    // Caddy takes turns once it has found both.
    await eventually(
      async () => {
        const client = nodes.use(await Client.open(`ws://127.0.0.1:${port}/chat/ops`, "parley.v1"));
        assertEquals((await client.nextObject()).type, "welcome");
        clients.push(client);
      },
      () => isHeldBy(first) && isHeldBy(second),
      "clients on both nodes",
    );
    assertEquals((await post({ url }, "/rooms/ops/messages", { message: "Hello" })).status, 202);
    for (const client of clients) assertEquals((await client.nextObject()).message, "Hello");

    first.kill("SIGTERM");
    const ends = clients.map((client) => client.closed);
    assertEquals((await soon(Promise.race(ends), "the drain")).code, 1001);
    await first.status;
    // Caddy looks at each node's health once an interval.
    const ask = () => fetch(`${url}/readyz`).then((answer) => answer.text());
    await eventually(
      () => Promise.all([ask(), ask()]),
      (texts) => texts.every((text) => text === "ready\n"),
    );
    for (let turn = 0; turn < 4; turn++) {
      const { status } = await post({ url }, "/rooms/ops/messages", { message: turn });
      assertEquals(status, 202);
    }
  },
);
