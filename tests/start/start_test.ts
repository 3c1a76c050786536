import {
  assertEquals,
  assertGreater,
  assertLess,
  assertMatch,
  assertNotMatch,
  assertRejects,
} from "@std/assert";
import { jwtAuthorizer } from "../../handlers/access/token.ts";
import type { Health } from "../../handlers/app.ts";
import type { Output } from "../../handlers/start/line_writer.ts";
import { listen } from "../../handlers/start/listen.ts";
import { createLog, LOG_LEVELS } from "../../handlers/start/log.ts";
import { mintToken } from "../../handlers/start/mint_token.ts";
import { onSignals } from "../../handlers/start/process.ts";
import { SettingError } from "../../handlers/start/setting_error.ts";
import { defaultSettings } from "../../handlers/start/settings.ts";
import { systemClock } from "../../handlers/util/clock.ts";
import { type Log, silentLog } from "../../handlers/util/log.ts";
import { OptionError } from "../../handlers/util/option_error.ts";
import { RecordingLog } from "../support/fakes.ts";
import { nextTurn } from "../support/inbox.ts";

/** An output that a test reads: it takes what a pipe does at once, and nothing while it is stalled. */
class FakeOutput implements Output {
  text = "";
  readonly #decoder = new TextDecoder();
  #stall?: PromiseWithResolvers<void>;

  get lines(): string[] {
    return this.text.split("\n").slice(0, -1);
  }

  stall(): void {
    this.#stall = Promise.withResolvers();
  }

  resume(): void {
    this.#stall?.resolve();
    this.#stall = undefined;
  }

  async write(bytes: Uint8Array): Promise<number> {
    await this.#stall?.promise;
    const taken = bytes.subarray(0, 65_536);
    this.text += this.#decoder.decode(taken, { stream: true });
    return taken.length;
  }
}

/** What a log of this level and format writes while `task` uses it, a text a line. */
async function written(
  level: typeof LOG_LEVELS[number],
  format: "text" | "json",
  task: (log: Log) => void,
): Promise<string[]> {
  const [stdout, stderr] = [new FakeOutput(), new FakeOutput()];
  const log = createLog(level, format, { stdout, stderr });
  task(log);
  await log.flush();
  return [...stdout.lines, ...stderr.lines];
}

Deno.test("createLog() writes one line of text an event, with time and level", async () => {
  const [line, ...more] = await written("info", "text", (log) => {
    log.info("Client connected: 127.0.0.1:5. Total clients: 1", { event: "connected" });
  });
  assertEquals(more, []);
  assertMatch(line, /^\d{4}-\d\d-\d\d .*INF/);
  assertMatch(line, /parley/);
  assertMatch(line, /Client connected: 127\.0\.0\.1:5\. Total clients: 1$/);
});

Deno.test("createLog() writes JSON with the fields beside the text", async () => {
  const [line, ...more] = await written("info", "json", (log) => {
    log.warn("Worker 2 is silent", { event: "worker_silent", worker: 2 });
  });
  assertEquals(more, []);
  const { message, level, event, worker } = JSON.parse(line);
  assertEquals({ message, level, event, worker }, {
    message: "Worker 2 is silent",
    level: "WARN",
    event: "worker_silent",
    worker: 2,
  });
});

Deno.test("createLog() writes nothing below its level", async () => {
  for (const [index, level] of LOG_LEVELS.entries()) {
    const lines = await written(level, "text", (log) => {
      for (const each of LOG_LEVELS) log[each]?.(`at ${each}`);
    });
    const seen = lines.map((line) => line.slice(line.lastIndexOf("at ") + 3));
    assertEquals(seen, LOG_LEVELS.slice(index));
  }
});

Deno.test("createLog() keeps what clients wrote on one line, and braces as they are", async () => {
  for (const format of ["text", "json"] as const) {
    const [line, ...more] = await written("info", format, (log) => {
      log.info('{name} {{x}} "a\nb\r\x1b[31m\x00\u0085"', { name: "Ann" });
    });
    assertEquals(more, []);
    // deno-lint-ignore no-control-regex
    assertNotMatch(line, /[\x00-\x1f\x85]/);
    const text = format === "json" ? JSON.parse(line).message : line;
    assertMatch(text, /\{name\} \{\{x\}\} "a\\x0ab\\x0d\\x1b\[31m\\x00\\x85"$/);
  }
});

for (const format of ["text", "json"] as const) {
  Deno.test(`a ${format} log whose reader stalls drops lines, counts them and says so later`, async () => {
    const [stdout, stderr] = [new FakeOutput(), new FakeOutput()];
    const log = createLog("info", format, { stdout, stderr });
    stdout.stall();
    for (let i = 0; i < 300; i++) {
      log.info("x".repeat(8_000));
      await undefined;
    }
    assertGreater(log.droppedCount, 100);
    assertLess(log.droppedCount, 200);
    stdout.resume();
    await log.flush();
    assertEquals(stdout.lines.length, 300 - log.droppedCount);
    assertMatch(stderr.text, new RegExp(`Dropped ${log.droppedCount} log lines`));
    // What it lets wait begins anew with each flush.
    const { droppedCount } = log;
    for (let i = 0; i < 200; i++) {
      log.info("x".repeat(8_000));
      await log.flush();
    }
    log.info("again");
    await log.flush();
    assertMatch(stdout.lines.at(-1)!, /again/);
    assertEquals(log.droppedCount, droppedCount);
  });
}

Deno.test("createLog() cuts a text that a peer has made long", async () => {
  const [line] = await written("info", "text", (log) => log.info("x".repeat(20_000_000)));
  assertLess(line.length, 10_000);
});

Deno.test("a log whose output is closed counts its lines as dropped", async () => {
  const broken = { write: () => Promise.reject(new Deno.errors.BrokenPipe()) };
  const log = createLog("info", "text", { stdout: broken, stderr: new FakeOutput() });
  log.info("lost");
  await log.flush();
  assertEquals(log.droppedCount, 1);
});

Deno.test("onSignals() ends the process when all is stopped and the last lines are out", async () => {
  const { addSignalListener, exit } = Deno;
  const ended = Promise.withResolvers<void>();
  const listeners: (() => void)[] = [];
  const done: string[] = [];
  const log = {
    ...silentLog,
    droppedCount: 0,
    async flush() {
      await nextTurn();
      done.push("flush");
    },
  };
  try {
    Object.assign(Deno, {
      addSignalListener: (_signal: Deno.Signal, listener: () => void) => listeners.push(listener),
      exit(code: number) {
        done.push(`exit ${code}`);
        ended.resolve();
      },
    });
    onSignals(log, async () => {
      await nextTurn();
      done.push("stop");
    });
    listeners[0]();
    await ended.promise;
  } finally {
    Object.assign(Deno, { addSignalListener, exit });
  }
  assertEquals(done, ["stop", "flush", "exit 0"]);
});

Deno.test("listen() tells for a while that it took no connection, and then no more", async () => {
  const { serve } = Deno;
  const { after } = systemClock;
  const health: Health = {};
  const log = new RecordingLog();
  const later: (() => void)[] = [];
  const finished = Promise.reject(new Error("Too many open files"));
  const settings = { ...defaultSettings(), HOST: "127.0.0.1", PORT: 0 };
  try {
    Object.assign(Deno, {
      serve() {
        Object.assign(Deno, { serve });
        return { addr: { transport: "tcp", hostname: "127.0.0.1", port: 0 }, finished };
      },
    });
    systemClock.after = (_ms, task) => (later.push(task), () => {});
    const server = await listen({ settings, handler: () => Promise.reject(), log, health });
    await log.when("listening");
    assertEquals([health.problem, later.length], ["not accepting connections", 1]);
    later[0]();
    assertEquals(health.problem, undefined);
    systemClock.after = after;
    await server.shutdown();
  } finally {
    Object.assign(Deno, { serve });
    systemClock.after = after;
  }
});

Deno.test("silentLog has no line to make", () => {
  assertEquals(silentLog.debug, undefined);
  for (const level of ["info", "warn", "error"] as const) silentLog[level]("text");
});

Deno.test("shutdown() lets an answer under way end, and does not wait for a reader that stalls", async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<Response>();
  const pull = (body: ReadableByteStreamController) => body.enqueue(new Uint8Array(65_536));
  const server = await listen({
    settings: { ...defaultSettings(), HOST: "127.0.0.1", PORT: 0 },
    handler({ url }) {
      if (url.endsWith("/endless")) {
        return Promise.resolve(new Response(new ReadableStream({ type: "bytes", pull })));
      }
      asked.resolve();
      return answer.promise;
    },
    log: silentLog,
    health: {},
  });
  const endless = await fetch(`${server.address}/endless`);
  const slow = fetch(`${server.address}/slow`);
  await asked.promise;
  const stopped = server.shutdown();
  answer.resolve(new Response("done"));
  assertEquals(await (await slow).text(), "done");
  await stopped;
  await endless.body?.cancel();
});

const SECRET = "a secret of thirty-two bytes or more";

/** What a server that has the secret reads in a token. */
async function read(token: string, secret = SECRET) {
  const headers = { authorization: `Bearer ${token}` };
  return await jwtAuthorizer({ secret })(new Request("http://parley.test/chat", { headers }));
}

Deno.test("mintToken() makes a token that the server takes, with the rights that were asked for", async () => {
  const now = Date.now();
  const flags = "--sub ann --speak ops --listen news --publish --expires 15m".split(" ");
  const grants = await read(await mintToken([...flags, "--rooms", "ops, user:*"], SECRET, now));
  assertEquals(grants, {
    user: "ann",
    name: "ann",
    rooms: ["ops", "user:*"],
    speak: ["ops"],
    listen: ["news"],
    publish: true,
    admin: false,
    expiresAt: (Math.floor(now / 1_000) + 900) * 1_000,
  });
});

Deno.test("mintToken() reads a secret as the server does", async () => {
  const secret = `base64:${new Uint8Array(32).fill(7).toBase64()}`;
  assertEquals(
    (await read(await mintToken(["--sub", "bo"], secret, Date.now()), secret)).user,
    "bo",
  );
  await assertRejects(() => mintToken([], "short", 0), OptionError, "at least 32 are needed");
});

Deno.test("mintToken() refuses what it does not understand", async () => {
  await assertRejects(() => mintToken(["--sup", "x"], SECRET, 0), SettingError, '"--sup"');
  for (const args of [["--sub"], ["--sub="], ["--rooms="], ["--expires="]]) {
    await assertRejects(() => mintToken(args, SECRET, 0), SettingError, "its value is missing");
  }
  for (const time of ["1", "1y", "-1h", "1.5h"]) {
    const args = [`--expires=${time}`];
    await assertRejects(() => mintToken(args, SECRET, 0), SettingError, "must be like 90s");
  }
});
