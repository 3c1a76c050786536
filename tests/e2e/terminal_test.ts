/** `deno task chat`: a room in a terminal. */
import { assertEquals, assertMatch } from "@std/assert";
import { Client } from "../support/clients.ts";
import { soon } from "../support/inbox.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { run, TestProcess } from "../support/process.ts";
import { startServer } from "../support/servers.ts";
import { joinAs, nextOf } from "../support/v1.ts";

/** A terminal with `deno task chat`; nothing in it looks like a terminal. */
function chat(...args: string[]): TestProcess {
  const quoted = args.map((arg) => `'${arg}'`).join(" ");
  return new TestProcess(`deno task -q chat ${quoted}`, { isTyped: true });
}

/** How it ended by itself. */
async function codeOf(process: TestProcess): Promise<number> {
  return (await soon(process.status, "the end of deno task chat")).code;
}

Deno.test("deno task chat talks in a room: history, names, members", async () => {
  await using server = await startServer();
  const url = `${server.ws}/chat/ops`;
  await using bob = await joinAs("Bob", url);
  bob.send({ type: "chat", message: "long ago" });
  bob.send({ type: "chat", message: { any: ["JSON"] } });
  bob.send({ type: "chat", message: "\x1b[2Jtwo\nlines\r" });

  await using ann = chat("--name", "Ann", url);
  await ann.line(/^\* Ann joined the chat\. \(2 here\)$/);
  await ann.line(/^ {6}lines\\xd$/);
  const [connecting, connected, ...history] = ann.lines().filter((line) => !/joined/.test(line));
  assertEquals([connecting, connected], [`* connecting to ${url}`, "* connected"]);
  assertEquals(history.map((line) => line.replace(/^\d\d:\d\d /, "")), [
    "Bob: long ago",
    'Bob: {"any":["JSON"]}',
    "Bob: \\x1b[2Jtwo",
    "      lines\\xd",
  ]);
  await ann.type("Hello Bob");
  while ((await nextOf(bob, "chat")).message !== "Hello Bob");
  await ann.line(/^\d\d:\d\d Ann: Hello Bob$/);
  await ann.type("/members");
  await ann.line(/^\* 2 here: Ann, Bob$/);
  await ann.type("/name Anna");
  await ann.line(/^\* Ann is now Anna\. \(2 here\)$/);
  await bob.close();
  await ann.line(/^\* Bob left the chat\. \(1 here\)$/);
  await ann.type("/quit");
  assertEquals(await codeOf(ann), 0);
});

Deno.test("deno task chat comes back after a server restart, and sends what was typed", async () => {
  let server = await startServer();
  const PORT = Number(new URL(server.url).port);
  await using ann = chat("--name=Ann", `${server.ws}/chat/ops`);
  await ann.line(/Ann joined/);
  await server[Symbol.asyncDispose]();
  await ann.line(/^\* connection lost, trying again; what you write is kept and sent later$/);
  await ann.type("typed meanwhile");
  await ann.line(/^\* waits to be sent: typed meanwhile$/);
  server = await startServer({ PORT });
  await using _server = server;
  await ann.line(/^\d\d:\d\d Ann: typed meanwhile$/);
  await ann.type("/quit");
  assertEquals(await codeOf(ann), 0);
});

Deno.test("deno task chat sends what is piped in, to its last line, and ends", async () => {
  await using server = await startServer({ AUTH_SECRET: SECRET });
  const token = await sign({ sub: "backup", rooms: ["ops"] });
  const options = { protocols: ["parley.v1", `token.${token}`] };
  await using bob = await Client.open(`${server.ws}/chat/ops`, options);
  const args = `--name backup --token ${token} ${server.ws}/chat/ops`;
  await run(`printf "first\\nlast" | deno task -q chat ${args}`);
  assertEquals((await nextOf(bob, "chat")).message, "first");
  assertEquals((await nextOf(bob, "chat")).message, "last");

  await using nobody = chat(`${server.ws}/chat/ops`);
  await nobody.line(/^\* A token is needed\.$/);
  assertEquals(await codeOf(nobody), 1);
});

Deno.test("deno task chat to a dead server says so, and keeps what was typed until there is one", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  const url = `ws://127.0.0.1:${port}/chat/ops`;
  await using ann = chat("--name", "Ann", url);
  await ann.type("hello?");
  await ann.line(/^\* no answer from ws:.*, trying again; what you write is kept/);
  await ann.line(/^\* waits to be sent: hello\?$/);
  {
    await using _server = await startServer({ PORT: port });
    await ann.line(/^\d\d:\d\d Ann: hello\?$/);
  }
  await ann.line(/^\* connection lost/);
  await ann.type("anybody?");
  await ann.type("/quit");
  await ann.line(/^\* not sent: anybody\? \(The client is closed/);
  assertEquals(await codeOf(ann), 1);
});

Deno.test("deno task chat --help tells how, and a slip gets one line", async () => {
  await using help = chat("--help");
  assertEquals(await codeOf(help), 0);
  assertMatch(
    help.lines().join("\n"),
    /deno task chat \[flags\] \[ws:\/\/host\/chat\/room\][^]*--name/,
  );
  const badRoom = "ws://localhost/chat/a b";
  for (const args of [["--nmae", "Ann"], ["--history", "x"], ["ftp://localhost"], [badRoom]]) {
    await using slip = chat(...args);
    assertEquals(await codeOf(slip), 1);
    assertEquals(slip.lines().length, 1, slip.lines().join("\n"));
    assertMatch(slip.lines()[0], /^Cannot.*: --help tells more$/);
  }
});

Deno.test({
  name: "deno task chat shows names in colour where there is a terminal",
  // The flags of `script`, which makes a terminal, are Linux's.
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using server = await startServer();
    await using bob = await joinAs("Bob", `${server.ws}/chat/ops`);
    const command = `env -u NO_COLOR deno task -q chat --name Ann ${server.ws}/chat/ops`;
    await using ann = new TestProcess(`script -qec "${command}" /dev/null`, { isTyped: true });
    await ann.line(/Ann joined/);
    bob.send({ type: "chat", message: "Hi" });
    // deno-lint-ignore no-control-regex -- a colour is a control sequence
    await ann.line(/\d\d:\d\d \x1b\[1;3\dmBob\x1b\[0m: Hi/);
    await ann.type("/quit");
    assertEquals(await codeOf(ann), 0);
  },
});
