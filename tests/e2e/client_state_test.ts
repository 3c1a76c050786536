/** The state of the real client on a real server, through cuts and over a restart. */
import { assertEquals } from "@std/assert";
import { connect, type ParleyError } from "../../handlers/client/client.js";
import { eventually } from "../support/inbox.ts";
import { Proxy } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis_server.ts";
import { startServer } from "../support/servers.ts";

for (const engine of ["memory", "durable", "redis"]) {
  const name = `the client's state on a ${engine} engine is right after cuts and a restart`;
  Deno.test({ name, ignore: engine === "redis" && !hasRedis }, async () => {
    await using stack = new AsyncDisposableStack();
    const settings: Record<string, string | number> = { JOIN_RATE: 0 };
    if (engine === "redis") settings.REDIS_URL = stack.use(await RedisServer.start()).url;
    if (engine === "durable") {
      const folder = await Deno.makeTempDir();
      stack.defer(() => Deno.remove(folder, { recursive: true }));
      settings.DATA_FILE = `${folder}/parley.db`;
    }
    const { random } = Math;
    Math.random = () => 0.01;
    stack.defer(() => void (Math.random = random));
    let server = await startServer(settings);
    stack.defer(() => server[Symbol.asyncDispose]());
    const proxy = stack.use(new Proxy(Number(new URL(server.url).port)));
    const errors: ParleyError[] = [];
    let lost = Promise.withResolvers<void>();
    const enter = (name?: string) => {
      const client = connect(`ws://127.0.0.1:${proxy.port}/chat/game`, {
        name,
        state: true,
        onConnection: (now) => name === "Ann" && now === "reconnecting" && lost.resolve(),
        onError: (error) => errors.push(error),
      });
      stack.defer(() => client.close());
      return client;
    };
    const [ann, bob, viewer] = [enter("Ann"), enter("Bob"), enter()];
    const all = async (expected: Record<string, unknown>) => {
      for (const { state } of [ann, bob, viewer]) {
        const map = () => JSON.stringify(Object.fromEntries([...state()].sort()));
        await eventually(map, (text) => text === JSON.stringify(expected));
      }
    };

    const { rev } = await ann.set("turn", "Ann", { if: 0, bind: true });
    await ann.set("player/Ann", { x: 1 }, { bind: true });
    await bob.set("score", 7);
    await all({ "player/Ann": { x: 1 }, "score": 7, "turn": "Ann" });
    assertEquals(viewer.entry("turn")?.rev, rev);
    const refusal = await bob.set("turn", "Bob", { if: 0 }).catch((error: ParleyError) => error);
    assertEquals([(refusal as ParleyError).code, refusal.rev], ["rev_conflict", rev]);

    for (const x of [2, 4, 6]) {
      lost = Promise.withResolvers();
      proxy.cutAll();
      await lost.promise;
      const replaced = ann.set("player/Ann", { x }, { bind: true });
      const last = ann.set("player/Ann", { x: x + 1 }, { bind: true });
      assertEquals(await replaced, await last, "one that waits is replaced by a later one");
      await all({ "player/Ann": { x: x + 1 }, "score": 7, "turn": "Ann" });
    }

    lost = Promise.withResolvers();
    proxy.cut();
    await lost.promise;
    await server[Symbol.asyncDispose]();
    server = await startServer(settings);
    proxy.targetPort = Number(new URL(server.url).port);
    const kept = engine === "memory" ? {} : { score: 7 };
    proxy.heal();
    await all({ "player/Ann": { x: 7 }, ...kept, "turn": "Ann" });

    ann.close();
    const others = () => JSON.stringify([bob, viewer].map(({ state }) => [...state()]));
    const expected = JSON.stringify([kept, kept].map(Object.entries));
    await eventually(others, (text) => text === expected);
    assertEquals(errors, []);
  });
}
