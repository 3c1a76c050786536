/** Names, rooms, keys and texts that mean something to a program, and texts that take long to read. */
import { assert, assertEquals } from "@std/assert";
import { Client } from "../support/clients.ts";
import { ServerProcess } from "../support/process.ts";
import { Target } from "./target.ts";
import { together } from "../support/together.ts";

const test = together("names, rooms and texts that mean something to a program");

const PROTOTYPE_KEYS = [
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "valueOf",
  "then",
  "toJSON",
];

Deno.test("keys of a prototype are words like others, and reach nothing", async () => {
  await using target = await Target.start();
  await target.endure("prototype keys", async () => {
    await using listener = await Client.open(`${target.ws}/chat/lobby`, "parley.v1");
    await listener.nextObject();
    for (const key of PROTOTYPE_KEYS) {
      await using client = await Client.open(`${target.ws}/chat/lobby`, "parley.v1");
      await client.nextObject();
      const isServers = key.startsWith("_");
      client.send(`{"type":"join","name":"${key}","${key}":{"name":"x","polluted":1}}`);
      assertEquals((await client.nextObject()).name, key);
      const message = `{"${key}":{"polluted":true,"${key}":1},"a":"${key}"}`;
      client.send(`{"type":"chat","message":${message},"id":"${key}"}`);
      const objects = [await client.nextObject(), await client.nextObject()];
      assertEquals(objects.map(({ type }) => type).sort(), ["ack", "chat"]);
      let frame = "";
      while (!frame.includes('"type":"chat"')) frame = `${await listener.next()}`;
      assert(frame.includes(`"message":${message}`), frame);
      client.send({ type: "listen", room: key });
      assertEquals((await client.nextObject()).type, "welcome");
      client.send({ type: "join", name: "x", room: key });
      const joined = await client.nextObject();
      assertEquals(isServers ? joined.code : joined.room, isServers ? "forbidden" : key);
      client.send(`{"type":"${key}"}`);
      assertEquals((await client.nextObject()).code, "bad_message");
      client.send(`{"type":"members","room":"${key}"}`);
      assertEquals((await client.nextObject()).type, "members");
      await fetch(`${target.url}/${key}`).then(async (answer) => {
        assertEquals([answer.status, await answer.text()], [404, "Not Found"]);
      });
    }
    // Objects that say nothing of themselves, but whose prototype would.
    await using plain = await Client.open(`${target.ws}/chat`);
    for (const text of ['{"__proto__":{"type":"join","name":"x"}}', '{"__proto__":null}', "[]"]) {
      plain.send(text);
      assertEquals((await plain.nextObject()).type, "error", text);
    }
  });
});

test("JSON that nests, widens or lengthens as far as a frame allows is answered at once", async () => {
  await using target = await Target.start(["--message-rate", "0", "--byte-rate", "0"]);
  const wide = Array.from({ length: 6_000 }, (_, index) => `"${index}":0`).join(",");
  const values: Record<string, string> = {
    "arrays in arrays": "[".repeat(30_000) + "]".repeat(30_000),
    "objects in objects": '{"":'.repeat(10_000) + "0" + "}".repeat(10_000),
    "arrays without an end": "[".repeat(60_000),
    "a wide object": `{${wide}}`,
    "one key 9,000 times": `{${'"k":0,'.repeat(9_000)}"k":0}`,
    "a wide array": `[${"0,".repeat(30_000)}0]`,
    "wide at each of 100 depths": `${`[${"0,".repeat(200)}`.repeat(99)}0${"]".repeat(99)}`,
    "a long number": "9".repeat(60_000),
    "a long fraction": `0.${"3".repeat(60_000)}`,
    "a long exponent": `1e${"9".repeat(60_000)}`,
    "escapes": `"${"\\u0000".repeat(10_000)}"`,
    "backslashes": `"${"\\\\".repeat(30_000)}"`,
    "halves of surrogates": `"${"\\ud800".repeat(10_000)}"`,
    "blanks": `${" ".repeat(60_000)}0`,
    "a text without an end": `"${"a".repeat(60_000)}`,
  };
  await target.endure("deep and wide JSON", async () => {
    const before = (await target.totals()).cpuSeconds;
    for (const dialect of ["parley.v1", []] as const) {
      const options = { protocols: [dialect].flat() };
      await using client = await Client.open(`${target.ws}/chat/json`, options);
      client.send({ type: "join", name: "x" });
      for (const value of Object.values(values)) {
        client.send(`{"type":"chat","message":${value}}`);
        client.send(value);
      }
      client.send({ type: "join", name: "the end" });
      while (!`${await client.next()}`.includes("the end"));
    }
    for (const [what, value] of Object.entries(values)) {
      const headers = { "content-type": "application/json" };
      const init = { method: "POST", headers, body: `{"message":${value}}` };
      const answer = await fetch(`${target.url}/rooms/json/messages`, init);
      await answer.body?.cancel();
      assert([202, 400, 413].includes(answer.status), `${what}: ${answer.status}`);
    }
    const seconds = (await target.totals()).cpuSeconds - before;
    assert(seconds < 3, `it took ${seconds} s of CPU time`);
  });
});

const NUL = "\0";
const BAD_ROOMS = [
  "",
  " ",
  ".. ",
  "a/b",
  "\\",
  `a${NUL}b`,
  "\u202eabc",
  "\u{1F600}",
  "\ud800",
  "é",
];
const BAD_NAMES = [
  "",
  NUL,
  `Ann${NUL}`,
  "Ann\nBob",
  "\u202eAnn",
  "\u2066Ann",
  "\u2028",
  "\u0085",
  "\ud800",
  "\udfffx",
  "x".repeat(65),
  "\u{1F600}".repeat(65),
];
const ODD_NAMES = [
  "\u{1F600}".repeat(64),
  "\u200d".repeat(64),
  "e\u0301",
  "\u05d0\u05d1",
  "<b>&amp;",
];

test("rooms and names that deceive are refused in every place, odd ones come out as they went in", async () => {
  await using target = await Target.start(["--message-rate", "0", "--join-rate", "0"]);
  await target.endure("names and rooms", async () => {
    await using client = await Client.open(`${target.ws}/chat/names`, "parley.v1");
    await client.nextObject();
    for (const room of [...BAD_ROOMS, "x".repeat(65), 0, null, {}, []]) {
      for (const type of ["listen", "join", "leave", "chat", "members"]) {
        client.send({ type, room, name: "x", message: "x" });
        assertEquals((await client.nextObject()).code, "bad_room", JSON.stringify(room));
      }
    }
    for (const name of [...BAD_NAMES, 0, null, {}, [], true]) {
      client.send({ type: "join", name });
      assertEquals((await client.nextObject()).code, "bad_name", JSON.stringify(name));
    }
    for (const name of ODD_NAMES) {
      client.send({ type: "join", name });
      const status = await client.nextObject();
      assertEquals([status.name, status.message], [name, `${name} joined the chat.`]);
      client.send({ type: "members" });
      assertEquals((await client.nextObject()).members, [name]);
    }
    for (const id of ["", "x".repeat(65), 0, {}]) {
      client.send({ type: "chat", message: "x", id });
      assertEquals((await client.nextObject()).code, "bad_message");
    }
    for (const session of ["short", "x".repeat(65), 0]) {
      client.send({ type: "join", name: "x", session });
      assertEquals((await client.nextObject()).code, "bad_message");
    }
    const { rooms } = await (await fetch(`${target.url}/rooms`)).json();
    assertEquals(
      rooms.filter(({ room }: { room: string }) => !room.startsWith("innocent")).length,
      1,
    );
  });
});

const LENGTH = 60_000;
/** Texts on which a careless pattern backtracks. */
const SLOW: string[] = [
  `a${" ".repeat(LENGTH)}b`,
  `a${"\t".repeat(LENGTH)}b`,
  `"a"${" ".repeat(LENGTH)}x`,
  `*${" ".repeat(LENGTH)}x`,
  ",".repeat(LENGTH),
  ", ".repeat(LENGTH / 2),
  `Bearer ${" ".repeat(LENGTH)}a b`,
  `Bearer ${"a.".repeat(LENGTH / 2)}`,
  `application/${"a+".repeat(LENGTH / 2)}`,
  `application/json${" ".repeat(LENGTH)}x`,
  `https://${"a.".repeat(LENGTH / 2)}example.com`,
  ":".repeat(LENGTH),
  "0".repeat(LENGTH),
  `W/"a" ,`.repeat(LENGTH / 8),
];
const HEADERS = [
  "if-none-match",
  "authorization",
  "content-type",
  "x-forwarded-for",
  "origin",
  "upgrade",
  "connection",
  "sec-websocket-key",
  "sec-websocket-protocol",
  "last-event-id",
  "idempotency-key",
  "accept-encoding",
  "range",
  "host",
];

test("no header takes the server long to read", async () => {
  const doors = ["--trust-proxy", "1", "--allowed-origins", "https://a.example,*.example.com"];
  await using target = await Target.start([...doors, "--auth-secret", "x".repeat(32)]);
  let last = (await target.totals()).cpuSeconds;
  for (const header of HEADERS) {
    for (const value of SLOW) {
      for (const request of ["GET /", "GET /chat", "GET /rooms", "POST /rooms/a/messages"]) {
        using connection = await target.dial();
        const host = header === "host" ? "" : "host: x\r\n";
        const head =
          `${request} HTTP/1.1\r\n${host}${header}: ${value}\r\nconnection: close\r\n\r\n`;
        try {
          await new Blob([head]).stream().pipeTo(connection.writable, { preventClose: true });
          await connection.read(new Uint8Array(16));
        } catch {
          // It answered before it had read all.
        }
      }
    }
    const { cpuSeconds } = await target.totals();
    assert(cpuSeconds - last < 1, `${header} took ${cpuSeconds - last} s of CPU time`);
    last = cpuSeconds;
  }
});

test("no field of a message takes the server long to read", async () => {
  await using target = await Target.start(["--message-rate", "0", "--byte-rate", "0"]);
  await using client = await Client.open(`${target.ws}/chat/slow`, "parley.v1");
  const before = (await target.totals()).cpuSeconds;
  for (const value of [...SLOW, "x".repeat(LENGTH), "\u{1F600}".repeat(LENGTH / 4)]) {
    for (const field of ["type", "room", "name", "id", "session", "after", "token", "message"]) {
      for (const type of ["join", "chat", "listen"]) {
        client.send({
          type,
          name: "x",
          room: "slow",
          message: "x",
          [field]: value.slice(0, 30_000),
        });
      }
    }
    client.send({ type: "ping", id: "end" });
    while (!`${await client.next()}`.includes('"id":"end"'));
  }
  const seconds = (await target.totals()).cpuSeconds - before;
  assert(seconds < 3, `it took ${seconds} s of CPU time`);
});

test("a close reason cannot begin, turn or hide a line of the log", async () => {
  await using server = await ServerProcess.start(["--host", "127.0.0.1"]);
  const reason = "a\nb\r\x1b[31m\u202ec\u2028d{name}";
  const client = await Client.open(`${server.ws}/echo`);
  client.socket.close(4_000, reason);
  const line = await server.line(/closed with error/);
  assert(line.includes("a\\x0ab\\x0d\\x1b[31m\\u202ec\\u2028d{name}"), line);
  await client.closed;
});
