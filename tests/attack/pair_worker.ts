/**
 * The innocent pair, in a thread of its own: what attacks the server does not slow its clock.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import type { PairReport } from "./pair.ts";

/** One message each so often: half of MESSAGE_RATE as shipped. */
const EVERY_MS = 20;

const room = `innocent-${crypto.randomUUID()}`;
const latencies: number[] = [];
let sent = 0;
let received = 0;
let isOver = false;

function open(ws: string): Promise<WebSocket> {
  const socket = new WebSocket(`${ws}/chat/${room}`, "parley.v1");
  socket.onclose = ({ code, reason }) => {
    if (!isOver) fail(`an innocent socket was closed with ${code} ${reason}`);
  };
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = (event) => reject(new Error((event as ErrorEvent).message));
  });
}

function fail(error: string): void {
  isOver = true;
  self.postMessage({ error });
}

/** Bob hears each number of Ann's in order, and how long it took. */
function hear({ data }: MessageEvent): void {
  for (const line of data.split("\n")) {
    const object = JSON.parse(line);
    if (object.type !== "chat") continue;
    const { number, at } = object.message;
    if (number !== ++received) return fail(`message ${received} is missing, ${number} came`);
    latencies.push(performance.now() - at);
  }
}

self.onmessage = async ({ data: { ws } }) => {
  const [ann, bob] = [await open(ws), await open(ws)];
  bob.onmessage = hear;
  ann.onmessage = ({ data }) => {
    if (/"type":"error"/.test(data)) fail(`Ann was refused: ${data}`);
  };
  const say = () => {
    const message = { number: ++sent, at: performance.now() };
    ann.send(JSON.stringify({ type: "chat", message, id: `${sent}` }));
  };
  ann.send('{"type":"join","name":"Ann"}');
  const timer = setInterval(say, EVERY_MS);
  self.postMessage("ready");
  self.onmessage = () => {
    clearInterval(timer);
    const waiting = setInterval(() => {
      if (received < sent || isOver) return;
      clearInterval(waiting);
      isOver = true;
      latencies.sort((a, b) => a - b);
      const at = (share: number) => latencies[Math.floor(share * (latencies.length - 1))];
      const report: PairReport = { messages: sent, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
      ann.close();
      bob.close();
      self.postMessage(report);
    }, EVERY_MS);
  };
};
