/** The process as a user starts it: what it prints, how it ends. */
import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { Client, RawClient } from "../support/clients.ts";
import { eventually, soon } from "../support/inbox.ts";
import { ServerProcess, TestProcess } from "../support/process.ts";
import { runTogether, together } from "../support/together.ts";

/** No limit stands between a test and a full queue. */
const UNLIMITED = ["--message-rate", "0", "--byte-rate", "0"];

/** Runs `deno run -A main.ts` with these flags to its end. */
async function run(flags: string[], env: Record<string, string> = {}) {
  await using process = new TestProcess(["run", "-A", "main.ts", ...flags], { env });
  const { code } = await soon(process.status, "the end of the process");
  return { code, stdout: process.lines("stdout"), stderr: process.lines("stderr") };
}

/** Opens a socket that never reads, and sends to its room until `isEnough`. */
async function stickAt(url: string, isEnough: (sent: number) => boolean): Promise<RawClient> {
  const stuck = await RawClient.open(url);
  using sender = await RawClient.open(url);
  await sender.send('{"type":"join","name":"Ann"}');
  await sender.readText();
  const message = JSON.stringify({ type: "chat", message: "x".repeat(60_000) });
  for (let sent = 0; !isEnough(sent); sent++) {
    await sender.send(message);
    await sender.readText();
  }
  return stuck;
}

Deno.test("the start prints one line and no warning, with the URLs to open, and they work", async () => {
  await using server = await ServerProcess.start(["--host", "127.0.0.1"]);
  await server.line(/ started: /);
  assertEquals(server.lines("stdout").length, 1);
  const [line] = server.lines("stdout");
  assertStringIncludes(line, `Parley ${config.version} started: ${server.url}/ `);
  const urls = line.match(/wss?:\S+/g)!;
  assertEquals(urls, [`${server.ws}/echo`, `${server.ws}/chat/lobby`]);
  await using echo = await Client.open(urls[0]);
  echo.send("Hello");
  assertEquals(await echo.next(), "Echo: Hello");
  await using ann = await Client.open(urls[1]);
  ann.send({ type: "join", name: "Ann" });
  assertEquals(await ann.nextObject(), { type: "status", message: "Ann joined the chat." });
  assertEquals(server.lines("stderr"), []);
});

const test = together("deno run -A main.ts, as a user runs it");
const IS_WINDOWS = Deno.build.os === "windows";

// Those that wait longest come first.
for (const flags of [[], ["--workers", "2"]]) {
  const name = ["SIGTERM", ...flags].join(" ");
  test(`${name} drains: everybody is sent away, and the process ends with 0`, async () => {
    const all = ["--drain-seconds", "1", "--max-queue-bytes", "100000000", ...UNLIMITED, ...flags];
    await using server = await ServerProcess.start(all);
    const clients: Client[] = [];
    for (let index = 0; index < 20; index++) {
      clients.push(await Client.open(server.ws + (index % 2 === 0 ? "/echo" : "/chat")));
    }
    using stuck = await stickAt(`${server.ws}/chat/stuck`, (sent) => sent === 200);
    server.kill("SIGTERM");
    await server.line(/Parley stops/);
    // A worker hears of the stop a moment after the line of the log.
    const readiness = async () => {
      const ready = await fetch(`${server.url}/readyz`);
      return [ready.status, await ready.text()];
    };
    assertEquals(await eventually(readiness, ([status]) => status !== 200), [503, "draining\n"]);
    const latecomer = async () => {
      const client = await RawClient.open(`${server.ws}/chat`);
      if (client.status === 101) client.drop();
      return client;
    };
    using refused = await eventually(latecomer, ({ status }) => status !== 101);
    assertEquals(refused.status, 503);
    assertMatch(refused.head, /retry-after: \d/i);
    refused.drop();
    const closed = Promise.all(clients.map(({ closed }) => closed));
    for (const { code, reason } of await soon(closed, "every close")) {
      assertEquals([code, reason], [1001, "going away"]);
    }
    assertEquals((await soon(server.status, "the end of the process")).code, 0);
    assertEquals(server.lines().filter((line) => /\[ERR\]|^ +at /.test(line)), []);
    // It really was stuck: the frames before its Close frame did not all go.
    assertEquals(await stuck.readClose(), undefined);
  }, IS_WINDOWS);
}

test("the page comes with the script and the style that it names", async () => {
  await using server = await ServerProcess.start();
  const page = await fetch(`${server.url}/`);
  assertMatch(page.headers.get("content-type") ?? "", /^text\/html/);
  const html = await page.text();
  const files = [...html.matchAll(/\s(?:src|href)="((?!data:)[^"]*)"/g)].map(([, path]) => path);
  assertGreater(files.length, 1);
  for (const path of files) {
    const file = await fetch(new URL(path, server.url));
    assertEquals(file.status, 200, path);
    assertGreater((await file.text()).length, 0, path);
  }
});

test("--help lists the settings, --version tells the version", async () => {
  const help = await run(["--help"]);
  assertEquals([help.code, help.stderr], [0, []]);
  for (const word of ["--port", "--max-queue-bytes", "--version", "8000"]) {
    assertStringIncludes(help.stdout.join("\n"), word);
  }
  const version = await run(["--version"]);
  assertEquals(version, { code: 0, stdout: [`parley ${config.version}`], stderr: [] });
});

Deno.test("a start that cannot be is one line on stderr and exit code 1", async (t) => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const port = String(taken.addr.port);
  const cases: [string, string[], Record<string, string>, string][] = [
    [
      "a taken port",
      ["--host", "127.0.0.1", "--port", port],
      {},
      `Cannot listen on 127.0.0.1:${port}: the address is in use`,
    ],
    [
      "a HOST that conda has set",
      ["--port", "0"],
      { HOST: "arm64-apple-darwin20.0.0" },
      "Cannot use HOST: arm64-apple-darwin20.0.0 is no address of this machine",
    ],
    [
      "a missing certificate",
      ["--tls-cert", "x.pem", "--tls-key", "y.pem"],
      {},
      "Cannot read TLS_CERT: no file at x.pem",
    ],
    [
      "half of TLS",
      ["--tls-key", "y.pem"],
      {},
      "Cannot use TLS_KEY: TLS_CERT is missing, TLS needs both",
    ],
    [
      "a short secret",
      ["--auth-secret", "s"],
      {},
      "Cannot use AUTH_SECRET: it has 1 bytes, at least 32 are needed",
    ],
    [
      "an origin that no page has",
      ["--allowed-origins", "same,https://a.example/"],
      {},
      'Cannot use ALLOWED_ORIGINS: no browser sends the origin "https://a.example/", write https://a.example',
    ],
    [
      "a bad flag's value",
      ["--port", "80x"],
      {},
      'Cannot use PORT: must be a whole number from 0 to 65535, is "80x"',
    ],
    [
      "a bad variable",
      [],
      { LOG_LEVEL: "loud" },
      'Cannot use LOG_LEVEL: must be one of debug, info, warn, error, is "loud"',
    ],
    [
      "an unknown flag",
      ["--prot", "1"],
      {},
      'Cannot understand "--prot": did you mean --port?',
    ],
  ];
  const steps = cases.map(([name, flags, env, message]) => ({
    name,
    fn: async () => {
      assertEquals(await run(flags, env), { code: 1, stdout: [], stderr: [message] });
    },
  }));
  await runTogether(t, [...steps, {
    name: "a file that is no certificate",
    async fn() {
      const flags = ["--port", "0", "--tls-cert", "deno.json", "--tls-key", "deno.json"];
      const { code, stdout, stderr } = await run(flags);
      assertEquals([code, stdout, stderr.length], [1, [], 1]);
      assertMatch(stderr[0], /^Cannot .*certificate/);
    },
  }]);
});

Deno.test("SIGINT ends it the same way", { ignore: IS_WINDOWS }, async () => {
  await using server = await ServerProcess.start(["--drain-seconds", "0"]);
  const client = await Client.open(`${server.ws}/chat`);
  server.kill("SIGINT");
  assertEquals((await soon(client.closed, "its close")).code, 1001);
  assertEquals((await soon(server.status, "the end of the process")).code, 0);
});

test("a second signal ends the process at once", async () => {
  await using server = await ServerProcess.start(["--drain-seconds", "600"]);
  using _ann = await RawClient.open(`${server.ws}/chat`);
  using _bob = await RawClient.open(`${server.ws}/chat`);
  server.kill("SIGTERM");
  await server.line(/Parley stops/);
  server.kill("SIGTERM");
  const { code } = await soon(server.status, "the end of the process");
  assertEquals(code, 1);
  assert(!server.lines().some((line) => line.includes("Parley stopped")));
}, IS_WINDOWS);

test("the log tells who came, joined, left and why each connection ended", async () => {
  await using server = await ServerProcess.start(["--max-queue-bytes", "100000", ...UNLIMITED]);
  {
    await using _echo = await Client.open(`${server.ws}/echo`);
    await server.line(/Client connected: 127\.0\.0\.1:\d+\. Total clients: 1$/);
  }
  await server.line(/disconnected cleanly: 127\.0\.0\.1:\d+: .*\(1000\)\. Total clients: 0$/);

  using ann = await RawClient.open(`${server.ws}/chat/ops`);
  await ann.send('{"type":"join","name":"Ann"}');
  await server.line(/Client joined: 127\.0\.0\.1:\d+ is "Ann" in ops\. Total clients: \d+$/);
  ann.drop();
  await server.line(/Client left: 127\.0\.0\.1:\d+ was "Ann" in ops\. Total clients: \d+$/);
  await server.line(/closed with error: 127\.0\.0\.1:\d+: .*Total clients: 0$/);

  const isEvicted = () => server.lines().some((line) => line.includes("evicted"));
  using _stuck = await stickAt(
    `${server.ws}/chat/full`,
    (sent) => isEvicted() || sent === 1_000,
  );
  await server.line(/Client evicted: 127\.0\.0\.1:\d+: too slow \(1013\)\. Total clients: 1$/);
  assertEquals(server.lines().filter((line) => line.includes("[ERR]")), []);
});

test("LOG_LEVEL=debug tells of each message, and says nothing of what is in it", async () => {
  await using server = await ServerProcess.start(["--log-level", "debug"]);
  await using echo = await Client.open(`${server.ws}/echo`);
  echo.send("a secret");
  await server.line(/Client sent: 127\.0\.0\.1:\d+: text of 8 bytes$/);
  assert(!server.lines().some((line) => line.includes("secret")));
});

test("a client that vanishes while it is written to is no line of level error", async () => {
  await using server = await ServerProcess.start(UNLIMITED);
  using ann = await RawClient.open(`${server.ws}/chat`);
  await ann.send('{"type":"join","name":"Ann"}');
  await ann.readText();
  for (let round = 0; round < 10; round++) {
    const bob = await RawClient.open(`${server.ws}/chat`);
    const message = JSON.stringify({ type: "chat", message: "x".repeat(50_000) });
    for (let index = 0; index < 20; index++) await ann.send(message);
    bob.drop();
    for (let index = 0; index < 20; index++) await ann.readText();
  }
  ann.drop();
  await server.line(/Total clients: 0$/);
  assertEquals(server.lines().filter((line) => /\[(ERR|FTL)\]|Uncaught/.test(line)), []);
});

Deno.test("LOG_FORMAT=json logs an object a line, with the event and its fields", async () => {
  await using server = await ServerProcess.start([], { env: { LOG_FORMAT: "json" } });
  const ann = await Client.join(`${server.ws}/chat/ops`, 'Ann "{0}" 안');
  await ann.close();
  await server.line(/disconnected/);
  const [start, connected, joined, left, disconnected, ...more] = server.lines("stdout")
    .map((line) => JSON.parse(line));
  assertEquals(more, []);
  const remote = connected.remote;
  assertMatch(remote, /^127\.0\.0\.1:\d+$/);
  const has = (entry: Record<string, unknown>, fields: Record<string, unknown>) => {
    assertEquals(entry.level, "INFO");
    for (const [name, value] of Object.entries(fields)) assertEquals(entry[name], value, name);
  };
  has(start, { event: "start", address: server.url });
  has(connected, { event: "connected", remote, clients: 1, kind: "plain" });
  has(joined, { event: "joined", remote, name: 'Ann "{0}" 안', room: "ops" });
  has(left, { event: "left", remote, name: 'Ann "{0}" 안', room: "ops" });
  has(disconnected, { event: "disconnected", remote, by: "peer", code: 1000, clients: 0 });
});

test(
  "SOCKET_PATH takes no file's place",
  async () => {
    const path = await Deno.makeTempFile();
    await Deno.writeTextFile(path, "kept");
    const { code, stderr } = await run(["--socket-path", path]);
    assertEquals([code, stderr], [1, [`Cannot listen on ${path}: a file is there, not a socket`]]);
    assertEquals(await Deno.readTextFile(path), "kept");
    await Deno.remove(path);
  },
  IS_WINDOWS,
);

test("a socket file that a killed server left does not hinder the next start", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/parley.sock`;
  const start = () => new TestProcess(["run", "-A", "main.ts", "--socket-path", path]);
  {
    await using killed = start();
    await killed.line(/ started: /);
  }
  assert((await Deno.lstat(path)).isSocket);
  await using server = start();
  await server.line(/ started: /);
  const second = await run(["--socket-path", path]);
  assertEquals(second.stderr, [`Cannot listen on ${path}: the address is in use`]);
  using ann = await RawClient.upgrade(await Deno.connect({ transport: "unix", path }), "/chat");
  assertEquals(ann.status, 101);
  await Deno.remove(folder, { recursive: true });
}, IS_WINDOWS);

test("deno serve main.ts ends with one clear line before it listens, its port taken or not", async () => {
  using taken = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  for (const PORT of ["0", String(taken.addr.port)]) {
    const args = ["serve", "-A", "--host", "127.0.0.1", "--port", PORT, "main.ts"];
    await using process = new TestProcess(args, { env: { PORT, HOST: "127.0.0.1" } });
    assertEquals((await process.status).code, 1);
    assertEquals(process.lines("stdout"), []);
    assertEquals(process.lines("stderr"), [
      "Cannot run under deno serve: start Parley with deno run -A main.ts, " +
      "or serve a file of your own with export default createParley()",
    ]);
  }
});
