/** Many messages at once: `POST /rooms/messages`. `handlers/README.md`, HTTP. */
import { assertEquals } from "@std/assert";
import { createTestApp, infoOf, type TestAppOptions } from "../support/fakes.ts";
import { eventually } from "../support/inbox.ts";
import { range } from "../support/v1.ts";

/** A server of fakes, and batches for it. */
function batches(options: TestAppOptions = {}) {
  const made = createTestApp({ ...options, settings: { POST_RATE: 0, ...options.settings } });
  const ask = (body: unknown, type = "application/json") =>
    made.ask("/rooms/messages", {
      method: "POST",
      headers: { "content-type": type },
      body: typeof body === "string" ? body : JSON.stringify(body),
    }, infoOf("192.0.2.1"));
  const publish = async (...messages: unknown[]) => {
    const response = await ask({ messages });
    assertEquals(response.status, 200);
    return (await response.json()).results;
  };
  const read = async (room: string) => {
    const { messages } = await (await made.ask(`/rooms/${room}/messages`)).json();
    return messages.map((
      { seq, sender, message }: Record<string, unknown>,
    ) => [seq, sender, message]);
  };
  const refusal = async (body: unknown, type?: string) => {
    const response = await ask(body, type);
    return [response.status, (await response.json()).code];
  };
  return { ...made, publish, read, refusal };
}

Deno.test("a batch publishes to each room in its order, and answers in the same", async () => {
  const { publish, read } = batches();
  const results = await publish(
    { room: "a", message: 1, sender: "Ann" },
    { room: "b", message: { any: ["JSON"] } },
    { room: "a" },
    { room: "a", message: 3 },
  );
  assertEquals(results.map(({ room, seq }: { room: string; seq: number }) => [room, seq]), [
    ["a", 1],
    ["b", 1],
    ["a", 2],
    ["a", 3],
  ]);
  assertEquals(Object.keys(results[0]), ["room", "epoch", "seq"]);
  assertEquals(await read("a"), [[1, "Ann", 1], [2, "Anonymous", ""], [3, "Anonymous", 3]]);
  assertEquals(await read("b"), [[1, "Anonymous", { any: ["JSON"] }]]);
});

Deno.test("what is refused in a batch stops no other", async () => {
  const { publish, read, registry } = batches({ settings: { MAX_MESSAGE_BYTES: 100 } });
  const results = await publish(
    { room: "a b", message: 1 },
    { message: 1 },
    "nothing",
    null,
    { room: "_stats", message: 1 },
    { room: "a", message: 1, sender: "Ann\nBob" },
    { room: "a", message: "x".repeat(99) },
    { room: "a", message: 1, key: "" },
    { room: "a", message: 1, key: 7 },
    { room: "a", message: "good" },
  );
  const shown = results.map(({ room, error, seq }: Record<string, unknown>) => [
    room,
    (error as { code: string } | undefined)?.code ?? seq,
  ]);
  assertEquals(shown, [
    ["a b", "bad_room"],
    ["", "bad_room"],
    ["", "bad_message"],
    ["", "bad_message"],
    ["_stats", "forbidden"],
    ["a", "bad_name"],
    ["a", "too_big"],
    ["a", "bad_key"],
    ["a", "bad_key"],
    ["a", 1],
  ]);
  assertEquals(results[0].error, { code: "bad_room", message: "Invalid room name." });
  assertEquals(await read("a"), [[1, "Anonymous", "good"]]);
  assertEquals(registry.counters.refusals.bad_room, 2);
});

Deno.test("a key in a batch counts once, in the batch and over batches", async () => {
  const { publish, read } = batches();
  const one = { room: "a", message: 1, key: "k1" };
  const other = { ...one, message: 2 };
  const places = (await publish(one, one, { ...one, room: "b" }, other)).map((
    { seq, error }: { seq?: number; error?: { code: string } },
  ) => seq ?? error?.code);
  assertEquals(places, [1, 1, 1, "conflict"]);
  const long = { room: "a", message: 3, key: "k".repeat(255) };
  assertEquals((await publish(one, long, long)).map(({ seq }: { seq: number }) => seq), [1, 2, 2]);
  assertEquals(await read("a"), [[1, "Anonymous", 1], [2, "Anonymous", 3]]);
});

Deno.test("each entry of a batch counts for POST_RATE, and the rest goes on when there is more", async () => {
  const { publish, clock } = batches({ settings: { POST_RATE: 3 } });
  const codes = async (count: number) => {
    const results = await publish(...range(1, count).map((message) => ({ room: "a", message })));
    return results.map(({ seq, error }: { seq?: number; error?: { code: string } }) =>
      seq ?? error?.code
    );
  };
  assertEquals(await codes(5), [1, 2, 3, "rate_limited", "rate_limited"]);
  clock.tick(1_000);
  assertEquals(await codes(1), [4]);
});

Deno.test("a batch has at most 1,000 messages and 1 MiB", async () => {
  const { publish, refusal, read } = batches({ settings: { HISTORY_SIZE: 2_000 } });
  const entries = (count: number) => range(1, count).map((message) => ({ room: "a", message }));
  assertEquals((await publish(...entries(1_000))).length, 1_000);
  assertEquals((await read("a")).at(-1), [1_000, "Anonymous", 1_000]);
  assertEquals(await refusal({ messages: entries(1_001) }), [413, "too_big"]);
  const long = { room: "a", message: "x".repeat(60_000) };
  assertEquals(await refusal({ messages: Array(18).fill(long) }), [413, "too_big"]);
  assertEquals((await publish(...Array(17).fill(long))).at(-1).seq, 1_017);
  assertEquals(await publish(), []);
});

Deno.test("a body that is no batch is refused as a whole", async () => {
  const { refusal, registry } = batches();
  assertEquals(await refusal("{"), [400, "bad_json"]);
  for (const body of ["[]", "null", {}, { messages: {} }, { messages: null }]) {
    assertEquals(await refusal(body), [400, "bad_message"]);
  }
  assertEquals(await refusal({ messages: [] }, "text/plain"), [415, "bad_type"]);
  registry.isDraining = true;
  assertEquals(await refusal({ messages: [] }), [503, "draining"]);
});

Deno.test("a batch needs `publish`, and each entry the right to speak; the token's name is the sender", async () => {
  let publish = false;
  const authorize = () => ({ name: "Ann", rooms: ["a"], publish });
  const server = batches({ authorize });
  const entries = [{ room: "a", message: 1, sender: "Bob" }, { room: "b", message: 2 }];
  assertEquals(await server.refusal({ messages: entries }), [403, "forbidden"]);
  publish = true;
  const [one, two] = await server.publish(...entries);
  assertEquals([one.seq, two.error.code], [1, "forbidden"]);
  assertEquals(await server.read("a"), [[1, "Ann", 1]]);
});

Deno.test("entries keep their order with an engine that answers late", async () => {
  const { publish, read, app } = batches();
  const calls: PromiseWithResolvers<void>[] = [];
  const engine = app.registry.engineOf("");
  const { publish: direct } = engine;
  engine.publish = (room, draft) => {
    const call = Promise.withResolvers<void>();
    calls.push(call);
    const outcome = direct.call(engine, room, draft);
    return call.promise.then(() => outcome);
  };
  const answer = publish(...range(1, 5).map((message) => ({ room: "a", message })));
  await eventually(() => calls.length, (count) => count === 5);
  for (const call of calls.toReversed()) call.resolve();
  assertEquals((await answer).map(({ seq }: { seq: number }) => seq), range(1, 5));
  assertEquals(
    (await read("a")).map(([seq, , message]: number[]) => [seq, message]),
    range(1, 5).map((n) => [n, n]),
  );
});

Deno.test("a room may be called `messages`: GET is the room, POST the batch", async () => {
  const { ask, publish } = batches();
  await publish({ room: "messages", message: 1 });
  assertEquals(await (await ask("/rooms/messages")).json(), {
    room: "messages",
    members: 0,
    listeners: 0,
    seq: 1,
  });
  const refused = await ask("/rooms/messages", { method: "PUT" });
  await refused.body?.cancel();
  assertEquals([refused.status, refused.headers.get("allow")], [405, "GET, HEAD, POST"]);
  const preflight = await ask("/rooms/messages", { method: "OPTIONS" });
  assertEquals(preflight.headers.get("access-control-allow-methods"), "GET, HEAD, POST");
});
