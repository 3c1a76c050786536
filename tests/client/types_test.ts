/** The types that a person's own program gets of the served client: with `tsc` and with Deno. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { ROOT } from "../support/process.ts";
import { startServer } from "../support/servers.ts";

const TSC = "npm:typescript@7.0.2/tsc";
const STRICT = "--noEmit --strict --target es2024 --lib es2024,dom,dom.iterable".split(" ");

/** What a person writes; each marked line is a mistake that the types find. */
const program = (module: string) => `
import { type Client, connect, type Message, ParleyError, type Receipt } from "${module}";

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

async function deno(args: string[], cwd: string): Promise<[success: boolean, printed: string]> {
  const command = new Deno.Command(Deno.execPath(), { args, cwd, env: { NO_COLOR: "1" } });
  const { success, stdout, stderr } = await command.output();
  return [success, new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr)];
}

Deno.test("a TypeScript program checks against the served client with tsc and with Deno", async () => {
  await using server = await startServer();
  const folder = await Deno.makeTempDir();
  try {
    for (const name of ["client.js", "client.d.ts"]) {
      const response = await fetch(`${server.url}/${name}`);
      assertEquals(response.status, 200, name);
      await Deno.writeTextFile(`${folder}/${name}`, await response.text());
    }
    await Deno.writeTextFile(`${folder}/beside.ts`, program("./client.js"));
    await Deno.writeTextFile(`${folder}/package.json`, `{ "type": "module" }`);
    await Deno.writeTextFile(`${folder}/remote.ts`, program(`${server.url}/client.js`));
    const checks = {
      "tsc, as Node resolves": [
        "run",
        "-A",
        "--no-lock",
        TSC,
        ...STRICT,
        "--module",
        "nodenext",
        "beside.ts",
      ],
      "tsc, as bundlers resolve": [
        ...["run", "-A", "--no-lock", TSC, ...STRICT, "--module", "esnext"],
        ...["--moduleResolution", "bundler", "beside.ts"],
      ],
      "Deno, files": ["check", "--no-lock", "beside.ts"],
      "Deno, from the server": [
        ...["check", "--no-lock", "--no-config", `--allow-import=${new URL(server.url).host}`],
        "remote.ts",
      ],
    };
    for (const [what, args] of Object.entries(checks)) {
      const [success, printed] = await deno(args, folder);
      assertEquals(success, true, `${what}: ${printed}`);
    }
    await Deno.writeTextFile(`${folder}/wrong.ts`, `import { conect } from "./client.js";\n`);
    const [success, printed] = await deno(
      ["run", "-A", "--no-lock", TSC, ...STRICT, "wrong.ts"],
      folder,
    );
    assertEquals(success, false);
    assertStringIncludes(printed, "conect");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("client.js itself keeps to client.d.ts and to its JSDoc types", async () => {
  const args = [
    ...["run", "-A", "--no-lock", TSC, ...STRICT, "--allowJs", "--checkJs", "--module", "esnext"],
    ...["--moduleResolution", "bundler", "handlers/client/client.js"],
  ];
  const [success, printed] = await deno(args, ROOT);
  assertEquals(success, true, printed);
});
