/** A person's own program with `client.js`: its types, through each bundler, and in Node. */
import { assertEquals } from "@std/assert";
import { run } from "../support/process.ts";
import { startServer } from "../support/servers.ts";
import { runTogether, together } from "../support/together.ts";

const test = together("client.js in a person's own program");

/** An empty folder for a while. */
async function makeFolder(): Promise<AsyncDisposable & { cwd: string }> {
  const cwd = await Deno.makeTempDir();
  return { cwd, [Symbol.asyncDispose]: () => Deno.remove(cwd, { recursive: true }) };
}

const TSC = ("run -A --no-lock npm:typescript@7.0.2/tsc " +
  "--noEmit --strict --target es2024 --lib es2024,dom,dom.iterable").split(" ");
const BUNDLER = ["--module", "esnext", "--moduleResolution", "bundler"];

/** What a person writes; each marked line is a mistake that the types find. */
const typed = (module: string) => `
import { type Client, connect, type Message, ParleyError, type Receipt } from "${module}";
// @ts-expect-error there is no such name
import { conect } from "${module}";

interface Score { player: string; points: number }

const client: Client<Score> = connect<Score>("https://example.com", {
  room: "game",
  name: "Ann",
  token: async () => "jwt",
  history: 10,
  onMessage: ({ epoch, seq, time, sender, message }) => {
    const points: number = message.points;
    console.log(epoch, seq + time, sender, points);
  },
  onStatus: ({ event, was, members }) => console.log(event === "join", was, members + 1),
  onWelcome: ({ recovered }) => console.log(recovered === false),
  onGap: ({ from, to }) => console.log(to.seq - from.seq),
  onConnection: (state) => console.log(state === "reconnecting"),
  onError: (error) => console.log(error instanceof ParleyError, error.code, error.room),
});
const receipt: Receipt = await client.send({ player: "Ann", points: 1 }, { room: "game" });
const { members, count } = await client.members();
client.join("Bea");
client.note({ typing: true }, { room: "other" });
const page = await client.history({ before: { epoch: "e", seq: 9 }, limit: 50 });
console.log(page.recovered, page.messages.map(({ message }) => message.points + 1));
client.listen("other");
const { rev } = await client.set("turn", "Ann", { if: 0, bind: true, ttl: 60, room: "other" });
const map: ReadonlyMap<string, unknown> = client.state("other");
console.log(rev + (client.entry("turn")?.rev ?? 0), map.get("turn"));
connect<unknown, number>("https://example.com", {
  state: { every: 100 },
  onState: ({ entries }) => entries.map(({ key, value }) => key + ((value ?? 0) + 1)),
}).set("celsius", null);
// @ts-expect-error nobody sets a key but by set()
map.set("turn", "Bob");
client.leave("other");
await client.refreshToken();
console.log(receipt.seq + count, members[0], client.connection);
const untyped = (message: Message) => message.message;
connect(new URL("wss://example.com/chat"), { onMessage: untyped }).send({ any: ["JSON"] });
// @ts-expect-error a message of another shape
client.send({ player: "Ann" });
// @ts-expect-error an option that is none
connect("https://example.com", { rooms: ["a"] });
// @ts-expect-error a state that is none
console.log(client.connection === "online");
// @ts-expect-error nobody sets the state
client.connection = "open";
client.close();
`;

test("a TypeScript program checks against the served client with tsc and with Deno", async (t) => {
  await using server = await startServer();
  await using folder = await makeFolder();
  const { cwd } = folder;
  for (const name of ["client.js", "client.d.ts"]) {
    const response = await fetch(`${server.url}/${name}`);
    assertEquals(response.status, 200, name);
    await Deno.writeTextFile(`${cwd}/${name}`, await response.text());
  }
  await Deno.writeTextFile(`${cwd}/beside.ts`, typed("./client.js"));
  await Deno.writeTextFile(`${cwd}/package.json`, `{ "type": "module" }`);
  await Deno.writeTextFile(`${cwd}/remote.ts`, typed(`${server.url}/client.js`));
  const { host, origin } = new URL(server.url);
  const checks: Record<string, string[]> = {
    "tsc, as Node resolves": [...TSC, "--module", "nodenext", "beside.ts"],
    "tsc, as bundlers resolve": [...TSC, ...BUNDLER, "beside.ts"],
    // What it keeps of an earlier server at the same port is not this one's.
    "Deno, from a file and from the server": [
      ...["check", "--no-lock", "--no-config", `--allow-import=${host}`, `--reload=${origin}`],
      ...["beside.ts", "remote.ts"],
    ],
  };
  const steps = Object.entries(checks).map(([name, args]) => ({
    name,
    fn: async () => void await run(args, { cwd }),
  }));
  await runTogether(t, steps);
});

test("client.js itself keeps to client.d.ts and to its JSDoc types", async () => {
  await run([...TSC, "--allowJs", "--checkJs", ...BUNDLER, "handlers/client/client.js"]);
});

const PACKAGES = {
  esbuild: "npm:esbuild@0.28.2",
  rollup: "npm:rollup@4.68.8",
  vite: "npm:vite@8.3.8",
  webpack: "npm:webpack@5.112.2",
  "webpack-cli": "npm:webpack-cli@7.3.1",
};

/** Absolute URLs of all kinds, which no bundler may take for files. */
const PROGRAM = `
import { connect } from "./client.js";
const base = globalThis.Deno.args[0];
const urls = [base, base + "/chat/a%3Ab", new URL(base), base.replace("http", "ws") + "/chat/ops"];
const clients = urls.map((url) => connect(url, { name: "Ann" }));
Promise.all(clients.map((client) => client.send("bundled")))
  .then((receipts) => console.log(receipts.map(({ room }) => room).join(" ")))
  .finally(() => clients.forEach((client) => client.close()));
`;

/** The little of a page that a bundle for browsers looks at. */
const PAGE = `globalThis.document = { baseURI: "https://page.test/", currentScript: null };
await import("./bundle.mjs");`;

const VITE = `export default {
  logLevel: "warn",
  build: { lib: { entry: "main.js", formats: ["es", "iife"], name: "app", fileName: "vite" } },
};`;

/** What each command makes. */
const BUILDS: Record<string, string[]> = {
  "esbuild main.js --bundle --format=esm --outfile=dist/esbuild.mjs": ["esbuild.mjs"],
  "esbuild main.js --bundle --minify --outfile=dist/esbuild.js": ["esbuild.js"],
  "rollup main.js --silent --format es --file dist/rollup.mjs": ["rollup.mjs"],
  "rollup main.js --silent --format iife --file dist/rollup.js": ["rollup.js"],
  "vite build --outDir dist/vite": ["vite/vite.js", "vite/vite.iife.js"],
  "webpack ./main.js --mode production --output-path dist/webpack": ["webpack/main.js"],
};

test("client.js reaches absolute URLs from a bundle of esbuild, rollup, vite and webpack", async (t) => {
  await using server = await startServer();
  await using folder = await makeFolder();
  const { cwd } = folder;
  const files = {
    "client.js": await (await fetch(`${server.url}/client.js`)).text(),
    "main.js": PROGRAM,
    "vite.config.mjs": VITE,
    "package.json": JSON.stringify({ type: "module", dependencies: PACKAGES }),
  };
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(`${cwd}/${name}`, text);
  }
  const options = { cwd, env: { NODE_ENV: "production" } };
  await run(["install", "--quiet"], options);
  await runTogether(
    t,
    Object.entries(BUILDS).map(([line, bundles]) => ({
      name: line,
      async fn() {
        await run(["run", "-A", ...`npm:${line}`.split(" ")], options);
        for (const bundle of bundles) {
          // Where a bundle is run, the folder's files are no help any more.
          await using elsewhere = await makeFolder();
          await Deno.copyFile(`${cwd}/dist/${bundle}`, `${elsewhere.cwd}/bundle.mjs`);
          await Deno.writeTextFile(`${elsewhere.cwd}/page.mjs`, PAGE);
          const args = ["run", "-A", "--no-lock", "page.mjs", server.url];
          assertEquals(await run(args, { cwd: elsewhere.cwd }), "lobby a:b lobby ops", bundle);
        }
      },
    })),
  );
});

/** Node 20 has its WebSocket behind this flag; newer ones know the flag, too. */
const NODE = "node --experimental-websocket --no-warnings";

const hasNode = await run(`${NODE} -e ""`).then(() => true, () => false);

test(
  `client.js runs in Node without a build${hasNode ? "" : " [needs: Node 20]"}`,
  async () => {
    await using server = await startServer();
    await using folder = await makeFolder();
    const { cwd } = folder;
    const program = PROGRAM.replace("globalThis.Deno.args[0]", "process.argv[2]");
    await Deno.writeTextFile(`${cwd}/main.mjs`, program.replace("client.js", "client.mjs"));
    const client = await (await fetch(`${server.url}/client.js`)).text();
    await Deno.writeTextFile(`${cwd}/client.mjs`, client);
    const printed = await run(`${NODE} main.mjs ${server.url}`, { cwd });
    assertEquals(printed, "lobby a:b lobby ops");
  },
  !hasNode,
);
