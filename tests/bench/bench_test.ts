import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { load, type LoadSpec } from "./load.ts";
import { LineReader } from "./line_reader.ts";
import { measureRow } from "./measure.ts";
import { readOptions } from "./options.ts";
import type { RowResult } from "./results.ts";
import { ROWS } from "./rows.ts";
import { SERVERS } from "./servers.ts";
import { report } from "./table.ts";
import { judgeTargets } from "./targets.ts";

const TINY: Omit<LoadSpec, "address"> = {
  path: "/chat/bench",
  dialect: "plain",
  listeners: 3,
  senders: 2,
  text: { bytes: 64 },
  work: "closed",
  checkedRounds: 1,
  warmupSeconds: 0.02,
  seconds: 0.05,
  stallSeconds: 0.2,
};

/** A chat server whose `deliver` may misbehave: it gets one listener's number, its sender and a text. */
function fakeServer(
  deliver: (listener: number, send: (text: string) => void, text: string) => void,
) {
  const rooms = new Map<string, WebSocket[]>();
  return Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
    const { socket, response } = Deno.upgradeWebSocket(request);
    const sockets = rooms.get(request.url) ?? [];
    rooms.set(request.url, sockets);
    let sender = "";
    socket.onopen = () => sockets.push(socket);
    socket.onmessage = ({ data }) => {
      const { type, name, message } = JSON.parse(data);
      if (type === "join") sender = name;
      const object = type === "join"
        ? { type: "status", message: `${sender} joined the chat.` }
        : { type, sender, message };
      for (const [listener, socket] of sockets.entries()) {
        deliver(listener, (text) => socket.send(text), JSON.stringify(object));
      }
    };
    return response;
  });
}

/** `deliver` that calls `fault` for the 30th text of listener 1. */
function faulty(fault: (send: (text: string) => void, text: string) => void) {
  let count = 0;
  return (listener: number, send: (text: string) => void, text: string) => {
    if (listener === 1 && ++count === 30) fault(send, text);
    else send(text);
  };
}

async function loadOn(server: Deno.HttpServer<Deno.NetAddr>) {
  try {
    return await load({ ...TINY, address: server.addr.port });
  } finally {
    await server.shutdown();
  }
}

Deno.test("load() counts what a faultless server delivers", async () => {
  const result = await loadOn(fakeServer((_, send, text) => send(text)));
  assertEquals(result.delivered > 0, true);
  assertEquals(result.delivered % 3, 0);
  assertEquals(result.parsed, 0);
});

Deno.test("load() talks in several rooms by turns, and each hears its own", async () => {
  const server = fakeServer((_, send, text) => send(text));
  try {
    const spec = { ...TINY, rooms: 3, work: "open", perSecond: 3_000 } as const;
    const { latency, connections } = await load({ ...spec, address: server.addr.port });
    assertEquals([connections, latency!.max > 0], [0, true]);
  } finally {
    await server.shutdown();
  }
});

Deno.test("load() fails when a listener misses a message", async () => {
  const server = fakeServer(faulty(() => {}));
  const error = await assertRejects(() => loadOn(server), Error);
  assertMatch(error.message, /listener 1.*(missed|short of)/);
});

Deno.test("load() fails when a listener hears a message twice", async () => {
  const server = fakeServer(faulty((send, text) => {
    send(text);
    send(text);
  }));
  const error = await assertRejects(() => loadOn(server), Error);
  assertMatch(error.message, /listener 1.*repeated/);
});

Deno.test("load() fails when a listener hears two messages in another order", async () => {
  let held: string | undefined;
  let count = 0;
  const server = fakeServer((listener, send, text) => {
    if (listener !== 1) return send(text);
    count++;
    // Held back until the next one passed it.
    if (count === 30) held = text;
    else send(text);
    if (count === 31 && held) send(held);
  });
  const error = await assertRejects(() => loadOn(server), Error);
  assertMatch(error.message, /order|missed/);
});

Deno.test("load() fails when the last message is missing", async () => {
  let muted = false;
  const server = fakeServer((listener, send, text) => {
    if (listener !== 2 || !muted) send(text);
    if (listener === 2 && text.includes("s1")) muted = !text.includes("joined");
  });
  const error = await assertRejects(() => loadOn(server), Error);
  assertMatch(error.message, /listener 2 (is short|heard)|listener 2: .*missed/);
});

Deno.test("the load generator measures the bare control in a process of its own", async () => {
  const server = SERVERS.find(({ name }) => name === "control")!;
  const row = ROWS.find(({ name }) => name === "chat 32x32")!;
  const effort = { turns: 1, retries: 0, warmupSeconds: 0.1, seconds: 0.2 };
  const { runs, failures } = await measureRow(row, [server], effort, () => {});
  assertEquals(failures, []);
  assertEquals(runs.control[0].perSecond > 1000, true);
  const twice = { ...effort, turns: 2 };
  const late = await measureRow(row, [server], twice, () => {}, { until: performance.now() });
  assertEquals([late.runs.control.length, late.failures], [1, []]);
});

Deno.test("report() shows no figure of a row whose client was short of a message", () => {
  const row = ROWS.find(({ name }) => name === "chat 32x32")!;
  const results: RowResult[] = [{
    row,
    runs: { control: [{ perSecond: 123 }], parley: [{ perSecond: 456 }] },
    failures: ["Bun: listener 3 is short of 1 of 9 messages"],
  }];
  const text = report(results, SERVERS);
  assertMatch(text, /FAILED.*chat 32x32: Bun: listener 3 is short/);
  assertEquals(/123|456/.test(text), false);
  assertEquals(judgeTargets(results), []);
});

Deno.test("judgeTargets() holds medians against the bounds", () => {
  const row = ROWS.find(({ name }) => name === "chat 200x200")!;
  const runs = (...values: number[]) => values.map((perSecond) => ({ perSecond }));
  const verdicts = judgeTargets([{
    row,
    runs: {
      control: runs(100, 90, 500),
      parley: runs(94, 1, 1000),
      bun: runs(10),
      "parley-v1": runs(25),
    },
    failures: [],
  }]);
  assertEquals(verdicts.map(({ met }) => met), [false, true]);
});

Deno.test("LineReader finds lines and frames wherever the reads are cut", () => {
  const long = "y".repeat(300);
  const lines = ["chat abc", "chat defg", "", "status", long, "chat abc", "chat abc"];
  const payload = new TextEncoder().encode(lines.join("\n"));
  const frame = [0x81, 126, payload.length >> 8, payload.length & 255, ...payload];
  const bytes = new Uint8Array([...frame, 0x89, 1, 65, ...frame]);
  for (let step = 1; step <= bytes.length; step += 7) {
    const heard: string[] = [];
    const reader = new LineReader(2048, true, {
      line(buffer, from, to) {
        const text = new TextDecoder().decode(buffer.subarray(from, to));
        heard.push(text);
        return text.startsWith("chat");
      },
      control: (opcode) => heard.push(`control ${opcode}`),
    });
    for (let at = 0; at < bytes.length; at += step) {
      const part = bytes.subarray(at, at + step);
      reader.space().set(part);
      reader.take(part.length);
    }
    assertEquals(heard, [...lines, "control 9", ...lines], `step ${step}`);
  }
});

Deno.test("readOptions() with --quick asks for echo and fan-out, of Parley, bare Deno and Bun, in one minute", () => {
  const { rows, servers, minutes } = readOptions(["--quick"])!;
  assertEquals(rows.map(({ name }) => name), [
    "echo 32",
    "chat 32x32",
    "chat 200x200",
    "chat 10→1000",
  ]);
  const names = servers.filter(({ unix }) => !unix).map(({ name }) => name);
  assertEquals(names, ["parley", "parley-v1", "control", "bun"]);
  assertEquals(minutes, 1);
  assertEquals(readOptions([])!.minutes, 10);
  assertEquals(readOptions(["--quick", "--minutes", "2"])!.minutes, 2);
});

Deno.test("readOptions() refuses what it cannot measure, and --help asks for nothing", () => {
  assertEquals(readOptions(["--help"]), undefined);
  const wrong = [["--turns", "0"], ["--seconds", "soon"], ["--only", "nothing"], [
    "--servers",
    "x",
  ]];
  for (const args of wrong) assertThrows(() => readOptions(args), Error, args[1]);
  assertThrows(() => readOptions(["--fast"]), TypeError, "--fast");
});
