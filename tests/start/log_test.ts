import { assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { createLog, LOG_LEVELS } from "../../handlers/start/log.ts";
import { silentLog } from "../../handlers/util/log.ts";

type Method = "debug" | "info" | "warn" | "error";

/** What `task` prints, a text a call. */
function printed(task: () => void): string[] {
  const lines: string[] = [];
  const methods: Method[] = ["debug", "info", "warn", "error"];
  const originals = methods.map((method) => console[method]);
  for (const method of methods) {
    console[method] = (...values: unknown[]) => lines.push(values.join(" "));
  }
  try {
    task();
  } finally {
    methods.forEach((method, index) => console[method] = originals[index]);
  }
  return lines;
}

Deno.test("createLog() writes one line of text an event, with time and level", () => {
  const [line, ...more] = printed(() =>
    createLog("info", "text").info("Client connected: 127.0.0.1:5. Total clients: 1", {
      event: "connected",
    })
  );
  assertEquals(more, []);
  assertMatch(line, /^\d{4}-\d\d-\d\d .*INF/);
  assertMatch(line, /parley/);
  assertMatch(line, /Client connected: 127\.0\.0\.1:5\. Total clients: 1$/);
});

Deno.test("createLog() writes JSON with the fields beside the text", () => {
  const [line, ...more] = printed(() =>
    createLog("info", "json").warn("Worker 2 is silent", { event: "worker_silent", worker: 2 })
  );
  assertEquals(more, []);
  const { message, level, event, worker } = JSON.parse(line);
  assertEquals({ message, level, event, worker }, {
    message: "Worker 2 is silent",
    level: "WARN",
    event: "worker_silent",
    worker: 2,
  });
});

Deno.test("createLog() writes nothing below its level", () => {
  LOG_LEVELS.forEach((level, index) => {
    const lines = printed(() => {
      const log = createLog(level, "text");
      for (const each of LOG_LEVELS) log[each]?.(`at ${each}`);
    });
    const seen = lines.map((line) => line.slice(line.lastIndexOf("at ") + 3));
    assertEquals(seen, LOG_LEVELS.slice(index));
  });
});

Deno.test("createLog() keeps what clients wrote on one line, and braces as they are", () => {
  for (const format of ["text", "json"] as const) {
    const [line, ...more] = printed(() =>
      createLog("info", format).info('{name} {{x}} "a\nb\r\x1b[31m\x00\u0085"', { name: "Ann" })
    );
    assertEquals(more, []);
    // deno-lint-ignore no-control-regex
    assertNotMatch(line, /[\x00-\x1f\x85]/);
    const text = format === "json" ? JSON.parse(line).message : line;
    assertMatch(text, /\{name\} \{\{x\}\} "a\\x0ab\\x0d\\x1b\[31m\\x00\\x85"$/);
  }
});

Deno.test("silentLog says nothing", () => {
  const lines = printed(() => {
    for (const level of LOG_LEVELS) silentLog[level]?.("text", { event: "start" });
  });
  assertEquals(lines, []);
});
