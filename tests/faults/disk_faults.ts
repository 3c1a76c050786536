/** A server whose disk is full or broken for a while, or that may not write its DATA_FILE. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { eventually } from "../support/recorder.ts";
import { freePort, TestProcess } from "../support/process.ts";
import { addFault } from "./add_fault.ts";

interface Place {
  epoch: string;
  seq: number;
}

/** A server that a shell starts with its DATA_FILE in a folder. */
class ShellServer implements AsyncDisposable {
  readonly #url: string;
  readonly process: TestProcess;

  /** @param line what the shell does; `{start}` becomes the server, in the shell's place */
  constructor(readonly folder: string, line: string) {
    const port = freePort();
    this.#url = `http://127.0.0.1:${port}`;
    const flags = `--host 127.0.0.1 --port ${port} --post-rate 0 --drain-seconds 0`;
    const start = `exec deno run -A main.ts ${flags} --data-file ${folder}/parley.db`;
    this.process = new TestProcess(line.replace("{start}", start));
  }

  /** Posts a message of 10 kB; its place, or nothing where the server is `unavailable`. */
  async post(key: string): Promise<Place | undefined> {
    const response = await fetch(`${this.#url}/rooms/r/messages`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": key },
      body: JSON.stringify({ message: key.padEnd(10_000, ".") }),
    });
    const { code, epoch, seq } = await response.json();
    assert(response.status === 202 || response.status === 503 && code === "unavailable", code);
    return response.status === 202 ? { epoch, seq } : undefined;
  }

  /** The status of `GET /rooms`. */
  async listStatus(): Promise<number> {
    const response = await fetch(`${this.#url}/rooms`);
    await response.body?.cancel();
    return response.status;
  }

  async readiness(): Promise<string> {
    const response = await fetch(`${this.#url}/readyz`);
    return `${response.status} ${(await response.text()).trim()}`;
  }

  /** The keys of the messages that are kept, in order. */
  async keys(): Promise<string[]> {
    const response = await fetch(`${this.#url}/rooms/r/messages?limit=1000`);
    const { messages } = await response.json();
    return messages.map(({ message }: { message: string }) => message.replace(/\.+$/, ""));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process[Symbol.asyncDispose]();
  }
}

/** Makes the disk fail by posting, mends it, and checks that what was acked is there, over a restart too. */
async function surviveFailure(
  folder: string,
  line: string,
  reason: RegExp,
  mend: (server: ShellServer) => Promise<void>,
): Promise<void> {
  const acked: string[] = [];
  {
    await using server = new ShellServer(folder, line);
    await server.process.line(/ started: /);
    let refused = "";
    for (let i = 0; !refused; i++) {
      if (await server.post(`${i}`)) acked.push(`${i}`);
      else refused = `${i}`;
    }
    assert(acked.length > 0);
    assertEquals(await server.readiness(), "503 engine unreachable");
    assertMatch(await server.process.line(/Cannot store: /), reason);
    assertEquals(await server.post("while it fails"), undefined);
    assertEquals(await server.listStatus(), 503);
    await mend(server);
    await eventually(() => server.readiness(), (answer) => answer === "200 ready");
    await server.process.line(/The store works again/);
    // It was on its way when the disk failed: the repeat finds it.
    assertEquals((await server.post(refused))?.seq, acked.length + 1);
    assertEquals((await server.post("after"))?.seq, acked.length + 2);
    acked.push(refused, "after");
    assertEquals(await server.keys(), acked.slice(-100));
    server.process.kill("SIGKILL");
    await server.process.status;
  }
}

addFault("a disk that is full refuses messages until there is space, and loses none", async () => {
  const folder = await Deno.makeTempDir();
  const mount = `mount -t tmpfs -o size=1m tmpfs ${folder}`;
  const line =
    `exec unshare -rm sh -c '${mount} && head -c 400000 /dev/zero > ${folder}/ballast && {start}'`;
  await surviveFailure(folder, line, /full/, ({ process }) =>
    // The disk is the server's alone.
    Deno.remove(`/proc/${process.pid}/root${folder}/ballast`));
  await Deno.remove(folder, { recursive: true });
});

addFault("a write that fails refuses messages until writes succeed, and loses none", async () => {
  const folder = await Deno.makeTempDir();
  const line = `trap "" XFSZ; ulimit -S -f 400; {start}`;
  await surviveFailure(folder, line, /I\/O error/, async ({ process }) => {
    const { pid } = process;
    const { success } = await new Deno.Command("prlimit", {
      args: ["--pid", `${pid}`, "--fsize=unlimited"],
    }).output();
    assert(success);
  });
  await using again = new ShellServer(folder, "{start}");
  await again.process.line(/ started: /);
  const keys = await again.keys();
  assertEquals(keys.at(-1), "after");
  assertEquals(await again.readiness(), "200 ready");
  await again[Symbol.asyncDispose]();
  await Deno.remove(folder, { recursive: true });
});

addFault("a file or a folder that may not be written ends the start with one line", async () => {
  // Root may write everything, but not as somebody else.
  const prefix = Deno.uid() === 0 ? "exec unshare --user --map-user=1 " : "";
  const folder = await Deno.makeTempDir();
  const path = `${folder}/parley.db`;
  for (const [locked, reason] of [[path, "readonly database"], [folder, "Permission denied"]]) {
    await Deno.writeTextFile(path, "");
    await Deno.chmod(locked, locked === path ? 0o444 : 0o555);
    if (locked === folder) await Deno.remove(path);
    await using server = new ShellServer(folder, `${prefix}sh -c '{start}'`);
    assertEquals((await server.process.status).code, 1);
    const lines = server.process.lines();
    assertEquals(lines.length, 1, lines.join(" | "));
    assertMatch(lines[0], new RegExp(`^Cannot use DATA_FILE: .*${reason}.*, ${path}$`));
    await Deno.chmod(locked, 0o755);
  }
  await Deno.remove(folder, { recursive: true });
});
