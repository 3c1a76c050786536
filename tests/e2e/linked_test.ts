// A project of somebody else that links Parley: with Deno alone, with Hono and with deno serve.
import { assertEquals } from "@std/assert";
import { Client } from "../support/clients.ts";
import { soon } from "../support/inbox.ts";
import { ROOT, TestProcess } from "../support/process.ts";

const RULE = `{
  onMessage: ({ message }) => message === "damn" ? refuse("Be kind.") : undefined,
}`;
const FILES = {
  "deno.json": JSON.stringify({
    links: [ROOT],
    imports: { "@parley/parley": "jsr:@parley/parley@^0.1.0", hono: "npm:hono@4.13.19" },
  }),
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

Deno.test("a program of this repository's own serves by the name of the package, and takes a list without spaces", async () => {
  await using program = new TestProcess(["run", "-A", "tests/e2e/linked_program.ts"]);
  await program.line(/^opened$/);
});

Deno.test("a project that links Parley checks and runs: with Deno, with Hono, with deno serve", async () => {
  const cwd = await Deno.makeTempDir();
  for (const [name, text] of Object.entries(FILES)) {
    await Deno.writeTextFile(`${cwd}/${name}`, text);
  }
  await using check = new TestProcess(["check", ...Object.keys(FILES).slice(1)], { cwd });
  const { code } = await soon(check.status, "the end of deno check");
  assertEquals(code, 0, check.lines().join("\n"));
  const starts: [args: string[], line: RegExp, path: string][] = [
    [["run", "-A", "alone.ts"], /^at (\d+)$/, "/chat/ops"],
    [["run", "-A", "beside_hono.ts"], /^at (\d+)$/, "/rt/chat/ops"],
    [["run", "-A", "beside_hono.ts"], /^at (\d+)$/, "/mounted/chat/ops"],
    [["serve", "-A", "--host", "127.0.0.1", "--port", "0", "serve.ts"], /:(\d+)\/?$/, "/chat/ops"],
  ];
  await using program = new TestProcess(["run", "-A", "program.ts"], { cwd });
  await program.line(/^opened$/);
  assertEquals((await soon(program.status, "the end of the program")).code, 0);
  await Promise.all(starts.map(async ([args, line, path]) => {
    await using server = new TestProcess(args, { cwd });
    const [, port] = line.exec(await server.line(line))!;
    await using ann = await Client.join(`ws://127.0.0.1:${port}${path}`, "Ann");
    ann.send({ type: "chat", message: "damn" });
    assertEquals(await ann.nextObject(), { type: "error", message: "Be kind." });
    ann.send({ type: "chat", message: "hello" });
    assertEquals((await ann.nextObject()).message, "hello");
  }));
  await Deno.remove(cwd, { recursive: true });
});
