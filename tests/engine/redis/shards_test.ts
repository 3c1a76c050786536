import { assert, assertEquals, assertThrows } from "@std/assert";
import { type ShardOptions, Shards, slotOf } from "../../../handlers/engine/redis/shards.ts";
import { parseRedisUrl } from "../../../handlers/engine/redis/url.ts";
import { silentLog } from "../../../handlers/util/log.ts";
import { FakeClock } from "../../support/fakes.ts";

Deno.test("slotOf() is the slot of the specification, with the hash tag's first", () => {
  assertEquals(slotOf("123456789"), 0x31c3);
  assertEquals(slotOf("foo"), 12_182);
  assertEquals(slotOf("parley:{foo}:log"), slotOf("foo"));
});

Deno.test("parseRedisUrl() takes one server, several, and Sentinel", () => {
  const read = (url: string) => {
    const { kind, seeds, primary, database, urlOf } = parseRedisUrl(url);
    return [kind, seeds.join(" "), primary, database, urlOf("x:1")];
  };
  for (const path of ["", "/", "/0", "/00"]) {
    assertEquals(read(`redis://h${path}`), ["single", "redis://h/0", "", 0, "redis://x:1/0"]);
  }
  assertEquals(read("rediss://u:p@h:1/02"), [
    "single",
    "rediss://u:p@h:1/2",
    "",
    2,
    "rediss://u:p@x:1/2",
  ]);
  assertEquals(read("redis://:p@a:1,b:2,[::1]:3"), [
    "cluster",
    "redis://:p@a:1 redis://:p@b:2 redis://:p@[::1]:3",
    "",
    0,
    "redis://:p@x:1",
  ]);
  assertEquals(read("redis+sentinel://:p@a:1,b:2/main/3"), [
    "sentinel",
    "redis://a:1 redis://b:2",
    "main",
    3,
    "redis://:p@x:1/3",
  ]);
  assertEquals(read("redis+sentinel://a/main").slice(2, 4), ["main", 0]);
  const { urlOf } = parseRedisUrl("redis://a,b");
  assertEquals(["2001:db8::1:2", "[::1]:2"].map(urlOf), [
    "redis://[2001:db8::1]:2",
    "redis://[::1]:2",
  ]);
});

Deno.test("parseRedisUrl() refuses anything else, and does not repeat it", () => {
  const unfit = [
    "",
    "secret",
    "http://:secret@h",
    "redis://:secret@h/a",
    "redis://:secret@h/1/2",
    "redis://:secret@a,b/1",
    "redis://:secret@a,:b",
    "redis+sentinel://:secret@h",
  ];
  for (const url of unfit) {
    const error = assertThrows(() => parseRedisUrl(url), TypeError, "Cannot use url");
    assert(!error.message.includes("secret"));
  }
});

/** A cluster of two servers, that answer so: first the first command that has no answer of its own, and so on. */
function startShards(...next: (unknown | Error)[]) {
  const answers: Record<string, unknown> = {
    CLIENT: 1,
    SCRIPT: "sha",
    CLUSTER: [[0, 16_383, ["a", 1]]],
    INFO: "run_id:1",
    CONFIG: {},
  };
  const client = {
    isReady: true,
    on() {},
    connect: () => Promise.resolve(),
    destroy() {},
    sSubscribe: () => Promise.resolve(),
    sendCommand([name]: string[]) {
      const answer = name in answers ? answers[name] : next.length > 1 ? next.shift() : next[0];
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
  };
  let told = 0;
  const shards = new Shards({
    createClient: (() => client) as unknown as ShardOptions["createClient"],
    url: parseRedisUrl("redis://a:1,b:2"),
    clock: new FakeClock(),
    log: silentLog,
    onConnect() {},
    onPush() {},
    onUnsubscribed() {},
    onTopology: () => told++,
  });
  return { shards, told: () => told };
}

Deno.test("Shards tells of a slot that moved once, however many commands were on their way", async () => {
  const { shards, told } = startShards(new Error("MOVED 5 b:2"));
  await shards.firstAttempt;
  const [before, connection] = [told(), shards.at(5)!];
  await Promise.all(Array.from({ length: 100 }, () => connection.send(["GET", "k"])));
  assertEquals(told() - before, 1);
  assert(shards.at(5) !== connection && shards.at(6) === connection);
  await shards.close();
});

for (
  const [what, answers] of [
    ["a refused subscription's", [new Error("MOVED 5 b:2"), "in step", "of the first"]],
    ["a dropped subscription's", ["in step", undefined, "of the first"]],
  ] as const
) {
  Deno.test(`RedisConnection gives no command the answer to another, if one was taken for ${what}`, async () => {
    const { shards } = startShards(...answers);
    await shards.firstAttempt;
    const connection = shards.at(5)!;
    connection.subscribe(["c"]);
    const given = await Promise.all([connection.send(["GET", "a"]), connection.send(["GET", "b"])]);
    assertEquals([given, connection.isConnected], [[undefined, undefined], false]);
    await shards.close();
  });
}

Deno.test("Shards.onTick() looks at the cluster every 25 ticks, though nothing points to a move", async () => {
  const { shards, told } = startShards();
  await shards.firstAttempt;
  for (const [ticks, looks] of [[24, 1], [1, 2], [25, 3]]) {
    for (let i = 0; i < ticks; i++) shards.onTick();
    await new Promise((resolve) => setTimeout(resolve));
    assertEquals(told(), looks);
  }
  await shards.close();
});
