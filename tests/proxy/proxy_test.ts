/**
 * The files of this folder. nginx and Caddy in front of Parley: what the application cannot end, they
 * end, after times that are cut to a second. A container, nodes behind Caddy, and a dashboard.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { parse } from "npm:deno-std@1.4.0/yaml/parse.js";
import { SETTINGS } from "../../handlers/start/settings.ts";
import type { Totals } from "../attack/totals.ts";
import { Client, RawClient } from "../support/clients.ts";
import { eventually, soon } from "../support/inbox.ts";
import { freePort, ROOT, ServerProcess, TestProcess } from "../support/process.ts";
import { hasRedis, RedisServer } from "../support/redis_server.ts";
import { post, startServer } from "../support/servers.ts";
import { together } from "../support/together.ts";
import grafana from "./grafana.json" with { type: "json" };
import { firstProcess, Image, MISSING_CONTAINERS } from "./image.ts";
import * as programs from "./programs.ts";
import { CADDY, CADDY_OF_NODES, NGINX, type Program, startProxy } from "./programs.ts";

const test = together("Parley behind other programs");
const proxyTest = (program: Program, name: string, fn: () => Promise<void>) =>
  programs.proxyTest(program, name, fn, test);

test(
  "the image serves as a user without rights, tells its health, and drains" + MISSING_CONTAINERS,
  async () => {
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
  MISSING_CONTAINERS !== "",
);

const encoder = new TextEncoder();

/** Parley on a Unix socket, and a proxy in front of it. */
class Front implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  #totalsUrl = "";

  private constructor(readonly port: number) {}

  static async start(program: Program, ...flags: string[]): Promise<Front> {
    const front = new Front(freePort());
    const stack = front.#stack;
    try {
      const directory = await Deno.makeTempDir({ prefix: "parley-proxy-" });
      stack.defer(() => Deno.remove(directory, { recursive: true }));
      const socket = ["--socket-path", `${directory}/parley.sock`, "--trust-proxy", "1"];
      const script = "tests/attack/server.ts";
      const parley = stack.use(new TestProcess(["run", "-A", script, ...socket, ...flags]));
      front.#totalsUrl = (await parley.line(/^totals: /)).replace("totals: ", "");
      stack.use(await startProxy(program, { port: front.port, directory }));
    } catch (error) {
      await stack.disposeAsync();
      throw error;
    }
    return front;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get ws(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  dial(): Promise<Deno.TcpConn> {
    return Deno.connect({ hostname: "127.0.0.1", port: this.port });
  }

  /** The totals when they have become so. */
  async until(what: string, isSo: (totals: Totals) => boolean): Promise<Totals> {
    return await eventually<Totals>(async () => (await fetch(this.#totalsUrl)).json(), isSo, what);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

const POST = "POST /rooms/ops/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

/** Reads until the other side ends the connection. */
async function ended(connection: Deno.Conn): Promise<string> {
  let text = "";
  try {
    for await (const chunk of connection.readable) text += new TextDecoder().decode(chunk);
  } catch {
    // Reset is an end, too.
  }
  return text;
}

for (const program of [NGINX, CADDY]) {
  const name = program === NGINX ? "nginx" : "Caddy";

  proxyTest(program, `through ${name} and a Unix socket all goes its way`, async () => {
    await using front = await Front.start(program);
    {
      await using v1 = await Client.open(`${front.ws}/chat/ops`, "parley.v1");
      assertEquals((await v1.nextObject()).type, "welcome");
      const events = await fetch(`${front.url}/rooms/ops/events`);
      const reader = events.body!.pipeThrough(new TextDecoderStream()).getReader();
      assertMatch((await soon(reader.read(), "the welcome event")).value!, /event: ?welcome/);
      const posted = await fetch(`${front.url}/rooms/ops/messages`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"message":"hi","sender":"Ann"}',
      });
      assertEquals([posted.status, (await posted.json()).seq], [202, 1]);
      assertEquals((await v1.nextObject()).message, "hi");
      assertMatch((await soon(reader.read(), "the message's event")).value!, /"message":"hi"/);
      await reader.cancel();
      await using plain = await Client.join(`${front.ws}/chat/ops`, "Bob");
      plain.send("x".repeat(60_000));
      assertEquals((await plain.nextObject()).message, "Invalid JSON format.");
      await using echo = await Client.open(`${front.ws}/echo`);
      echo.send(Uint8Array.of(0, 255));
      assertEquals(await echo.next(), Uint8Array.of(0, 255));
    }
    await front.until("all are gone", ({ held }) => held === 0);
  });

  proxyTest(
    program,
    `${name} counts each client by its own address, whatever it writes`,
    async () => {
      await using front = await Front.start(program, "--max-connections-per-ip", "1");
      using first = await RawClient.open(`${front.ws}/echo`, { "x-forwarded-for": "203.0.113.1" });
      using second = await RawClient.open(`${front.ws}/echo`, { "x-forwarded-for": "203.0.113.2" });
      assertEquals([first.status, second.status], [101, 429]);
      await front.until("it counts under 127.0.0.1", ({ heldHere }) => heldHere === 1);
    },
  );

  proxyTest(
    program,
    `${name} ends a silent connection, headers that never end, and a body that stops`,
    async () => {
      await using front = await Front.start(program);
      using silent = await front.dial();
      using headers = await front.dial();
      using body = await front.dial();
      await headers.write(encoder.encode("GET / HTTP/1.1\r\nhost: x\r\n"));
      const timer = setInterval(() => {
        headers.write(encoder.encode("x-more: x\r\n")).catch(() => {});
      }, 200);
      await body.write(encoder.encode(`${POST}content-length: 100\r\n\r\n{"mess`));
      await soon(Promise.all([silent, headers, body].map(ended)), "the ends of all three");
      clearInterval(timer);
      using big = await front.dial();
      const tooBig = "content-length: 9999999\r\nconnection: close\r\n\r\n{";
      await big.write(encoder.encode(POST + tooBig));
      const refusal = new Uint8Array(1_000);
      await soon(big.read(refusal), "a refusal");
      assertMatch(new TextDecoder().decode(refusal), /^HTTP\/1.1 413 /);
    },
  );

  proxyTest(
    program,
    `through ${name} the page's own origin may connect, and no other`,
    async () => {
      await using front = await Front.start(program);
      const status = async (origin: string) => {
        const { status, body } = await fetch(`${front.url}/rooms`, { headers: { origin } });
        await body?.cancel();
        return status;
      };
      assertEquals(await status(front.url), 200);
      assertEquals(await status(front.url.replace("http:", "https:")), 200);
      for (const origin of ["https://evil.example", "http://127.0.0.1:1", "null"]) {
        assertEquals(await status(origin), 403, origin);
      }
    },
  );

  proxyTest(program, `${name} refuses requests that can be read in two ways`, async () => {
    await using front = await Front.start(program);
    const hidden = "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n";
    for (
      const lengths of [
        "content-length: 2\r\ncontent-length: 200",
        "content-length: +2",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
      ]
    ) {
      using connection = await front.dial();
      await connection.write(encoder.encode(`${POST}${lengths}\r\n\r\n{}${hidden}`));
      const answer = await soon(ended(connection), `the end after ${lengths}`);
      assert(!/ (202|404) /.test(answer), `${lengths}: ${answer}`);
    }
    const { messagesIn } = await front.until("it lives", () => true);
    assertEquals(messagesIn, 0);
  });
}

proxyTest(NGINX, "nginx ends a listener that reads no more, and Parley lets it go", async () => {
  await using front = await Front.start(NGINX, "--post-rate", "0", "--byte-rate", "0");
  using stuck = await RawClient.open(`${front.ws}/chat/hose`);
  assertEquals(stuck.status, 101);
  const body = JSON.stringify({ message: "x".repeat(60_000) });
  let isEvicted = false;
  while (!isEvicted) {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body };
    const posted = await fetch(`${front.url}/rooms/hose/messages`, init);
    await posted.body?.cancel();
    assertEquals(posted.status, 202);
    await front.until("a look", ({ closes }) => {
      isEvicted = closes.tooSlow === 1;
      return true;
    });
  }
  await front.until("the runtime has let it go", ({ held }) => held === 0);
});

proxyTest(
  NGINX,
  "nginx refuses the 101st connection of an address, and a flood of requests",
  async () => {
    await using front = await Front.start(NGINX);
    const clients = await Promise.all(
      Array.from({ length: 110 }, () => RawClient.open(`${front.ws}/echo`)),
    );
    assertEquals(clients.filter(({ status }) => status === 101).length, 100);
    assertEquals(clients.filter(({ status }) => status === 429).length, 10);
    for (const client of clients) client.drop();
    await front.until("they are gone", ({ held }) => held === 0);
    const statuses = await Promise.all(Array.from({ length: 400 }, async () => {
      const { status, body } = await fetch(`${front.url}/healthz`);
      await body?.cancel();
      return status;
    }));
    assert(statuses.includes(200) && statuses.includes(429), `${new Set(statuses)}`);
  },
);

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

Deno.test("each panel of grafana.json asks for metrics and labels that /metrics has", async () => {
  await using server = await startServer();
  // With a remote engine there are its metrics, too.
  const engine = server.registry.engineOf("");
  const stats = engine.stats.bind(engine);
  const remote = { commands: 0, reconnects: 0, roundTrips: 0, roundTripSeconds: 0 };
  engine.stats = () => ({ ...stats(), remote });
  server.registry.counters.refuse("bad_json");
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const names = new Set(text.match(/^(?:parley|process)_\w+/gm));
  const queries = [
    ...grafana.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
    ...grafana.templating.list.map(({ query }) => query).filter((query) => query.includes("(")),
  ];
  const asked = queries.flatMap((query) => query.match(/(?:parley|process)_\w+/g) ?? []);
  assert(asked.length >= grafana.panels.length);
  assertEquals(asked.filter((name) => !names.has(name)), []);
  for (const query of queries) {
    const [, label, name] = /by \((\w+)\) \(?(?:rate\()?(\w+)/.exec(query) ?? [];
    if (!label || label === "instance") continue;
    assert(new RegExp(`^${name}\\{[^}]*\\b${label}=`, "m").test(text), `${name} by ${label}`);
  }
  assertEquals(new Set(grafana.panels.map(({ id }) => id)).size, grafana.panels.length);
});
