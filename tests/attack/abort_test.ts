/** Clients that give up between their request and its answer. */
import net from "node:net";
import { eventually } from "../support/inbox.ts";
import { sized } from "../support/run.ts";
import { Target } from "./target.ts";

/** Requests as a client sends them that gives up at once. */
const REQUESTS = [upgradeOf("/chat/a"), upgradeOf("/echo"), "GET /rooms/a/events HTTP/1.1"];

function upgradeOf(path: string): string {
  return `GET ${path} HTTP/1.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\n` +
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
}

/** Sends a request, and resets the connection before the answer can come. */
function requestAndReset(port: number, request: string): Promise<void> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1", () => {
      socket.write(request, () => {
        socket.resetAndDestroy();
        resolve();
      });
    });
    socket.on("error", () => {});
  });
}

Deno.test("clients that give up before the answer leave no slot behind, however many they are", async () => {
  const count = sized(300, 6_000);
  await using target = await Target.start(["--max-connections", "200"]);
  await target.endure("aborted requests", async () => {
    const port = Number(new URL(target.url).port);
    for (let sent = 0; sent < count; sent++) {
      await requestAndReset(port, `${REQUESTS[sent % 3]}\r\nhost: x\r\n\r\n`);
    }
    // The last of them may still be on their way: there is a slot as soon as they are read.
    await eventually(async () => {
      using client = await target.open("/chat/a");
      return client.status;
    }, (status) => status === 101);
  });
});
