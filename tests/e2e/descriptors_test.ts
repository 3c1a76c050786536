// More connections than the process has file descriptors.
import { assert, assertEquals } from "@std/assert";
import { Client } from "../support/clients.ts";
import { soon } from "../support/inbox.ts";
import { TestProcess } from "../support/process.ts";

Deno.test("a server without file descriptors keeps its sockets and listens again", {
  ignore: Deno.build.os === "windows",
}, async () => {
  const command = "ulimit -n 100; exec deno run -A main.ts --host 127.0.0.1 --port 0";
  await using server = new TestProcess(command);
  const [url] = /http:\/\/[^\s/]+/.exec(await server.line(/ started: /))!;
  await using echo = await Client.open(`${url.replace("http", "ws")}/echo`);
  const port = Number(new URL(url).port);
  const silent: Deno.TcpConn[] = [];
  const deaf = server.line(/Cannot accept connections: .*Too many open files/);
  try {
    for (let i = 0; i < 200; i++) {
      silent.push(await Deno.connect({ hostname: "127.0.0.1", port }));
    }
  } catch {
    // The server refuses, or resets what it had not accepted.
  }
  await deaf;
  for (const connection of silent) connection.close();
  await server.line(/Accepting connections again/);
  echo.send("still here");
  assertEquals(await echo.next(), "Echo: still here");
  const ready = await fetch(`${url}/readyz`);
  assertEquals([ready.status, await ready.text()], [503, "not accepting connections\n"]);
  assertEquals(await (await fetch(`${url}/healthz`)).text(), "ok\n");
  server.kill("SIGTERM");
  assertEquals((await soon(server.status, "the end of the process")).code, 0);
  assert(!server.lines().some((line) => /Uncaught/.test(line)));
});
