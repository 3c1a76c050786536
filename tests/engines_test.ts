// The engines that a program gives to Parley, and errors of options.
import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  createParley,
  jwtAuthorizer,
  memoryEngine,
  OptionError,
  ParleyError,
} from "../handlers/parley.ts";
import { durableEngine, redisEngine } from "../handlers/engines.ts";
import { freePort } from "./support/process.ts";

Deno.test("durableEngine() keeps rooms over the end of a Parley", async () => {
  const folder = await Deno.makeTempDir();
  const limits = { drainSeconds: 0 };
  for (const seq of [1, 2]) {
    const engine = await durableEngine(`${folder}/parley.db`);
    await using parley = createParley({ engine, limits });
    assertEquals((await parley.publish("ops", seq)).seq, seq);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a log of one's own that throws stops no engine", async () => {
  const fail = () => {
    throw new Error("the log is broken");
  };
  const log = { info: fail, warn: fail, error: fail };
  const engine = await redisEngine(`redis://127.0.0.1:${freePort()}`, { log });
  await using parley = createParley({ engine, limits: { drainSeconds: 0 } });
  const error = await assertRejects(() => parley.publish("ops", 1), ParleyError);
  assertEquals(error.code, "unavailable");
});

Deno.test("an option that cannot be used is an OptionError with the name that the program wrote", async () => {
  const wrong: Record<string, () => unknown> = {
    allowedOrigins: () => createParley({ allowedOrigins: ["a.example"] }),
    file: () => durableEngine("/no/such/folder/parley.db"),
    jwks: () => jwtAuthorizer({ jwks: "/no/such.json" }),
    maxQueueBytes: () => createParley({ limits: { maxQueueBytes: 10 } }),
    maxRooms: () => memoryEngine({ maxRooms: NaN }),
    messageRate: () => createParley({ limits: { messageRate: -1 } }),
    prefix: () => createParley({ prefix: "rt" }),
    roomRules: () => memoryEngine({ roomRules: { "a b": {} } }),
    secret: () => jwtAuthorizer({ secret: "short" }),
    url: () => redisEngine("http://redis.example"),
  };
  for (const [option, make] of Object.entries(wrong)) {
    const error = await assertRejects(async () => await make(), OptionError);
    assertInstanceOf(error, TypeError);
    assertEquals(error.option, option);
    assertEquals(error.message, `Cannot use ${option}: ${error.reason}`);
    assertEquals(/[A-Z]_[A-Z]|--/.exec(error.message), null);
  }
});
