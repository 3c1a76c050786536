/** A person's program with `client.js` in it, through each bundler and in Node, against a real server. */
import { assertEquals } from "@std/assert";
import { startServer } from "../support/servers.ts";

const PACKAGES = {
  esbuild: "0.28.2",
  rollup: "4.68.8",
  vite: "8.3.8",
  webpack: "5.112.2",
  "webpack-cli": "7.3.1",
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

const BUILDS = [
  "esbuild main.js --bundle --format=esm --outfile=dist/esbuild.mjs",
  "esbuild main.js --bundle --minify --outfile=dist/esbuild.js",
  "rollup main.js --silent --format es --file dist/rollup.mjs",
  "rollup main.js --silent --format iife --file dist/rollup.js",
  "vite build --outDir dist/vite",
  "webpack ./main.js --mode production --output-path dist/webpack",
];

async function deno(args: string[], cwd: string): Promise<string> {
  const env = { NO_COLOR: "1", NODE_ENV: "production" };
  const output = await new Deno.Command(Deno.execPath(), { args, cwd, env }).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((one) =>
    new TextDecoder().decode(one)
  );
  if (!output.success) throw new Error(`deno ${args.join(" ")} failed: ${stdout}${stderr}`);
  return stdout;
}

Deno.test("client.js reaches absolute URLs from a bundle of esbuild, rollup, vite and webpack", async () => {
  await using server = await startServer();
  const folder = await Deno.makeTempDir();
  try {
    const files = {
      "client.js": await (await fetch(`${server.url}/client.js`)).text(),
      "main.js": PROGRAM,
      "vite.config.mjs": VITE,
      "package.json": JSON.stringify({ type: "module", dependencies: PACKAGES }),
    };
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, text);
    }
    await deno(["install", "--quiet"], folder);
    const build = (line: string) => deno(["run", "-A", ...`npm:${line}`.split(" ")], folder);
    await Promise.all(BUILDS.map(build));
    const bundles = [
      ...["esbuild.mjs", "esbuild.js", "rollup.mjs", "rollup.js"],
      ...["vite/vite.js", "vite/vite.iife.js", "webpack/main.js"],
    ];
    for (const bundle of bundles) {
      // Where a bundle is run, the folder's files are no help any more.
      const elsewhere = await Deno.makeTempDir();
      await Deno.copyFile(`${folder}/dist/${bundle}`, `${elsewhere}/bundle.mjs`);
      await Deno.writeTextFile(`${elsewhere}/page.mjs`, PAGE);
      const printed = await deno(["run", "-A", "--no-lock", "page.mjs", server.url], elsewhere);
      assertEquals(printed, "lobby a:b lobby ops\n", bundle);
      await Deno.remove(elsewhere, { recursive: true });
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** Node 20 has its WebSocket behind this flag; newer ones know the flag, too. */
const NODE_FLAGS = ["--experimental-websocket", "--no-warnings"];

const hasNode = await new Deno.Command("node", { args: [...NODE_FLAGS, "-e", ""] }).output()
  .then(({ success }) => success, () => false);

Deno.test({
  name: `client.js runs in Node without a build${hasNode ? "" : " [needs: Node 20]"}`,
  ignore: !hasNode,
  async fn() {
    await using server = await startServer();
    const folder = await Deno.makeTempDir();
    try {
      const program = PROGRAM.replace("globalThis.Deno.args[0]", "process.argv[2]");
      await Deno.writeTextFile(`${folder}/main.mjs`, program.replace("client.js", "client.mjs"));
      const client = await (await fetch(`${server.url}/client.js`)).text();
      await Deno.writeTextFile(`${folder}/client.mjs`, client);
      const node = new Deno.Command("node", {
        args: [...NODE_FLAGS, "main.mjs", server.url],
        cwd: folder,
      });
      const { stdout, stderr } = await node.output();
      const [printed, complaints] = [stdout, stderr].map((one) => new TextDecoder().decode(one));
      assertEquals([printed, complaints], ["lobby a:b lobby ops\n", ""]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
