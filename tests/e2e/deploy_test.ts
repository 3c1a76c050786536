/**
 * The server and its library where people put them: in one file, beside a backend in Python, with few file descriptors, traced, and in an environment full of other settings.
 */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { SETTINGS } from "../../handlers/start/settings.ts";
import { Client } from "../support/clients.ts";
import { eventually, Inbox, soon } from "../support/inbox.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { freePort, ROOT, run, ServerProcess, TestProcess } from "../support/process.ts";
import { hasRedis } from "../support/redis_server.ts";
import { post } from "../support/servers.ts";
import { together } from "../support/together.ts";
import { hear, joinAs, nextOf } from "../support/v1.ts";

const test = together("the server and its library where people put them");

test("deno task bundle makes one file that serves echo, chat and page from an empty folder", async () => {
  const folder = await Deno.makeTempDir();
  const source = `${folder}/source`;
  const empty = `${folder}/empty`;
  await run(`mkdir ${source} ${empty}; cp -r deno.json deno.lock main.ts handlers ${source}`);
  // The first use fetches the bundler from npm.
  await run("deno task bundle", { cwd: source });
  await Deno.rename(`${source}/parley.js`, `${empty}/parley.js`);
  await Deno.remove(source, { recursive: true });
  // Nothing is cached and no registry answers: what it needs is in the file.
  const flags = ["--data-file", `${folder}/data.db`];
  const env = { DENO_DIR: `${folder}/cache`, NPM_CONFIG_REGISTRY: "http://127.0.0.1:1/" };
  {
    await using server = await ServerProcess.start(flags, { script: "parley.js", cwd: empty, env });
    await using echo = await Client.open(`${server.ws}/echo`);
    echo.send("Hello");
    assertEquals(await echo.next(), "Echo: Hello");

    await using ann = await Client.join(`${server.ws}/chat/ops`, "Ann");
    await using bob = await Client.join(`${server.ws}/chat/ops`, "Bob");
    bob.send({ type: "chat", message: "Hello, Ann" });
    assertEquals((await ann.nextObject()).message, "Bob joined the chat.");
    assertEquals((await ann.nextObject()).message, "Hello, Ann");

    const page = await (await fetch(`${server.url}/`)).text();
    assertMatch(page, /<title>/);
    const files = [...page.matchAll(/\s(?:src|href)="((?!data:)[^"]*)"/g)].map(([, path]) => path);
    assertGreater(files.length, 1);
    for (const path of files) {
      const file = await fetch(new URL(path, server.url));
      assertEquals(file.status, 200, path);
      assertGreater((await file.text()).length, 0, path);
    }
    assertEquals(server.lines("stderr").filter((line) => /error/i.test(line)), []);
  }
  {
    // Its workers are started from the same file.
    const permissions = ["-A", "--unstable-net"];
    await using server = await ServerProcess.start([...flags, "--workers", "3"], {
      script: "parley.js",
      permissions,
      cwd: empty,
      env,
    });
    await eventually(
      async () => await (await fetch(`${server.url}/metrics`)).text(),
      (metrics) => /^parley_workers 3$/m.test(metrics),
    );
    await using ann = await Client.join(`${server.ws}/chat/ops`, "Ann");
    ann.send({ type: "chat", message: "Hello" });
    assertEquals((await ann.nextObject()).message, "Hello");
  }
  await Deno.remove(folder, { recursive: true });
});

// What the person who runs the tests has in the environment changes nothing.

/** Files with the ways in which tests start a server or a client, and one test of each way. */
const CORE = [
  "tests/attack/tricks_test.ts",
  "tests/e2e/main_test.ts",
  "tests/e2e/deploy_test.ts",
  "tests/e2e/terminal_test.ts",
  "tests/e2e/systems_test.ts",
  "tests/wire/v1_test.ts",
];
const NAMES = [
  "keys of a prototype",
  "the start prints one line",
  "a start that cannot be",
  "SIGINT ends it",
  "LOG_FORMAT=json",
  "with OTEL_DENO=true",
  "deno task chat talks",
  "two nodes with Redis",
  "plain and v1 clients share",
];

test("the core of the tests passes with each variable set to what would break it", async () => {
  const env = {
    // No server starts with one of these: none of them has its kind.
    ...Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, "broken\n"])),
    NO_COLOR: "",
    FORCE_COLOR: "1",
    OTEL_DENO: "true",
    OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1",
    DENO_LOG: "error",
    LANG: "tr_TR.UTF-8",
    TZ: "Pacific/Chatham",
  };
  const printed = await run(
    ["test", "-A", "--no-check", `--filter=/^(${NAMES.join("|")})/`, ...CORE],
    { env },
  );
  // A test that was renamed would be left out in silence.
  assertMatch(printed, RegExp(`\\b${NAMES.length - Number(!hasRedis)} passed`));
});

test("what would be published is the program, its documents and no test, key or dotfile", async () => {
  const printed = await run(["publish", "--dry-run", "--allow-dirty", "--no-check"]);
  const files = [...printed.matchAll(/file:\/\/(\S+) \(/g)].map(([, path]) =>
    path.slice(ROOT.length)
  );
  const exported = Object.values(config.exports).map((path) => path.slice(2));
  for (const path of [...exported, "main.ts", "handlers/std.d.ts", "LICENSE"]) {
    assert(files.includes(path), `${path} is not among ${files.length} files`);
  }
  assertEquals(files.filter((path) => /_test\.|\.(pem|key|env|db)$|(^|\/)\./.test(path)), []);
  const isDocument =
    /^tests\/([a-z]+\/README\.md|proxy\/grafana\.json|bench\/growth\.svg|screenshots\/[a-z]+\.png)$/;
  assertEquals(files.filter((path) => /^tests/.test(path) && !isDocument.test(path)), []);
});

test("a program of this repository's own serves by the name of the package, and takes a list without spaces", async () => {
  await using program = new TestProcess(["run", "-A", "tests/e2e/linked_program.ts"]);
  await program.line(/^opened$/);
});

const PYTHON = await new Deno.Command("python3", { args: ["--version"], stdout: "null" })
  .output().then(({ success }) => success, () => false);
const CURE = PYTHON ? "" : " (needs python3: apt-get install python3)";

test(
  "a backend in Python answers signed hooks, bans a user and follows _events over restarts of both" +
    CURE,
  async () => {
    const folder = await Deno.makeTempDir();
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => Deno.remove(folder, { recursive: true }));
    const TOKEN = await sign({ sub: "backend", admin: true, publish: true });
    const port = freePort();
    const PARLEY = `http://127.0.0.1:${port}`;
    const env = { TOKEN, PARLEY, HOOK_SECRET: "s3cret" };
    const backend = cleanup.use(
      new TestProcess("exec python3 tests/examples/hook_backend.py 0", { env }),
    );
    const [, HOOK_URL] = /at (\S+)/.exec(await backend.line(/asked at/))!;
    const start = () =>
      ServerProcess.start(["--host", "127.0.0.1", "--port", `${port}`, "--drain-seconds", "0"], {
        env: {
          HOOK_URL,
          HOOK_SECRET: "s3cret",
          HOOK_MS: "10000",
          EVENTS: "join,leave,occupied,vacated",
          AUTH_SECRET: SECRET,
          DATA_FILE: `${folder}/rooms.db`,
        },
      });
    const follow = () =>
      new TestProcess(
        `exec python3 tests/examples/events_follower.py ${PARLEY} ${folder}/position.json`,
        { env },
      );
    const first = cleanup.use(await start());
    // One that nobody else can ask.
    const forged = await fetch(HOOK_URL, { method: "POST", body: "{}" });
    assertEquals([forged.status, await forged.text()], [401, "{}"]);

    let follower = cleanup.use(follow());
    const watch = await hear(`${first.ws}/chat/_events?token=${TOKEN}`);
    cleanup.use(watch.client);
    const token = await sign({ sub: "ann", name: "Ann", publish: true });
    // The follower hears from its connection on.
    await first.line(/Client connected.*clients: 2/);
    const ann = cleanup.use(await joinAs("Ann", `${first.ws}/chat/ops?token=${token}`));
    ann.send({ type: "chat", message: "damn" });
    assertEquals((await nextOf(ann, "chat")).message, "d***");
    assertMatch(
      await follower.line(/"event": "join"/),
      /"name": "Ann", "user": "ann", "members": 1/,
    );

    // Who goes too far is banned, until long after the restart.
    const spammer = `token=${await sign({ sub: "a/b c", name: "Spam" })}`;
    const spam = cleanup.use(await joinAs("Spam", `${first.ws}/chat/ads?${spammer}`));
    spam.send({ type: "chat", message: "casino" });
    const { code, reason } = await spam.closed;
    assertEquals([code, reason], [1008, "not allowed"]);
    await follower.line(/"event": "vacated", "room": "ads"/);
    const statusOfSpammer = async () => {
      const answer = await fetch(`${PARLEY}/rooms?${spammer}`);
      await answer.body?.cancel();
      return answer.status;
    };
    assertEquals(await statusOfSpammer(), 403);

    // While the follower is away.
    await follower[Symbol.asyncDispose]();
    ann.send({ type: "leave" });
    await nextOf(watch.client, "chat");
    const root = await sign({ sub: "root", name: "root" });
    const { client: nobody } = await hear(`${first.ws}/chat/ops?token=${root}`);
    cleanup.use(nobody);
    nobody.send({ type: "join", name: "root" });
    assertEquals((await nextOf(nobody, "error")).message, "Not this name.");
    const bearer = { authorization: `Bearer ${token}` };
    const { status } = await post({ url: PARLEY }, "/rooms/ops/messages", { message: 1 }, bearer);
    assertEquals(status, 202);
    follower = cleanup.use(follow());
    await follower.line(/"event": "vacated"/);
    // What was said before may come again, if it ended before it had written down that it heard it.
    const ofAnn = follower.lines("stdout").map(eventOf);
    assertEquals(ofAnn.slice(-2), ["leave ops Ann", "vacated ops"]);

    // The server is killed with Bo in a room, and started again.
    const bo = await sign({ sub: "bo", name: "Bo" });
    cleanup.use(await joinAs("Bo", `${first.ws}/chat/ops?token=${bo}`));
    await follower.line(/"name": "Bo"/);
    first.kill("SIGKILL");
    await first.status;
    cleanup.use(await start());
    await follower.line(/"event": "vacated"/, 2);
    assertEquals(follower.lines("stdout").slice(ofAnn.length).map(eventOf), [
      "occupied ops",
      "join ops Bo",
      "leave ops Bo",
      "vacated ops",
    ]);
    assertEquals(await statusOfSpammer(), 403);
  },
  !PYTHON,
);

function eventOf(line: string): string {
  const { event, room, name } = JSON.parse(line);
  return [event, room, name].filter(Boolean).join(" ");
}

test("a server without file descriptors keeps its sockets and listens again", async () => {
  const command = "ulimit -n 100; exec deno run -A main.ts --host 127.0.0.1 --port 0";
  await using server = new TestProcess(command);
  const [url] = /http:\/\/[^\s/]+/.exec(await server.line(/ started: /))!;
  await using echo = await Client.open(`${url.replace("http", "ws")}/echo`);
  const port = Number(new URL(url).port);
  const silent: Deno.TcpConn[] = [];
  const deaf = server.line(/Cannot accept connections: .*Too many open files/);
  try {
    for (let i = 0; i < 200; i++) {
      silent.push(await Deno.connect({ hostname: "127.0.0.1", port }));
    }
  } catch {
    // The server refuses, or resets what it had not accepted.
  }
  await deaf;
  for (const connection of silent) connection.close();
  await server.line(/Accepting connections again/);
  echo.send("still here");
  assertEquals(await echo.next(), "Echo: still here");
  const ready = await fetch(`${url}/readyz`);
  assertEquals([ready.status, await ready.text()], [503, "not accepting connections\n"]);
  assertEquals(await (await fetch(`${url}/healthz`)).text(), "ok\n");
  server.kill("SIGTERM");
  assertEquals((await soon(server.status, "the end of the process")).code, 0);
  assert(!server.lines().some((line) => /Uncaught/.test(line)));
}, Deno.build.os === "windows");

Deno.test("with OTEL_DENO=true the server answers as ever, and its requests are traced", async () => {
  const exported = new Inbox<{ path: string; body: string }>("an export");
  const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
  await using collector = Deno.serve(options, async (request) => {
    exported.push({ path: new URL(request.url).pathname, body: await request.text() });
    return new Response();
  });
  await using server = await ServerProcess.start([], {
    env: {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.addr.port}`,
      OTEL_BSP_SCHEDULE_DELAY: "50",
    },
  });
  const response = await fetch(`${server.url}/healthz`);
  assertEquals([response.status, await response.text()], [200, "ok\n"]);
  const socket = new WebSocket(`${server.ws}/echo`);
  const answer = Promise.withResolvers<unknown>();
  socket.onopen = () => socket.send("x");
  socket.onmessage = ({ data }) => answer.resolve(data);
  assertEquals(await answer.promise, "Echo: x");
  const closed = new Promise((resolve) => socket.onclose = resolve);
  socket.close();
  await closed;
  for (;;) {
    const { path, body } = await exported.next();
    if (path === "/v1/traces" && body.includes("/healthz")) break;
    assert(path.startsWith("/v1/"), path);
  }
});
