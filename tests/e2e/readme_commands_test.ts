/**
 * Each command and each program text of the README is run, or the README says right before it why
 * it cannot be run here.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Inbox } from "../support/inbox.ts";
import { RedisServer } from "../support/redis_server.ts";
import { freePort, ROOT, run, TestProcess } from "../support/process.ts";
import { startServer } from "../support/servers.ts";

/** How a paragraph ends before a block that is not run here. */
const MARK = /\((takes long|needs jsr\.io|needs systemd|needs two nodes)\):$/;

/** What is run, but not from here. */
const ELSEWHERE: Record<string, string> = {
  "npx -y deno@2.9.6 test -A": "would run this test again; CI runs the same tests",
  "deno test -A": "would run this test again; CI runs it",
  "deno test -A tests/attack": "a part of deno test -A",
  "deno task test:fast": "a part of deno test -A",
  ".ci/run": "is CI",
  "deno run -A": "tests/examples/examples_test.ts runs it with the two files that are meant",
  "apt-get install libjemalloc2": "CI installs it",
};

/** Files that the README shows whole; tests/proxy/proxy_test.ts starts them. */
const SHOWN_FILES = ["tests/proxy/nginx.conf", "tests/proxy/Caddyfile"];

/** A fenced block. */
interface Block {
  language: string;
  text: string;
  isMarked: boolean;
}

const FENCE = /((?:[^\n]+\n)+)\n*```(\w*)\n([^]*?)\n```\n/g;
const readme = await Deno.readTextFile(`${ROOT}README.md`);
const blocks: Block[] = [...readme.matchAll(FENCE)].map(([, before, language, text]) => {
  return { language, text, isMarked: MARK.test(before.trim().replace(/\s+/g, " ")) };
});

/** The commands of a shell block: one a line, or several with `&&`; `\` goes on in the next line. */
function commandsOf(text: string): string[] {
  return text.replace(/\\\n\s*/g, "").split(/\n| && /);
}

/** The commands that stand in the text, and not in a block. */
function commandsInText(): string[] {
  const code = readme.replace(FENCE, "").matchAll(/`([^`]+)`/g);
  const texts = [...code].map(([, text]) => text.replace(/\s+/g, " "));
  const programs = /^(deno (run|task|test|bundle)|npx|npm|curl|openssl|apt-get|\.ci\/run)\b/;
  return [...new Set(texts.filter((text) => programs.test(text)))];
}

/** A program that a block needs and this machine lacks. */
async function missingProgram(text: string): Promise<string | undefined> {
  const programs = commandsOf(text).map((command) =>
    command.replace(/^(\w+=\S+ )*/, "").split(" ")[0]
  );
  if (text.includes("redis://")) programs.push("redis-server");
  for (const program of programs) {
    await using search = new TestProcess(`command -v ${program}`);
    if (!(await search.status).success) return program;
  }
}

/** Where a newcomer works: a copy of the project, and an empty folder beside it. */
async function makeDesk(): Promise<AsyncDisposable & { project: string; empty: string }> {
  const folder = await Deno.makeTempDir();
  const desk = { project: `${folder}/project`, empty: `${folder}/empty` };
  for (const path of Object.values(desk)) await Deno.mkdir(path);
  await run(`cp -r deno.json deno.lock main.ts handlers tests ${desk.project}`);
  await run(
    "cp tests/tls/localhost.pem cert.pem; cp tests/tls/localhost.key key.pem",
    { cwd: desk.project },
  );
  // An HTTP error is a failure.
  await Deno.writeTextFile(`${desk.empty}/.curlrc`, "fail");
  return { ...desk, [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }) };
}

const isServer = (command: string) => /\brun .*(main\.ts|parley\.js)(?!.* --help)/.test(command);

/** Runs commands as they are typed one after the other, each server in a terminal of its own. */
async function perform(text: string, desk: { project: string; empty: string }): Promise<void> {
  await using running = new AsyncDisposableStack();
  const port = freePort();
  const redisUrl = text.includes("redis://host") ? running.use(await RedisServer.start()).url : "";
  const commands = commandsOf(
    text.replaceAll("8000", `${port}`)
      .replaceAll("/somewhere/else", desk.empty)
      .replaceAll("/run/parley.sock", `${desk.empty}/parley.sock`)
      .replaceAll("redis://host", redisUrl),
  );
  if (!commands.some(isServer)) running.use(await startServer({ PORT: port }));
  const env = { PORT: `${port}`, CURL_HOME: desk.empty };
  let cwd = desk.project;
  for (const command of commands) {
    // The first use fetches it.
    if (command.startsWith("npx")) await run("npx -y deno@2.9.6 --version", { cwd });
    if (command.startsWith("cd ")) {
      cwd = command.slice("cd ".length);
    } else if (isServer(command)) {
      const server = running.use(new TestProcess(command, { cwd, env }));
      const [url] = / http:[^ ]+/.exec(await server.line(/ started: /)) ?? [];
      if (url) assertEquals(await (await fetch(`${url.trim()}readyz`)).text(), "ready\n");
    } else if (command.startsWith("curl -N")) {
      await running.use(new TestProcess(command, { cwd, env })).line(/^data:/);
    } else {
      await run(command, { cwd, env });
    }
  }
}

/** Runs a module that imports the client, until it hears what it said itself. */
async function runClient(text: string, { empty }: { empty: string }): Promise<void> {
  await using server = await startServer();
  await Deno.writeTextFile(
    `${empty}/client.js`,
    text.replaceAll("http://localhost:8000", server.url),
  );
  // Else the next run would get this port's client from the cache.
  const env = { DENO_DIR: `${empty}/cache` };
  await using client = new TestProcess("deno run -A client.js", { cwd: empty, env });
  await client.line(/^open$/);
  await client.line(/^Ann: Hello$/);
}

/** Runs what one pastes into a browser's console, and compares what it prints. */
async function runSnippet(text: string, output: string): Promise<void> {
  await using server = await startServer();
  const printed = new Inbox<string>("a printed line");
  const snippet = `${text}; return socket;`.replace("ws://localhost:8000", server.ws);
  const socket: WebSocket = new Function("console", snippet)({
    log: (text: string) => printed.push(text),
  });
  const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
  for (const line of output.split("\n")) assertEquals(await printed.next(), line);
  socket.close();
  await closed;
}

Deno.test("each block and command of the README is run, marked, or run by another test", async (t) => {
  await using desk = await makeDesk();
  const step = (text: string, fn: () => Promise<void>, missing = "") => {
    const name = text.replace(/\s+/g, " ").slice(0, 80) + missing;
    return t.step({ name, ignore: missing !== "", fn });
  };
  const shell = async (text: string) => {
    const missing = await missingProgram(text);
    await step(text, () => perform(text, desk), missing && ` [needs: ${missing}]`);
  };
  const done = new Set(Object.keys(ELSEWHERE));
  const outputs = new Set<Block>();
  assertEquals(readme.match(/^```/gm)!.length, 2 * blocks.length, "a block that was not found");
  const files = await Promise.all(SHOWN_FILES.map((path) => Deno.readTextFile(ROOT + path)));
  for (const [index, block] of blocks.entries()) {
    const { language, text, isMarked } = block;
    if (language === "sh") {
      const isNew = commandsOf(text).some((command) => !done.has(command));
      if (isNew && !isMarked) await shell(text);
      for (const command of commandsOf(text)) done.add(command);
    } else if (language === "js" && text.startsWith("import ")) {
      await step(text, () => runClient(text, desk));
    } else if (language === "js") {
      const output = blocks[index + 1];
      outputs.add(output);
      await step(text, () => runSnippet(text, output.text));
    } else {
      const isKnown = isMarked || outputs.has(block) || files.includes(`${text}\n`);
      assert(isKnown, `neither run nor marked: ${text}`);
    }
  }
  for (const command of commandsInText().filter((command) => !done.has(command))) {
    await shell(command);
  }
});

Deno.test("each command tells its flags with --help", async () => {
  const tasks = ["chat", "bench", "soak", "attack", "faults"].map((task) => `deno task ${task}`);
  await Promise.all(["deno run -A main.ts", ...tasks].map(async (command) => {
    assertMatch(await run(`${command} --help`), RegExp(`^ *${command} \\[flags\\]`, "m"));
  }));
});
