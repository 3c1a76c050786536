/** `deno task chat`: a room in a terminal. */
import { assertEquals, assertMatch } from "@std/assert";
import { printable, printableName } from "../../handlers/client/terminal.ts";
import { Client } from "../support/clients.ts";
import { soon } from "../support/inbox.ts";
import { SECRET, sign } from "../support/jwt.ts";
import { freePort, run, TestProcess } from "../support/process.ts";
import { startServer } from "../support/servers.ts";
import { joinAs, nextOf } from "../support/v1.ts";
import { together } from "../support/together.ts";

const test = together("a room in a terminal");

/** A terminal with `deno task chat`; nothing in it looks like a terminal. */
function chat(...args: string[]): TestProcess {
  const quoted = args.map((arg) => `'${arg}'`).join(" ");
  return new TestProcess(`deno task -q chat ${quoted}`, { isTyped: true });
}

/** The same, but it comes back after the shortest waits that it may choose. */
function hastyChat(...args: string[]): TestProcess {
  const preload = ["--preload", "data:text/javascript,Math.random = () => 0.01"];
  const program = ["run", "-A", ...preload, "handlers/client/terminal.ts", ...args];
  return new TestProcess(program, { isTyped: true });
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

test("deno task chat comes back after a server restart, and sends what was typed", async () => {
  // Nobody else gets the port meanwhile.
  const PORT = freePort();
  let server = await startServer({ PORT });
  await using ann = hastyChat("--name=Ann", `${server.ws}/chat/ops`);
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

test("deno task chat sends what is piped in, to its last line, and ends", async () => {
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

test("deno task chat to a dead server says so, and keeps what was typed until there is one", async () => {
  const port = freePort();
  const url = `ws://127.0.0.1:${port}/chat/ops`;
  await using ann = hastyChat("--name", "Ann", url);
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

test("deno task chat --help tells how, and a slip gets one line", async () => {
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

test(
  "deno task chat shows names in colour where there is a terminal",
  async () => {
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
  // The flags of `script`, which makes a terminal, are Linux's.
  Deno.build.os !== "linux",
);

Deno.test("printable() shows what would move the cursor or turn the text around, and keeps the rest", () => {
  assertEquals(printable("\x1b[2Jtwo\nlines\r"), "\\x1b[2Jtwo\n      lines\\xd");
  assertEquals(printable("abc\u202edef\u2066"), "abc\\x202edef\\x2066");
  assertEquals(printable("a\u2028b\u2029"), "a\\x2028b\\x2029");
  assertEquals(printable({ any: "JSON" }), '{"any":"JSON"}');
  for (const text of ["שלום", "👩‍👧", "می‌خواهم", "방 a  b "]) assertEquals(printable(text), text);
});

Deno.test("printableName() shows what nobody would see: no two names look the same", () => {
  const names = ["Ann", "Ann\u200b", "\u200bAnn", "Ann ", " Ann", "An\u00adn", "Ann\ufeff"];
  names.push(" ", "  ", "\u00a0", "\u3000", "\u200b", "\u2800", "\u3164", "\u115f", "\u{e0041}");
  const shown = names.map(printableName);
  assertEquals(new Set(shown).size, names.length);
  for (const name of shown) assertEquals(/^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/.test(name), true, name);
  for (const name of ["Ann", "Ann Bo", "안나", "😀"]) assertEquals(printableName(name), name);
});
