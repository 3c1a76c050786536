/** The least permissions that each way to run needs, in place of `-A`, as the README writes them. */
import { assertEquals, assertMatch } from "@std/assert";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { Client, RawClient } from "../support/clients.ts";
import { RedisServer, redisTest } from "../support/redis_server.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { freePort, ROOT, TestProcess } from "../support/process.ts";
import { together } from "../support/together.ts";

const test = together("permissions in place of -A");

const readme = await Deno.readTextFile(`${ROOT}tests/proxy/README.md`);
const [, COMMAND] = readme.match(/```sh\n(deno run --no-prompt [^]*?)```/)!;
/** The variables that the README allows: with one too few no start works. */
const [ENV] = COMMAND.match(/--allow-env=\S+/)!;
const CERT = `${ROOT}tests/tls/localhost.pem`;
const KEY = `${ROOT}tests/tls/localhost.key`;

/** Runs `main.ts` with these permissions and flags until it listens. */
async function run(permissions: string[], flags: string[]): Promise<TestProcess> {
  const args = ["run", "--no-prompt", ...permissions, "main.ts", ...flags];
  const server = new TestProcess(args);
  await server.line(/ started: /);
  return server;
}

/** Ends it as an operator does: it drains, and nothing failed. */
async function stop(server: TestProcess, errors = 0): Promise<void> {
  server.kill("SIGTERM");
  assertEquals((await server.status).code, 0);
  const lines = server.lines().filter((line) => /NotCapable|ERR|access to/.test(line));
  assertEquals(lines.length, errors, lines.join());
}

test("the README's command: a server needs its port and its variables, and nothing else", async () => {
  const port = freePort();
  const at = `127.0.0.1:${port}`;
  const args = COMMAND.replace("8000", `${port}`).split(/[\s\\]+/).slice(1, -1);
  const flags = ["--port", `${port}`, "--drain-seconds", "0", "--max-rss-mb", "2000"];
  await using server = new TestProcess([...args, ...flags, "--auth-secret", SECRET]);
  await server.line(/ started: /);
  const claims = { sub: "Ann", admin: true, publish: true };
  const token = await sign(claims);
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  for (const path of ["/", "/dashboard", "/readyz", "/metrics", "/rooms", "/rooms/a/messages"]) {
    const { status, body } = await fetch(`http://${at}${path}`, { headers });
    await body?.cancel();
    assertEquals(status, 200, path);
  }
  const init = { method: "POST", headers, body: '{"message":1}' };
  const posted = await fetch(`http://${at}/rooms/a/messages`, init);
  assertEquals([posted.status, (await posted.json()).seq], [202, 1]);
  await using client = await Client.open(`ws://${at}/chat/a?token=${token}`, "parley.v1");
  assertEquals((await client.nextObject()).type, "welcome");
  await client.close();
  await stop(server);
});

test("a Unix socket needs its path for the net, to read and to write", async () => {
  const path = await Deno.makeTempFile({ suffix: ".sock" });
  await Deno.remove(path);
  const files = [`--allow-net=unix:${path}`, `--allow-read=${path}`, `--allow-write=${path}`];
  const flags = ["--socket-path", path, "--drain-seconds", "0"];
  await using server = await run([...files, ENV], flags);
  using client = await RawClient.upgrade(await Deno.connect({ transport: "unix", path }), "/echo");
  await client.send("x");
  assertEquals(await client.readText(), "Echo: x");
  client.drop();
  await stop(server);
});

test("TLS and a file of keys need to read their files", async () => {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  const jwks = await Deno.makeTempFile({ suffix: ".json" });
  await Deno.writeTextFile(jwks, JSON.stringify({ keys: [await exportJWK(publicKey)] }));
  const at = `127.0.0.1:${freePort()}`;
  const files = `--allow-read=${CERT},${KEY},${jwks}`;
  const flags = ["--host", "127.0.0.1", "--port", at.split(":")[1], "--drain-seconds", "0"];
  const keys = ["--tls-cert", CERT, "--tls-key", KEY, "--auth-jwks", jwks];
  await using server = await run([`--allow-net=${at}`, files, ENV], [...flags, ...keys]);
  assertMatch(server.lines()[0], /https:\/\//);
  const token = await new SignJWT({}).setProtectedHeader({ alg: "ES256" }).sign(privateKey);
  using http = Deno.createHttpClient({ caCerts: [await Deno.readTextFile(CERT)] });
  const headers = { authorization: `Bearer ${token}` };
  const url = `https://localhost:${at.split(":")[1]}/rooms`;
  const { status, body } = await fetch(url, { client: http, headers });
  await body?.cancel();
  assertEquals(status, 200);
  await stop(server);
  await Deno.remove(jwks);
});

test("a URL of keys needs its host for the net; without it no token can be checked", async () => {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  const keys = [await exportJWK(publicKey)];
  const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
  await using keyServer = Deno.serve(options, () => Response.json({ keys }));
  const host = `127.0.0.1:${keyServer.addr.port}`;
  const token = await new SignJWT({}).setProtectedHeader({ alg: "ES256" }).sign(privateKey);
  for (const isAllowed of [true, false]) {
    const at = `127.0.0.1:${freePort()}`;
    const flags = ["--host", "127.0.0.1", "--port", at.split(":")[1], "--drain-seconds", "0"];
    const net = `--allow-net=${at}${isAllowed ? `,${host}` : ""}`;
    await using server = await run([net, ENV], [...flags, "--auth-jwks", `http://${host}/keys`]);
    const headers = { authorization: `Bearer ${token}` };
    const { status, body } = await fetch(`http://${at}/rooms`, { headers });
    await body?.cancel();
    assertEquals(status, isAllowed ? 200 : 503);
    if (!isAllowed) await server.line(/Cannot read the keys at .* Requires net access/);
    await stop(server, isAllowed ? 0 : 1);
  }
});

test("a start that lacks a permission ends with one line that names it", async () => {
  const port = freePort();
  const net = `--allow-net=0.0.0.0:${port}`;
  const path = `/tmp/parley-${crypto.randomUUID()}.sock`;
  const at = ["--port", String(port)];
  const starts: [string[], string[]][] = [
    [[], at],
    [["--deny-env"], at],
    [[net], [...at, "--tls-cert", CERT, "--tls-key", KEY]],
    [[net], [...at, "--auth-jwks", CERT]],
    [[`--allow-net=unix:${path}`], ["--socket-path", path]],
  ];
  for (const [permissions, flags] of starts) {
    const args = ["run", "--no-prompt", ...permissions, ENV, "main.ts", ...flags];
    await using server = new TestProcess(args);
    assertEquals((await server.status).code, 1);
    assertEquals(server.lines().length, 1, server.lines().join(" | "));
    assertMatch(
      server.lines()[0],
      /^Cannot (listen on \S+|read \S+|use \S+|start): Requires (net|read|env) access to /,
    );
  }
});

test("WORKERS needs to read the program, as each thread loads it", async () => {
  const at = `127.0.0.1:${freePort()}`;
  const flags = ["--host", "127.0.0.1", "--port", at.split(":")[1], "--drain-seconds", "0"];
  const permissions = [`--allow-net=${at}`, "--allow-read=.", ENV];
  await using server = await run(permissions, [...flags, "--workers", "2"]);
  await using client = await Client.open(`ws://${at}/echo`);
  client.send("x");
  assertEquals(await client.next(), "Echo: x");
  await client.close();
  await stop(server);
});

test("DATA_FILE needs to read the program, and its folder", async () => {
  const folder = await Deno.makeTempDir();
  const at = `127.0.0.1:${freePort()}`;
  const flags = ["--host", "127.0.0.1", "--port", at.split(":")[1], "--drain-seconds", "0"];
  const files = [`--allow-read=.,${folder}`, `--allow-write=${folder}`];
  const permissions = [`--allow-net=${at}`, ...files, ENV];
  await using server = await run(permissions, [...flags, "--data-file", `${folder}/parley.db`]);
  const headers = { "content-type": "application/json" };
  const post = { method: "POST", headers, body: "{}" };
  const { status, body } = await fetch(`http://${at}/rooms/a/messages`, post);
  await body?.cancel();
  assertEquals(status, 202);
  await stop(server);
  await Deno.remove(folder, { recursive: true });
});

redisTest("REDIS_URL needs the way to Redis, and a variable of its client", async () => {
  await using redis = await RedisServer.start();
  const at = `127.0.0.1:${freePort()}`;
  const flags = ["--host", "127.0.0.1", "--port", at.split(":")[1], "--drain-seconds", "0"];
  const net = `--allow-net=${at},127.0.0.1:${redis.port}`;
  const permissions = [net, `${ENV},REDIS_DEBUG_MAINTENANCE`];
  await using server = await run(permissions, [...flags, "--redis-url", redis.url]);
  await using client = await Client.open(`ws://${at}/chat/a`, "parley.v1");
  assertEquals((await client.nextObject()).type, "welcome");
  await client.close();
  await stop(server);
}, test);
