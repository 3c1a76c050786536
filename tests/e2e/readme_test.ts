/** The README files say what the code does, where a machine can tell. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { dirname, join } from "node:path/posix";
import config from "../../deno.json" with { type: "json" };
import { CLOSE } from "../../handlers/protocol/close_codes.ts";
import { ERROR_TEXTS } from "../../handlers/protocol/encode.ts";
import { Client } from "../support/clients.ts";
import { createTestApp } from "../support/fakes.ts";
import { eventually, Inbox } from "../support/inbox.ts";
import { freePort, ROOT, run, TestProcess } from "../support/process.ts";
import {
  type Block,
  blocksIn,
  proseOf,
  readReadmes,
  withGeneratedParts,
} from "../support/readmes.ts";
import { RedisServer } from "../support/redis_server.ts";
import { startServer } from "../support/servers.ts";
import { runTogether, type Step, together } from "../support/together.ts";

const readmes = await readReadmes();
const all = readmes.map(({ text }) => text).join("\n");

function readme(path: string): string {
  return readmes.find((readme) => readme.path === path)!.text;
}

/** A text without the padding of tables. */
function unpadded(text: string): string {
  return text.replace(/ +/g, " ").replace(/-{3,}/g, "---");
}

/** What an id of a heading is on GitHub. */
function anchorOf(heading: string): string {
  return heading.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-");
}

Deno.test("the README is short enough to be read", () => {
  const lines = readme("README.md").split("\n").length - 1;
  assert(lines <= 250, `${lines} lines`);
});

Deno.test("tables of settings and the variables that may be read are the code's", () => {
  for (const { path, text } of readmes) {
    const hint = `${path}: deno run -A tests/support/readmes.ts writes it anew`;
    assertEquals(unpadded(text), unpadded(withGeneratedParts(text)), hint);
  }
  assert(all.includes("<!-- settings -->") && all.includes("<!-- eight settings -->"));
});

Deno.test("the files, headings and tasks that a README names exist", async () => {
  for (const { path, text } of readmes) {
    for (const [, link] of text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [file, anchor] = link.split("#");
      const target = file ? join(dirname(path), file) : path;
      await Deno.stat(ROOT + target);
      const headings = [...(anchor ? readme(target) : "").matchAll(/^#+ (.*)$/gm)];
      const isThere = !anchor || headings.some(([, heading]) => anchorOf(heading) === anchor);
      assert(isThere, `${path}: ${link}`);
    }
    for (
      const [, file] of text.matchAll(/(?:`|deno run -A )((?:handlers|tests|\.ci)\/[\w./-]+)/g)
    ) {
      await Deno.stat(ROOT + file);
    }
    for (const [, task] of text.matchAll(/deno task (?:-q )?(\w+)/g)) {
      assertEquals(Object.hasOwn(config.tasks, task), true, `${path}: ${task}`);
    }
  }
});

Deno.test("every route is among the README's endpoints", async () => {
  const [, endpoints] = readme("README.md").match(/\n## Endpoints\n([^]*?)\n## /)!;
  const router = await Deno.readTextFile(`${ROOT}handlers/router.ts`);
  const routes = [...router.matchAll(/^ +"(\/[^"]*)":/gm)].map(([, path]) => path);
  assert(routes.length > 10);
  for (const path of routes) {
    assert(RegExp(`[\` …]${path.replace(/[{}]/g, "\\$&")}[\`?]`).test(endpoints), path);
  }
});

Deno.test("every folder with a README is linked from the top", () => {
  const seen = new Set<string>();
  const follow = (path: string) => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const [, link] of readme(path).matchAll(/\]\(((?!https?:)[^)\s#]*README\.md)/g)) {
      follow(join(dirname(path), link));
    }
  };
  follow("README.md");
  assertEquals([...seen].sort(), readmes.map(({ path }) => path).sort());
});

Deno.test("every error of parley.v1 and every close is told", () => {
  const told = (text: string) => assert(all.includes(text), text);
  for (const [code, text] of Object.entries(ERROR_TEXTS)) {
    told(`\`${code}\``);
    // A plain client neither names a room nor hears state.
    if (!/room|key|rev_/.test(code)) told(`{"type":"error","message":"${text}"}`);
  }
  for (const { code, reason } of Object.values(CLOSE)) {
    assertMatch(all, RegExp(`^\\| ${code} +\\|.*\`${reason}\``, "m"));
  }
});

/** Where the names of an interface stand, and which README tells them all. */
const TOLD: [file: string, name: string, readme: string][] = [
  ["client/client.d.ts", "Options", "client/README.md"],
  ["client/client.d.ts", "Client", "client/README.md"],
  ["app.ts", "ParleyOptions", "README.md"],
  ["access/access.ts", "AccessRules", "README.md"],
  ["hooks/hooks.ts", "Hooks", "README.md"],
  ["run_app.ts", "Parley", "README.md"],
];

Deno.test("every option, hook, method and error of the client and the library is told", async () => {
  for (const [file, name, path] of TOLD) {
    const source = await Deno.readTextFile(`${ROOT}handlers/${file}`);
    const [, body] = RegExp(`interface ${name}\\b[^]*? \\{\n([^]*?)\n\\}`).exec(source)!;
    const names = [...body.matchAll(/^ {2}(?:\/\*\*.*\*\/ )?(?:readonly )?(\w+)\??[:(]/gm)];
    assert(names.length > 3, name);
    for (const [, member] of names) {
      assertMatch(readme(`handlers/${path}`), RegExp(`[\`.]${member}[\`(]`), `${name}.${member}`);
    }
  }
  const client = await Deno.readTextFile(`${ROOT}handlers/client/client.js`);
  const codes = [...client.matchAll(/new ParleyError\(\s*"(\w+)"/g)].map(([, code]) => code);
  assert(codes.length > 5);
  for (const code of codes) {
    assert(readme("handlers/client/README.md").includes(`\`${code}\``), code);
  }
});

Deno.test("the metrics that are told are those of /metrics", async () => {
  const { ask, engine } = createTestApp();
  // Those of a Redis, too.
  const remote = { commands: 1, reconnects: 1, roundTrips: 1, roundTripSeconds: 1 };
  const stats = engine.stats();
  engine.stats = () => ({ ...stats, remote });
  const metrics = await (await ask("/metrics")).text();
  for (const [, name, label] of all.matchAll(/`((?:parley|process)_\w+)(\{.+?="\w+"\})?/g)) {
    assert(metrics.includes(`# TYPE ${name} `), name);
    assert(metrics.includes(name + (label ?? "")), label);
  }
});

// Each command and each program in a README file is run, or the README says right before it why it
// cannot be run here.

/** What is run, but not from here. */
const ELSEWHERE: Record<string, string> = {
  "deno test -A": "would run this test again; CI runs it",
  "deno test -A tests/attack": "a part of deno test -A",
  "deno task test:fast": "a part of deno test -A",
  ".ci/run": "is CI",
  "deno run -A chat.ts": "its program is run as a server, below",
  "apt-get install libjemalloc2": "CI installs it",
  "deno task bundle": "deploy_test.ts",
  "cp parley.js /somewhere/else": "deploy_test.ts",
  "cd /somewhere/else": "deploy_test.ts",
  "deno run -A parley.js": "deploy_test.ts",
};

/** What takes long, and stands in the text. Its parts and small versions are tests. */
const LONG = /^deno (task (bench|attack|faults|soak)|run -A tests\/bench\/)/;

const blocks = readmes.flatMap(({ blocks }) => blocks);

/** Blocks without a language are what the block before them prints; `text` is a picture. */
const outputs = new Map<Block, string>(
  blocks.flatMap((block, index) => block.language === "" ? [[blocks[index - 1], block.text]] : []),
);

/** The commands of a shell block: one a line, or several with `&&`; `\` goes on in the next line. */
function commandsOf(text: string): string[] {
  return text.replace(/\\\n\s*/g, "").split(/\n| && /).map((line) => line.replace(/ &$/, ""));
}

/** The commands that stand in the text, and not in a block. */
function commandsInProse(): string[] {
  const code = readmes.map(proseOf).join("\n").matchAll(/`([^`]+)`/g);
  const texts = [...code].map(([, text]) => text.replace(/\s+/g, " "));
  const programs = /^(deno (run|task|test|bundle)|npx|npm|curl|openssl|apt-get|\.ci\/run)\b/;
  return [...new Set(texts.filter((text) => programs.test(text)))];
}

/** A program that a block needs and this machine lacks. */
async function missingProgram(text: string): Promise<string | undefined> {
  const programs = commandsOf(text).map((command) =>
    command.replace(/^(\w+=\S+ )*/, "").split(" ")[0]
  ).filter((program) => program !== "" && !program.includes("="));
  if (text.includes("redis://")) programs.push("redis-server");
  for (const program of new Set(programs)) {
    await using search = new TestProcess(`command -v ${program}`);
    if (!(await search.status).success) return program;
  }
}

/** Where a newcomer works: a copy of the project, and an empty folder beside it. */
interface Desk {
  project: string;
  empty: string;
}

async function makeDesk(): Promise<AsyncDisposable & Desk> {
  const folder = await Deno.makeTempDir();
  const desk = { project: `${folder}/parley`, empty: `${folder}/empty` };
  for (const path of Object.values(desk)) await Deno.mkdir(path);
  await run(`cp -r deno.json deno.lock main.ts handlers tests ${desk.project}`);
  await run("cp tests/tls/localhost.pem cert.pem; cp tests/tls/localhost.key key.pem", {
    cwd: desk.project,
  });
  // An HTTP error is a failure.
  await Deno.writeTextFile(`${desk.empty}/.curlrc`, "fail");
  return { ...desk, [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }) };
}

const isServer = (command: string) => /\brun .*(main\.ts|parley\.js)(?!.* --help)/.test(command);

/** What a started server prints, without what differs from start to start. */
function withoutTime(lines: string[], port: number): string[] {
  return lines.map((line) =>
    line.replace(/^\S+ \S+ \S+ /, "").replaceAll(`${port}`, "8000").replace(
      / \d+\.\d+\.\d+ /,
      " v ",
    )
  );
}

/** Runs commands as they are typed one after the other, each server in the background. */
async function perform(text: string, desk: Desk, output?: string): Promise<void> {
  await using running = new AsyncDisposableStack();
  const port = freePort();
  const redisUrl = text.includes("redis://host") ? running.use(await RedisServer.start()).url : "";
  const commands = commandsOf(
    text.replaceAll("8000", `${port}`)
      .replaceAll("/run/parley.sock", `${desk.empty}/parley.sock`)
      .replaceAll("redis://host", redisUrl),
  );
  if (!commands.some(isServer)) running.use(await startServer({ PORT: port }));
  const env: Record<string, string> = { PORT: `${port}`, CURL_HOME: desk.empty };
  const cwd = desk.project;
  for (const command of commands) {
    // The first use fetches it.
    if (command.startsWith("npx")) await run("npx -y deno@2.9.6 --version", { cwd });
    const [, variable] = /^export (\w+)=/.exec(command) ?? [];
    if (variable) {
      env[variable] = await run(`${command}; printf %s "$${variable}"`, { cwd, env });
    } else if (isServer(command)) {
      const server = running.use(new TestProcess(command, { cwd, env }));
      const [url] = / http:[^ ]+/.exec(await server.line(/ started: /)) ?? [];
      if (url) assertEquals(await (await fetch(`${url.trim()}readyz`)).text(), "ready\n");
      for (const line of withoutTime(output?.split("\n") ?? [], port)) {
        await eventually(() => withoutTime(server.lines(), port), (lines) => lines.includes(line));
      }
    } else if (command.startsWith("curl -N")) {
      await running.use(new TestProcess(command, { cwd, env })).line(/^data:/);
    } else {
      await run(command, { cwd, env });
    }
  }
}

/** Runs what one pastes into a page's console, until it prints what the README says before it. */
async function runSnippet({ text }: Block, printed: string): Promise<void> {
  await using server = await startServer();
  const lines = new Inbox<string>("a printed line");
  const console = { log: (line: string) => lines.push(line) };
  const snippet = new Function("console", "location", `${text}; return socket;`);
  const socket: WebSocket = snippet(console, new URL(server.url));
  const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
  assertEquals(await lines.next(), printed);
  socket.close();
  await closed;
}

function titleOf(text: string): string {
  return text.replace(/\s+/g, " ").slice(0, 60);
}

const test = together("the programs and commands of the READMEs");

test("each block and command of a README is run, marked, or run by another test", async (t) => {
  await using desk = await makeDesk();
  const steps: Promise<Step>[] = [];
  const add = (text: string, output?: string) =>
    steps.push(
      missingProgram(text).then((missing) => ({
        name: titleOf(text) + (missing ? ` [needs: ${missing}]` : ""),
        ignore: missing !== undefined,
        fn: () => perform(text, desk, output),
      })),
    );
  const done = new Set(Object.keys(ELSEWHERE));
  for (const block of blocks.filter(({ language }) => language === "sh")) {
    const isNew = commandsOf(block.text).some((command) => !done.has(command));
    if (isNew && !block.isMarked) add(block.text, outputs.get(block));
    for (const command of commandsOf(block.text)) done.add(command);
  }
  for (const command of commandsInProse()) {
    if (!done.has(command) && !LONG.test(command)) add(command);
  }
  await runTogether(t, await Promise.all(steps));
});

Deno.test("each block of a README has a language that is run, or is marked", () => {
  const known = ["sh", "js", "ts", "html", "json", "text", ""];
  for (const { path, language, text, isMarked } of blocks) {
    assert(isMarked || known.includes(language), `${path}: neither run nor marked: ${text}`);
    if (language === "json") JSON.parse(text);
  }
});

test("what a README pastes into a console prints what it says", async () => {
  for (const block of await blocksIn("js")) await runSnippet(block, "Echo: Hello");
});

/** Starts a program that serves, until it is ready; a rule in it is tried. */
async function runServer({ text }: Block, { empty }: Desk): Promise<void> {
  const port = freePort();
  const file = `${crypto.randomUUID()}.ts`;
  const options = `{ port: ${port}, hostname: "127.0.0.1", onListen() {} }`;
  const program = text.replace("Deno.serve(", `Deno.serve(${options}, `);
  await Deno.writeTextFile(`${empty}/${file}`, program);
  await using server = new TestProcess(`exec deno run --no-check -A ${file}`, { cwd: empty });
  const path = /prefix: "(.*)"/.exec(text)?.[1] ?? "";
  const ready = () =>
    fetch(`http://127.0.0.1:${port}${path}/readyz`).then((answer) => answer.text());
  await Promise.race([
    eventually(() => ready().catch(String), (answer) => answer === "ready\n"),
    server.status.then(() => Promise.reject(new Error(server.lines().join(" | ")))),
  ]);
  const [, refusal] = /test\(message\)\) return refuse\("(.*)"\)/.exec(text) ?? [];
  if (!refusal) return;
  await using ann = await Client.join(`ws://127.0.0.1:${port}${path}/chat/ops`, "Ann");
  ann.send({ type: "chat", message: "Damn" });
  assertEquals(await ann.nextObject(), { type: "error", message: refusal });
}

/** Runs the live dashboard, with the client that its server serves, until it shows what was set. */
async function runDashboard({ text }: Block, { empty }: Desk): Promise<void> {
  await using server = await startServer();
  const file = `${crypto.randomUUID()}.ts`;
  await Deno.writeTextFile(
    `${empty}/${file}`,
    text.replaceAll("http://localhost:8000", server.url),
  );
  // The client of another server may have been kept for this port.
  const env = { NO_COLOR: "1", DENO_DIR: `${empty}/cache` };
  await using program = new TestProcess(["run", "-A", "--no-lock", file], { cwd: empty, env });
  const headers = { "content-type": "application/json" };
  for (const bar of [3.2, 4.5]) {
    const key = `${server.url}/rooms/plant/state/pump/1`;
    const response = await fetch(key, { method: "PUT", headers, body: `{"bar":${bar}}` });
    assertEquals((await response.json()).room, "plant");
    await program.line(RegExp(`pump/1 .* ${bar}`));
  }
}

/** A rule of somebody else's. */
const RULE = `{
  onMessage: ({ message }) => message === "damn" ? refuse("Be kind.") : undefined,
}`;
/** Programs of somebody else's that link Parley: with Deno alone, with Hono and with deno serve. */
const LINKING = {
  "alone.ts": `import { createParley, refuse } from "@parley/parley";
const parley = createParley(${RULE});
const { addr } = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, parley.fetch);
console.log("at " + addr.port);
`,
  "beside_hono.ts": `import { createParley, refuse } from "@parley/parley";
import { Hono } from "hono";
const parley = createParley({ ...${RULE}, prefix: "/rt" });
const app = new Hono<{ Bindings: Deno.ServeHandlerInfo }>();
app.all("/rt/*", (c) => parley.fetch(c.req.raw, c.env));
const mounted = createParley({ ...${RULE}, prefix: "/mounted" });
app.mount("/mounted", mounted.fetch, { replaceRequest: false });
const { addr } = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, app.fetch);
console.log("at " + addr.port);
`,
  "serve.ts": `import { createParley, refuse } from "@parley/parley";

export default createParley(${RULE});
`,
  "program.ts": await Deno.readTextFile(`${ROOT}tests/e2e/linked_program.ts`),
  // The rule must be typed: what is no hook, or answers what no hook may, does not compile.
  "wrong.ts": `import { createParley } from "@parley/parley";
// @ts-expect-error onJoin answers a name
createParley({ onJoin: () => 7 });
// @ts-expect-error there is no such hook
createParley({ onMesage() {} });
`,
};

/** How each is started, the line that tells its port, and a room. */
const LINKING_STARTS: [args: string[], line: RegExp, path: string][] = [
  [["run", "-A", "alone.ts"], /^at (\d+)$/, "/chat/ops"],
  [["run", "-A", "beside_hono.ts"], /^at (\d+)$/, "/rt/chat/ops"],
  [["run", "-A", "beside_hono.ts"], /^at (\d+)$/, "/mounted/chat/ops"],
  [["serve", "-A", "--host", "127.0.0.1", "--port", "0", "serve.ts"], /:(\d+)\/?$/, "/chat/ops"],
];

async function runLinking(cwd: string, [args, line, path]: typeof LINKING_STARTS[0]) {
  await using server = new TestProcess(args, { cwd });
  const [, port] = line.exec(await server.line(line))!;
  await using ann = await Client.join(`ws://127.0.0.1:${port}${path}`, "Ann");
  ann.send({ type: "chat", message: "damn" });
  assertEquals(await ann.nextObject(), { type: "error", message: "Be kind." });
  ann.send({ type: "chat", message: "hello" });
  assertEquals((await ann.nextObject()).message, "hello");
}

test("each TypeScript program of a README, and each of a project that links Parley, fits the types and serves", async (t) => {
  await using desk = await makeDesk();
  const { project, empty: cwd } = desk;
  const { imports } = JSON.parse(await Deno.readTextFile(`${project}/deno.json`));
  const own = {
    imports: { jose: imports.jose, hono: "npm:hono@4.13.19" },
    compilerOptions: { noUnusedParameters: true, noFallthroughCasesInSwitch: true },
  };
  await Deno.writeTextFile(`${cwd}/deno.json`, JSON.stringify(own));
  await run("deno link ../parley", { cwd });
  await run(`cp handlers/client/client.js handlers/client/client.d.ts ${cwd}`);
  const programs = await blocksIn("ts");
  const files: Record<string, string> = { ...LINKING };
  for (const [index, { text }] of programs.entries()) {
    files[`program_${index}.ts`] = text.replaceAll(
      "http://localhost:8000/client.js",
      "./client.js",
    );
  }
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(`${cwd}/${name}`, text);
  }
  const check = ["check", ...Object.keys(files)];
  const servers = programs.filter(({ text }) => text.includes("Deno.serve("));
  await runTogether(t, [
    { name: "deno check", fn: async () => void await run(check, { cwd }) },
    ...servers.map((block) => ({
      name: titleOf(block.text),
      fn: () => runServer(block, desk),
    })),
    ...programs.filter(({ text }) => text.includes("console.table(")).map((block) => ({
      name: titleOf(block.text),
      fn: () => runDashboard(block, desk),
    })),
    ...LINKING_STARTS.map((start) => ({
      name: [...start[0], start[2]].join(" "),
      fn: () => runLinking(cwd, start),
    })),
    {
      name: "deno bundle",
      async fn() {
        await run(["bundle", "-q", "-o", "bundle.js", "program.ts"], { cwd });
        for (const name of ["program.ts", "bundle.js"]) {
          await using program = new TestProcess(["run", "-A", name], { cwd });
          await program.line(/^opened$/);
        }
      },
    },
  ]);
});

test("each command tells its flags with --help", async () => {
  const tasks: Record<string, string> = config.tasks;
  const names = Object.keys(tasks).filter((name) =>
    /^deno run .*(tests|start|client)\//.test(tasks[name])
  );
  const commands = ["deno run -A main.ts", ...names.map((name) => `deno task ${name}`)];
  for await (const { name } of Deno.readDir(`${ROOT}tests/bench`)) {
    if (!name.endsWith(".ts")) continue;
    const [, command] = /^ \* {5}(deno run -A tests\/\S+)/m.exec(
      await Deno.readTextFile(`${ROOT}tests/bench/${name}`),
    ) ?? [];
    if (command) commands.push(command);
  }
  assert(commands.length > 12);
  await Promise.all(commands.map(async (command) => {
    assertMatch(await run(`${command} --help`), RegExp(`^ *${command}( \\[|$)`, "m"));
  }));
});
