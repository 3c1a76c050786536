// A backend in Python, of the standard library alone: it answers hooks and follows who comes and goes.
import { assertEquals, assertMatch } from "@std/assert";
import { SECRET, sign } from "../support/jwt.ts";
import { post } from "../support/servers.ts";
import { freePort, ServerProcess, TestProcess } from "../support/process.ts";
import { hear, joinAs, nextOf } from "../support/v1.ts";

const PYTHON = await new Deno.Command("python3", { args: ["--version"], stdout: "null" })
  .output().then(({ success }) => success, () => false);
const CURE = PYTHON ? "" : " (needs python3: apt-get install python3)";

Deno.test({
  name: "a backend in Python answers signed hooks and follows _events over restarts of both" + CURE,
  ignore: !PYTHON,
  async fn() {
    const folder = await Deno.makeTempDir();
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => Deno.remove(folder, { recursive: true }));
    const TOKEN = await sign({ sub: "backend", admin: true, publish: true });
    const port = freePort();
    const PARLEY = `http://127.0.0.1:${port}`;
    const env = { TOKEN, PARLEY, HOOK_SECRET: "s3cret" };
    const backend = cleanup.use(
      new TestProcess("exec python3 tests/examples/hook_backend.py 0", { env }),
    );
    const [, HOOK_URL] = /at (\S+)/.exec(await backend.line(/asked at/))!;
    const start = () =>
      ServerProcess.start(["--host", "127.0.0.1", "--port", `${port}`, "--drain-seconds", "0"], {
        env: {
          HOOK_URL,
          HOOK_SECRET: "s3cret",
          HOOK_MS: "10000",
          EVENTS: "join,leave,occupied,vacated",
          AUTH_SECRET: SECRET,
          DATA_FILE: `${folder}/rooms.db`,
        },
      });
    const follow = () =>
      new TestProcess(
        `exec python3 tests/examples/events_follower.py ${PARLEY} ${folder}/position.json`,
        { env },
      );
    const first = cleanup.use(await start());
    // One that nobody else can ask.
    const forged = await fetch(HOOK_URL, { method: "POST", body: "{}" });
    assertEquals([forged.status, await forged.text()], [401, "{}"]);

    let follower = cleanup.use(follow());
    const watch = await hear(`${first.ws}/chat/_events?token=${TOKEN}`);
    cleanup.use(watch.client);
    const token = await sign({ sub: "ann", name: "Ann", publish: true });
    // The follower hears from its connection on.
    await first.line(/Client connected.*clients: 2/);
    const ann = cleanup.use(await joinAs("Ann", `${first.ws}/chat/ops?token=${token}`));
    ann.send({ type: "chat", message: "damn" });
    assertEquals((await nextOf(ann, "chat")).message, "d***");
    assertMatch(await follower.line(/"event": "join"/), /"name": "Ann", "members": 1/);

    // While the follower is away.
    await follower[Symbol.asyncDispose]();
    ann.send({ type: "leave" });
    await nextOf(watch.client, "chat");
    const root = await sign({ sub: "root", name: "root" });
    const { client: nobody } = await hear(`${first.ws}/chat/ops?token=${root}`);
    cleanup.use(nobody);
    nobody.send({ type: "join", name: "root" });
    assertEquals((await nextOf(nobody, "error")).message, "Not this name.");
    const bearer = { authorization: `Bearer ${token}` };
    const { status } = await post({ url: PARLEY }, "/rooms/ops/messages", { message: 1 }, bearer);
    assertEquals(status, 202);
    follower = cleanup.use(follow());
    await follower.line(/"event": "vacated"/);
    // What was said before may come again, if it ended before it had written down that it heard it.
    const ofAnn = follower.lines("stdout").map(eventOf);
    assertEquals(ofAnn.slice(-2), ["leave ops Ann", "vacated ops"]);

    // The server is killed with Bo in a room, and started again.
    const bo = await sign({ sub: "bo", name: "Bo" });
    cleanup.use(await joinAs("Bo", `${first.ws}/chat/ops?token=${bo}`));
    await follower.line(/"name": "Bo"/);
    first.kill("SIGKILL");
    await first.status;
    cleanup.use(await start());
    await follower.line(/"event": "vacated"/, 2);
    assertEquals(follower.lines("stdout").slice(ofAnn.length).map(eventOf), [
      "occupied ops",
      "join ops Bo",
      "leave ops Bo",
      "vacated ops",
    ]);
  },
});

function eventOf(line: string): string {
  const { event, room, name } = JSON.parse(line);
  return [event, room, name].filter(Boolean).join(" ");
}
