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

Deno.test("Shards tells of a slot that moved once, however many commands were on their way", async () => {
  const answers: Record<string, unknown> = {
    CLUSTER: [[0, 16_383, ["a", 1]]],
    INFO: "run_id:1",
    CONFIG: {},
  };
  const client = {
    isReady: true,
    on() {},
    connect: () => Promise.resolve(),
    destroy() {},
    sendCommand: ([name]: string[]) =>
      name === "GET" ? Promise.reject(new Error("MOVED 5 b:2")) : Promise.resolve(answers[name]),
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
  await shards.firstAttempt;
  const [before, connection] = [told, shards.at(5)!];
  await Promise.all(Array.from({ length: 100 }, () => connection.send(["GET", "k"])));
  assertEquals(told - before, 1);
  assert(shards.at(5) !== connection && shards.at(6) === connection);
  await shards.close();
});
