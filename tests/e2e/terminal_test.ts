/** `deno task chat`: a room in a terminal. */
import { assertEquals, assertMatch } from "@std/assert";
import { SignJWT } from "jose";
import { Client } from "../support/clients.ts";
import { Journal } from "../support/inbox.ts";
import { ROOT, startServer } from "../support/servers.ts";
import { joinAs, nextOf } from "../support/v1.ts";

/** A terminal with `deno task chat`, line by line. */
class Terminal implements AsyncDisposable {
  readonly #journal = new Journal<string>();
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  /** The exit code, when all lines are read. */
  readonly code: Promise<number>;

  /** @param command what runs it; by default nothing that looks like a terminal */
  constructor(args: string[], command = [Deno.execPath(), "task", "-q", "chat"]) {
    const [program, ...rest] = command;
    this.#child = new Deno.Command(program, {
      args: [...rest, ...args],
      cwd: ROOT,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.code = Promise.all([this.#read("stdout"), this.#read("stderr")]).then(async () => {
      this.#journal.end(new Error(`it has ended; it said: ${this.lines.join(" | ")}`));
      return (await this.#child.status).code;
    });
  }

  /** What it printed so far, on both streams. */
  get lines(): string[] {
    return this.#journal.entries;
  }

  type(line: string): Promise<void> {
    return this.#input.write(new TextEncoder().encode(line + "\n"));
  }

  /** A line that it printed or prints. */
  says(pattern: RegExp): Promise<string> {
    return this.#journal.find((line) => pattern.test(line), `${pattern}`);
  }

  /** Ends its input, as Ctrl-D does. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.code;
  }

  async #read(from: "stdout" | "stderr"): Promise<void> {
    let rest = "";
    for await (const chunk of this.#child[from].pipeThrough(new TextDecoderStream())) {
      const lines = (rest + chunk).split(/\r?\n/);
      rest = lines.pop()!;
      for (const line of lines) this.#journal.add(line);
    }
  }
}

Deno.test("deno task chat talks in a room: history, names, members", async () => {
  await using server = await startServer();
  const url = `${server.ws}/chat/ops`;
  await using bob = await joinAs("Bob", url);
  bob.send({ type: "chat", message: "long ago" });
  bob.send({ type: "chat", message: { any: ["JSON"] } });
  bob.send({ type: "chat", message: "\x1b[2Jtwo\nlines\r" });

  await using ann = new Terminal(["--name", "Ann", url]);
  await ann.says(/^\* Ann joined the chat\. \(2 here\)$/);
  await ann.says(/^ {6}lines\\xd$/);
  const [connecting, connected, ...history] = ann.lines.filter((line) => !/joined/.test(line));
  assertEquals([connecting, connected], [`* connecting to ${url}`, "* connected"]);
  assertEquals(history.map((line) => line.replace(/^\d\d:\d\d /, "")), [
    "Bob: long ago",
    'Bob: {"any":["JSON"]}',
    "Bob: \\x1b[2Jtwo",
    "      lines\\xd",
  ]);
  await ann.type("Hello Bob");
  while ((await nextOf(bob, "chat")).message !== "Hello Bob");
  await ann.says(/^\d\d:\d\d Ann: Hello Bob$/);
  await ann.type("/members");
  await ann.says(/^\* 2 here: Ann, Bob$/);
  await ann.type("/name Anna");
  await ann.says(/^\* Anna joined the chat\. \(2 here\)$/);
  await bob.close();
  await ann.says(/^\* Bob left the chat\. \(1 here\)$/);
  await ann.type("/quit");
  assertEquals(await ann.code, 0);
});

Deno.test("deno task chat comes back after a server restart, and sends what was typed", async () => {
  let server = await startServer();
  const PORT = Number(new URL(server.url).port);
  await using ann = new Terminal(["--name=Ann", `${server.ws}/chat/ops`]);
  await ann.says(/Ann joined/);
  await server[Symbol.asyncDispose]();
  await ann.says(/^\* reconnecting$/);
  await ann.type("typed meanwhile");
  server = await startServer({ PORT });
  await using _server = server;
  await ann.says(/^\d\d:\d\d Ann: typed meanwhile$/);
  await ann.type("/quit");
  assertEquals(await ann.code, 0);
});

Deno.test("deno task chat sends what is piped in, to its last line, and ends", async () => {
  const AUTH_SECRET = "thirty-two characters of a secret";
  await using server = await startServer({ AUTH_SECRET });
  const token = await new SignJWT({ sub: "backup", rooms: ["ops"] })
    .setProtectedHeader({ alg: "HS256" }).sign(new TextEncoder().encode(AUTH_SECRET));
  const options = { protocols: ["parley.v1", `token.${token}`] };
  await using bob = await Client.open(`${server.ws}/chat/ops`, options);
  const { code, stdout } = await new Deno.Command("sh", {
    args: ["-c", 'printf "first\\nlast" | "$0" task -q chat --name backup --token "$1" "$2"']
      .concat(
        Deno.execPath(),
        token,
        `${server.ws}/chat/ops`,
      ),
    cwd: ROOT,
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stdout));
  assertEquals((await nextOf(bob, "chat")).message, "first");
  assertEquals((await nextOf(bob, "chat")).message, "last");

  await using nobody = new Terminal([`${server.ws}/chat/ops`]);
  await nobody.says(/^\* A token is needed\.$/);
  assertEquals(await nobody.code, 1);
});

Deno.test("deno task chat --help tells how, and a slip gets one line", async () => {
  await using help = new Terminal(["--help"]);
  assertEquals(await help.code, 0);
  assertMatch(
    help.lines.join("\n"),
    /deno task chat \[flags\] \[ws:\/\/host\/chat\/room\][^]*--name/,
  );
  const badRoom = "ws://localhost/chat/a b";
  for (const args of [["--nmae", "Ann"], ["--history", "x"], ["ftp://localhost"], [badRoom]]) {
    await using slip = new Terminal(args);
    assertEquals(await slip.code, 1);
    assertEquals(slip.lines.length, 1, slip.lines.join("\n"));
    assertMatch(slip.lines[0], /^Cannot.*: --help tells more$/);
  }
});

Deno.test({
  name: "deno task chat shows names in colour where there is a terminal",
  // The flags of `script`, which makes a terminal, are Linux's.
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using server = await startServer();
    await using bob = await joinAs("Bob", `${server.ws}/chat/ops`);
    const chat = `env -u NO_COLOR ${Deno.execPath()} task -q chat --name Ann ${server.ws}/chat/ops`;
    await using ann = new Terminal(["-qec", chat, "/dev/null"], ["script"]);
    await ann.says(/Ann joined/);
    bob.send({ type: "chat", message: "Hi" });
    // deno-lint-ignore no-control-regex -- a colour is a control sequence
    await ann.says(/\d\d:\d\d \x1b\[1;3\dmBob\x1b\[0m: Hi/);
    await ann.type("/quit");
    assertEquals(await ann.code, 0);
  },
});
