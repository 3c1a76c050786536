// A backend behind HOOK_URL: a real HTTP server that is asked what is said and who joins.
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createHmac } from "node:crypto";
import { urlHooks } from "../../handlers/hooks/url_hooks.ts";
import { RecordingLog } from "../support/fakes.ts";
import { hear, joinAs, nextOf, settled } from "../support/v1.ts";
import { post, startServer, type TestServer } from "../support/servers.ts";
import type { Settings } from "../../handlers/start/settings.ts";
import { eventually } from "../support/inbox.ts";
import { SECRET, sign } from "../support/jwt.ts";

/** What a backend was asked. */
interface Asked {
  event: string;
  room: string;
  name: string;
  user?: string;
  message?: unknown;
  via: string;
}

type Answer = (asked: Asked, request: Request, body: string) => Response | Promise<Response>;

const AS_IT_IS = () => Response.json({});

/** A backend; `answer` may be replaced at any time. */
function startBackend(answer: Answer = AS_IT_IS) {
  const asked: Asked[] = [];
  const ports = new Set<number>();
  const backend = { answer, asked, ports };
  const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
  const server = Deno.serve(options, async (request, { remoteAddr }) => {
    ports.add((remoteAddr as Deno.NetAddr).port);
    const body = await request.text();
    asked.push(JSON.parse(body));
    return await backend.answer(JSON.parse(body), request, body);
  });
  return Object.assign(backend, {
    url: `http://127.0.0.1:${server.addr.port}/hook`,
    [Symbol.asyncDispose]: () => server.shutdown(),
  });
}

/** A server whose backend may take its time: a busy machine refuses nothing. */
function startAsking(settings: Partial<Settings>): Promise<TestServer> {
  return startServer({ HOOK_MS: 10_000, ...settings });
}

const say = (server: TestServer, message: unknown) =>
  post(server, "/rooms/ops/messages", { message });

Deno.test("the backend is asked, in the contract's words, about joins and chats, not about notes", async () => {
  await using backend = startBackend();
  await using server = await startAsking({ HOOK_URL: backend.url, AUTH_SECRET: SECRET });
  const token = await sign({ sub: "u1", name: "Ann", publish: true });
  const ann = await joinAs("Ann", `${server.ws}/chat/ops?token=${token}`);
  ann.send({ type: "note", message: "typing" });
  ann.send({ type: "chat", message: { a: 1 }, id: "1" });
  await nextOf(ann, "ack");
  const headers = { authorization: `Bearer ${token}` };
  await post(server, "/rooms/ops/messages", { message: "x" }, headers);
  const who = { room: "ops", name: "Ann", user: "u1" };
  assertEquals(backend.asked, [
    { event: "join", ...who, via: "socket" },
    { event: "chat", ...who, message: { a: 1 }, via: "socket" },
    { event: "chat", ...who, message: "x", via: "http" },
  ]);
  assertEquals(backend.ports.size, 1, "the connection is kept alive");
  await ann[Symbol.asyncDispose]();
});

Deno.test("HOOK_EVENTS=note asks about notes alone", async () => {
  await using backend = startBackend();
  await using server = await startAsking({ HOOK_URL: backend.url, HOOK_EVENTS: ["note"] });
  const ann = await joinAs("Ann", `${server.ws}/chat/ops`);
  ann.send({ type: "chat", message: "hi" });
  ann.send({ type: "note", message: "typing" });
  await nextOf(ann, "note");
  assertEquals(backend.asked.map(({ event }) => event), ["note"]);
  await ann[Symbol.asyncDispose]();
});

Deno.test("what is asked is signed over its time and body", async () => {
  const seen: [string | null, string][] = [];
  await using backend = startBackend((_, request, body) => {
    seen.push([request.headers.get("parley-signature"), body]);
    return Response.json({});
  });
  await using server = await startAsking({ HOOK_URL: backend.url, HOOK_SECRET: "s3cret" });
  await say(server, "é");
  const [signature, body] = seen[0];
  const [, time, v1] = /^t=(\d{10}),v1=([\da-f]{64})$/.exec(signature!)!;
  assert(Math.abs(Date.now() / 1_000 - Number(time)) < 60);
  assertEquals(v1, createHmac("sha256", "s3cret").update(`${time}.${body}`).digest("hex"));
});

Deno.test("the backend's message and name count in place of what came; 403 refuses with its text", async () => {
  await using backend = startBackend(({ event, message }) => {
    if (event === "join") return Response.json({ name: "Anna" });
    if (message === "no") return Response.json({ message: "Be kind." }, { status: 403 });
    return Response.json(message === "null" ? { message: null } : { message: [message] });
  });
  await using server = await startAsking({ HOOK_URL: backend.url });
  const ann = await joinAs("Anna", `${server.ws}/chat/ops`);
  for (const message of ["a", "no", "null"]) ann.send({ type: "chat", message });
  assertEquals((await nextOf(ann, "chat")).message, ["a"]);
  const { code, message } = await nextOf(ann, "error");
  assertEquals([code, message], ["refused", "Be kind."]);
  const last = await nextOf(ann, "chat");
  assertEquals([last.message, last.sender], [null, "Anna"]);
  const { status, answer } = await say(server, "no");
  assertEquals([status, answer.code, answer.message], [403, "refused", "Be kind."]);
  await ann[Symbol.asyncDispose]();
});

/** Answers outside the grammar, and what the log says of them. */
const GARBAGE: [string, () => Response, RegExp][] = [
  ["text", () => new Response("ok"), /answered 200 with ok$/],
  ["nothing", () => new Response(null, { status: 204 }), /answered 204 with no body$/],
  ["a list", () => Response.json([]), /answered 200 with \[\]/],
  ["another status", () => Response.json({}, { status: 404 }), /answered 404/],
  ["a redirect", () => new Response(null, { status: 302, headers: { location: "/x" } }), /302/],
  [
    "a number that no double holds",
    () => new Response('{"message":0.1000000000000000056}'),
    /inexact/,
  ],
  ["403 without a text", () => Response.json({}, { status: 403 }), /answered 403/],
  ["too much", () => new Response(new Uint8Array(300_000)), /over 197632 bytes/],
  [
    "a message that is too big",
    () => Response.json({ message: "x".repeat(70_000) }),
    /70002 bytes/,
  ],
];
Deno.test("an answer outside the grammar refuses with Server error. and costs one line", async () => {
  await using backend = startBackend();
  await using server = await startAsking({ HOOK_URL: backend.url });
  for (const [what, answer, line] of GARBAGE) {
    backend.answer = answer;
    const { status, answer: { code, message } } = await say(server, "x");
    assertEquals([what, status, code, message], [what, 403, "refused", "Server error."]);
    const lines = server.log.of("hook");
    assertEquals([what, lines.length], [what, 1 + GARBAGE.findIndex(([one]) => one === what)]);
    assertMatch(lines.at(-1)!.text, line);
  }
});

Deno.test("a backend that is down, fails or is slow makes unavailable, and one line each way", async () => {
  const hang = Promise.withResolvers<void>();
  await using backend = startBackend(() => new Response("oops", { status: 503 }));
  await using server = await startAsking({ HOOK_URL: backend.url, HOOK_MS: 50 });
  const { client: ann } = await hear(`${server.ws}/chat/ops`);
  for (const answer of [backend.answer, () => hang.promise.then(AS_IT_IS)]) {
    backend.answer = answer;
    const { status, answer: { code } } = await say(server, "x");
    assertEquals([status, code], [503, "unavailable"]);
    ann.send({ type: "join", name: "Ann" });
    assertEquals((await nextOf(ann, "error")).code, "unavailable");
  }
  hang.resolve();
  backend.answer = AS_IT_IS;
  let count = 4;
  await eventually(() => say(server, "x"), ({ status }) => status === 202 || ++count < 0);
  assertEquals(server.log.of("hook_down").length, 1);
  assertEquals(server.log.of("hook_up").length, 1);
  const figures = await (await fetch(`${server.url}/metrics`)).text();
  assertStringIncludes(figures, `parley_hook_calls_total{outcome="unavailable"} ${count}\n`);
  assertMatch(figures, /parley_hook_calls_total\{outcome="passed"\} 1\n/);
  assertMatch(figures, /parley_hook_seconds_total [\d.]+\n[^]*parley_hook_waiting 0\n/);
  await ann[Symbol.asyncDispose]();
});

Deno.test("nobody listens at HOOK_URL: unavailable, and its password stays out of the log", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const url = `http://ann:hidden@127.0.0.1:${listener.addr.port}/`;
  listener.close();
  await using server = await startAsking({ HOOK_URL: url });
  assertEquals((await say(server, "x")).answer.code, "unavailable");
  const [{ text }] = server.log.of("hook_down");
  assertMatch(text, /^The hooks' backend is down: /);
  assertEquals(text.includes("hidden"), false);
});

Deno.test("a sender's messages keep their order behind a slow backend; others don't wait; bytes are refused", async () => {
  const first = Promise.withResolvers<Response>();
  await using backend = startBackend(({ message }) =>
    message === 1 ? first.promise : Response.json({})
  );
  await using server = await startAsking({ HOOK_URL: backend.url });
  const ann = await joinAs("Ann", `${server.ws}/chat/ops`);
  const bo = await joinAs("Bo", `${server.ws}/chat/ops`);
  for (const message of [1, 2, 3]) ann.send({ type: "chat", message });
  bo.send({ type: "chat", message: "Bo" });
  assertEquals((await nextOf(bo, "chat")).message, "Bo");
  first.resolve(Response.json({}));
  for (const message of [1, 2, 3]) assertEquals((await nextOf(bo, "chat")).message, message);
  await settled(ann);
  ann.send(new Uint8Array([1]));
  assertEquals((await nextOf(ann, "error")).code, "forbidden");
  await ann[Symbol.asyncDispose]();
  await bo[Symbol.asyncDispose]();
});

Deno.test("beyond 1,000 that wait for the backend the next one is unavailable at once", async () => {
  const open = Promise.withResolvers<void>();
  await using backend = startBackend(async () => {
    await open.promise;
    return Response.json({});
  });
  const limits = { maxMessageBytes: 100, maxWaiting: 3, timeoutMs: 10_000 };
  const log = new RecordingLog();
  const hooks = urlHooks({ url: backend.url, events: ["join"], ...limits, log });
  const from = { room: "ops", name: "Ann", via: "socket" } as const;
  const all = Array.from({ length: 3 }, () => hooks.onJoin!(from));
  const error = await Promise.resolve(hooks.onJoin!(from)).catch((error) => error);
  assertEquals(error.name, "HookUnavailable");
  open.resolve();
  assertEquals(await Promise.all(all), [undefined, undefined, undefined]);
});

Deno.test("a server that ends answers what waits for its backend", async () => {
  const answer = Promise.withResolvers<Response>();
  const asked = Promise.withResolvers<void>();
  await using backend = startBackend(() => {
    asked.resolve();
    return answer.promise;
  });
  const server = await startAsking({ HOOK_URL: backend.url });
  const posted = say(server, "x");
  await asked.promise;
  await server[Symbol.asyncDispose]();
  assertEquals((await posted).status, 503);
  answer.resolve(Response.json({}));
});
